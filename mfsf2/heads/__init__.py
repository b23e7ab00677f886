"""Task heads: features in, predictions out. They need torch alone."""

from .classification import ClassificationHead

__all__ = ["ClassificationHead"]
