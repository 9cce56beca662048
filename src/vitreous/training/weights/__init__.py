"""File of weights -> model to start training from, or to learn from as a student."""
