"""Name or keys -> ModelConfig: sizes, published names, and the range of each value."""
