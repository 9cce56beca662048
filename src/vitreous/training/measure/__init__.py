"""RunConfig -> measurements before the run: speed, memory, and whether a model can overfit one batch."""
