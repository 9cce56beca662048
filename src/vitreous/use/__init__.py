"""Run folder -> predictions, evaluations, reports: everything that is done with a trained model."""
