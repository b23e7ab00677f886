"""The fused maps in place of a prediction: what ``features_only=True`` returns. Importing this imports timm."""

from typing import Any

from timm.models._features import FeatureGetterNet
from torch import Tensor

from .base import MFSF2Network
from .rcm import MFSF2RCMClassifier

__all__ = ["FeatureNetwork", "TwoModalityFeatureNetwork"]


class FeatureNetwork(FeatureGetterNet):
    """timm's wrapper around ``forward_intermediates``."""

    model: MFSF2Network

    def __init__(self, model: MFSF2Network, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.in_chans = model.in_chans

    def example_inputs(self) -> dict[str, Tensor]:
        """As the network's."""
        return self.model.example_inputs()


class TwoModalityFeatureNetwork(FeatureNetwork):
    """The same with all inputs of a network of two modalities."""

    model: MFSF2RCMClassifier

    def forward(
        self,
        image: Tensor | None = None,
        stack: Tensor | None = None,
        image_mask: Tensor | None = None,
        stack_mask: Tensor | None = None,
    ) -> list[Tensor]:
        maps: Any = self.model.forward_intermediates(
            image,
            indices=self.out_indices,
            output_fmt=self.output_fmt,
            intermediates_only=True,
            stack=stack,
            image_mask=image_mask,
            stack_mask=stack_mask,
        )
        return maps
