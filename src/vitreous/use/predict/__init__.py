"""Images, a trained model -> predictions with their probabilities."""
