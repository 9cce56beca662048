"""Machine -> devices, precision, processes and signals for training."""
