"""Data set -> findings: duplicates, mislabeled images and outliers, each with advice on how to fix it."""
