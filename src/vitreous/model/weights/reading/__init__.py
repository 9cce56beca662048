"""Path -> tensors of a file by name, read lazily; no code in the file is ever executed."""
