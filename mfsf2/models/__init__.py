"""Whole networks, built of timm backbones, this library's blocks and its heads."""

from .classification import MFSF2Classifier
from .encoder import MFSF2Encoder
from .rcm import MFSF2RCMClassifier
from .segmentation import DeepPredictions, MFSF2ClassifierSegmenter, MFSF2Segmenter, Predictions

__all__ = [
    "DeepPredictions",
    "MFSF2Classifier",
    "MFSF2ClassifierSegmenter",
    "MFSF2Encoder",
    "MFSF2RCMClassifier",
    "MFSF2Segmenter",
    "Predictions",
]
