"""Model name or keys -> ModelConfig: fields and their ranges, sizes, and published names."""
