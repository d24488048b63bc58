"""Local models as Unix filters."""
