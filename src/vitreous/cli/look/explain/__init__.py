"""`vitreous explain` -> pictures, a comparison of methods, a look into the model, a search for shortcuts."""

from vitreous.cli.look.explain.command import explain

__all__ = ["explain"]
