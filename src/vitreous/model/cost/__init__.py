"""ModelConfig -> parameters, FLOPs and bytes, without building the model."""
