"""ModelConfig -> parameters, FLOPs and memory, without building the model."""
