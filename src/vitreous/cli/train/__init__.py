"""Data, weights -> trained models: the commands before and during training."""
