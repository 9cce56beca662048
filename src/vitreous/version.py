"""The version number, written only here -> `vitreous.__version__`, records and model files."""

__version__ = "0.1.0"
