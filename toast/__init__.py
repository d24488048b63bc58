"""Local models as Unix filters."""

__version__ = "0.1.0"
