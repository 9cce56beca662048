"""RunConfig -> run folder: the training procedure, its checkpoints and its records."""
