"""Images mixed in pairs, with their classes and masks: mixup and cutmix, by torchvision's transforms.

Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018; Yun et al., "CutMix", 2019.
"""

import torch
from augment import Augment
from torch import Tensor
from torch.nn import functional as F

__all__ = ["mix_batch"]


def mix_batch(
    batch: dict[str, Tensor], targets: Tensor | None, augment: Augment, classes: int
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Mix each image with the one before it in the batch; where both kinds are wanted, a coin decides for the batch.

    Args:
        batch: ``image`` ``(B, 3, S, S)`` and, where there is any, ``mask`` ``(B, 1, S, S)``; other entries are kept.
        targets: class indices ``(B,)``, if any.
        augment: ``mixup`` and ``cutmix``; both 0 for no mixing.
        classes: number of classes.

    Returns:
        The batch and probabilities of the classes ``(B, classes)``. With cutmix, each pixel keeps the class of the
        image that it comes from; with mixup, it has those of two masks: ``other_mask`` is the second one, and ``share``
        how much the first one counts.
    """
    from torchvision.transforms.v2 import CutMix, MixUp

    if not (augment.mixup or augment.cutmix):
        return batch, targets
    cut = augment.cutmix > 0 and (augment.mixup == 0 or torch.rand(()).item() < 0.5)
    mixer = CutMix(alpha=augment.cutmix) if cut else MixUp(alpha=augment.mixup)
    # The transforms take no masks. As a channel, a mask is cut as its image is; in the place of classes, the images'
    # numbers tell how much of which image is in which.
    parts = [batch[key] for key in ("image", "mask") if key in batch]
    mixed, shares = mixer(torch.cat(parts, 1), torch.eye(len(parts[0]), device=parts[0].device))
    batch = dict(batch, image=mixed[:, :3])
    if "mask" in batch and cut:
        batch["mask"] = mixed[:, 3:]
    elif "mask" in batch:
        batch |= {"other_mask": batch["mask"].roll(1, 0), "share": shares[0, 0]}
    return batch, targets if targets is None else shares @ F.one_hot(targets, classes).to(shares)
