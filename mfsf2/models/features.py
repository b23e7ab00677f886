"""The fused maps instead of a prediction, for ``features_only=True``. Importing this module imports timm."""

from typing import Any

import torch.fx
from timm.models._features import FeatureGetterNet
from torch import Tensor

from .mfsf2 import MFSF2
from .two_modality import Input, MFSF2TwoModality

__all__ = ["FeatureModel"]


def refuse_second_modality(*inputs: Input) -> None:
    """Refuse the inputs of a second modality, for a model that takes one."""
    if any(x is not None for x in inputs):
        raise TypeError("this model takes one image: stack and masks are for models with two modalities")


# Symbolic tracing does not know which inputs there will be: this is one node.
torch.fx.wrap("refuse_second_modality")


class FeatureModel(FeatureGetterNet):
    """timm's wrapper around ``forward_intermediates``, for models with one modality or two."""

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
        model: Any = self.model
        return model.forward_intermediates(
            image, indices=self.out_indices, output_fmt=self.output_fmt, intermediates_only=True, **second
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As :meth:`MFSF2.set_grad_checkpointing`."""
        self.model.set_grad_checkpointing(enable)

    def example_inputs(self) -> dict[str, Tensor]:
        """As :meth:`MFSF2.example_inputs`."""
        return self.model.example_inputs()
