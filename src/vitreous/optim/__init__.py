"""Loss -> optimizer step: parameter groups, optimizers, learning rate schedule and weight averaging."""
