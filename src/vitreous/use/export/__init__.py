"""A trained model -> files in which it runs without this package."""
