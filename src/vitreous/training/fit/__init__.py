"""TrainState -> trained TrainState: the loop, its budget, its checkpoints and its evaluations."""
