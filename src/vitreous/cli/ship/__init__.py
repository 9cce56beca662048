"""Trained model -> files, a hub, a server: the commands with which other programs use it."""
