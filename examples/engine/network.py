"""Trained networks, to be used."""

from pathlib import Path
from typing import Any

from readers import DataError
from torch import Tensor

import mfsf2

__all__ = ["load_network", "outputs_of", "probabilities_of"]


def load_network(name: str) -> Any:
    """The network of a saved folder, or of a name with a pretrained tag, for evaluation.

    Raises:
        DataError: no such folder, not a saved network, or one that takes no images of three channels.
    """
    if Path(name).is_file():
        raise DataError(f"checkpoint {name}: give the folder that holds the network and its config.json")
    try:
        if name in mfsf2.list_pretrained():
            network: Any = mfsf2.create_model(name, pretrained=True).eval()
        else:
            source = name if name.startswith(("local-dir:", "hf-hub:")) else f"local-dir:{name}"
            network = mfsf2.create_model(source).eval()
    except (OSError, TypeError, ValueError) as error:
        trained = ", ".join(tagged for tagged in mfsf2.list_pretrained() if not tagged.endswith(".in1k_backbones"))
        hint = "" if Path(name).is_dir() else f"; give a saved folder, or one of {trained}"
        raise DataError(f"checkpoint {name}: {error}{hint}") from error
    channels = network.pretrained_cfg["input_size"][0]
    if channels != 3:
        raise DataError(f"checkpoint {name}: its network takes {channels} channels, images here have 3")
    return network


def probabilities_of(network: Any, logits: Tensor) -> Tensor:
    """Probabilities of classes ``(..., classes)``, with the temperature that the network carries."""
    return (logits / network.pretrained_cfg.get("temperature", 1.0)).softmax(-1)


def outputs_of(network: Any, *inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Logits of the classes and of the masks, None for those that the network has no head for."""
    outputs = network(*inputs)
    if isinstance(outputs, tuple):
        logits, masks = outputs
        return logits, masks
    return (outputs, None) if network.mask_head is None else (None, outputs)
