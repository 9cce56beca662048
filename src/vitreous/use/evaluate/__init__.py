"""Trained model, labeled images -> accuracy with its uncertainty, and scores per class."""
