"""Weights file -> the initial weights of a model, or a teacher to distill from."""
