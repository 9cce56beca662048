"""Data set -> findings: copies, doubtful labels, outliers, and what to do about each."""
