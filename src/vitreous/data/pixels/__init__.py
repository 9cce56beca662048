"""Samples -> decoded pixels, kept in memory or in the cache."""
