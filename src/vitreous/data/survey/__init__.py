"""Source -> what is known about a data set: facts, splits, folds."""
