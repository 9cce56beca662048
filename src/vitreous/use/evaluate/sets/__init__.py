"""Outputs of held-out images -> sets of classes with a guaranteed coverage, and which predictions to reject."""
