"""Task heads: features in, predictions out. They need torch alone."""

from .classification import ClassificationHead
from .segmentation import SegmentationHead

__all__ = ["ClassificationHead", "SegmentationHead"]
