"""A trained model -> the same model, reshaped, merged or with low-rank updates."""
