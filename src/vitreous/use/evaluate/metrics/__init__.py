"""True classes, predicted classes, probabilities -> scores with intervals, curves, and decisions by cost."""
