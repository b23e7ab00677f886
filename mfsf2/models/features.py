"""The fused maps in place of a prediction: what ``features_only=True`` returns. Importing this imports timm."""

from typing import Any

import torch.fx
from timm.models._features import FeatureGetterNet
from torch import Tensor

from .mfsf2 import MFSF2
from .two_modality import Input, MFSF2TwoModality

__all__ = ["FeatureNetwork"]


def refuse_second_modality(*inputs: Input) -> None:
    """Refuse inputs that a network of one image does not have."""
    if any(x is not None for x in inputs):
        raise TypeError("this network takes an image alone: stack and masks are for networks of two modalities")


# Symbolic tracing does not know which inputs will be given.
torch.fx.wrap("refuse_second_modality")


class FeatureNetwork(FeatureGetterNet):
    """timm's wrapper around ``forward_intermediates``, with all inputs of a network of two modalities.

    A network of one image takes the first input alone.
    """

    model: MFSF2

    def __init__(self, model: MFSF2, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self.in_chans = model.in_chans

    def forward(
        self, image: Input = None, stack: Input = None, image_mask: Input = None, stack_mask: Input = None
    ) -> list[Tensor]:
        second: dict[str, Any] = {}
        if isinstance(self.model, MFSF2TwoModality):
            second.update(stack=stack, image_mask=image_mask, stack_mask=stack_mask)
        else:
            refuse_second_modality(stack, image_mask, stack_mask)
        network: Any = self.model
        return network.forward_intermediates(
            image, indices=self.out_indices, output_fmt=self.output_fmt, intermediates_only=True, **second
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As the network's."""
        self.model.set_grad_checkpointing(enable)

    def example_inputs(self) -> dict[str, Tensor]:
        """As the network's."""
        return self.model.example_inputs()
