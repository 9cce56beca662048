"""TrainState -> trained TrainState: the loop, its time budget, checkpoints, evaluations and health checks."""
