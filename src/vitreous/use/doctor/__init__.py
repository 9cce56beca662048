"""Data set, optionally a run -> what is wrong with the data, as text and as a page with pictures."""
