"""Vision Transformers you can see through: train one on your own images, see what it looks at, ship it."""

__version__ = "0.1.0"
