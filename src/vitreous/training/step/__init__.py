"""TrainState, batch -> the next TrainState."""
