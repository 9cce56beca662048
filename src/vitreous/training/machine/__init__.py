"""Machine -> device, precision, processes and signals."""
