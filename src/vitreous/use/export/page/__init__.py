"""A trained model -> parts of a page in which it runs in plain JavaScript, without a network."""
