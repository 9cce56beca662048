"""Runs that differ by fold or seed -> their joint accuracy, and a paired comparison of two runs or series."""
