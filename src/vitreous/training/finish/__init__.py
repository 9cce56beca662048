"""Trained state -> model.safetensors and everything else that a run leaves, with labels and without them."""
