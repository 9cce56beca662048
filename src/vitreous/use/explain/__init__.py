"""Trained model, images -> explanations: which patches raise the score of a class, and how far to trust them."""
