"""Run folder -> predictions, evaluations, a report: everything that is done with a trained model."""
