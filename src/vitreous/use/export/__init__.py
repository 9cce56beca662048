"""A run -> files that give its answers without this package, each compared with Python on held-out photos."""
