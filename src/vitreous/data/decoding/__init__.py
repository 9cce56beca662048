"""Encoded image -> pixels of one size."""
