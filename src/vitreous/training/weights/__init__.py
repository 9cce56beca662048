"""File of weights -> a model to start from or to learn from."""
