"""Pixels -> augmented and mixed pixels."""
