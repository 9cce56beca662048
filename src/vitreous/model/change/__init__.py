"""A trained model -> the same model resized, made faster, or with low-rank updates."""
