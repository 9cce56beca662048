"""RunConfig -> seconds, bytes and whether one batch can be overfitted, measured before the run."""
