"""Runs that differ by fold or seed -> what they say together, and which of two ways to train is better."""
