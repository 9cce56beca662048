"""Trained model, images -> predicted classes with their probabilities."""
