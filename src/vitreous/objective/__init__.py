"""Logits, targets -> loss: what a model is asked to become good at."""
