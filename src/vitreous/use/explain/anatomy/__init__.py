"""Trained model, held-out images -> what the model has learned: its filters, attention, tokens, features, parts."""
