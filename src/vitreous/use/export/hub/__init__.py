"""Predictor -> a folder that another library opens, its model card, and both on the Hugging Face hub."""
