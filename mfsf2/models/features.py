"""The fused maps in place of a prediction: what ``features_only=True`` returns. Importing this imports timm."""

from typing import Any

from timm.models._features import FeatureGetterNet
from torch import Tensor

from .base import MFSF2Network

__all__ = ["FeatureNetwork"]


class FeatureNetwork(FeatureGetterNet):
    """timm's wrapper around ``forward_intermediates``, for all inputs that a network takes."""

    model: MFSF2Network

    def __init__(self, model: MFSF2Network, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.in_chans = model.in_chans

    def example_inputs(self) -> dict[str, Tensor]:
        """As the network's."""
        return self.model.example_inputs()

    def forward(self, *inputs: Any, **kwargs: Any) -> list[Tensor]:
        maps: Any = self.model.intermediates(
            self.model.encoder_inputs(*inputs, **kwargs),
            indices=self.out_indices,
            stop_early=False,
            output_fmt=self.output_fmt,
            intermediates_only=True,
        )
        return maps
