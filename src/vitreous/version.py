"""The one place that says which version this is -> `vitreous.__version__`, records, model files."""

__version__ = "0.1.0"
