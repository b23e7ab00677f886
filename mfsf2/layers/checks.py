"""Input checks with messages a user can act on. Each is one node under symbolic tracing."""

from torch import Tensor

__all__ = ["check_batch", "check_image", "check_map", "check_pyramid", "check_same", "check_sides"]


def check_map(x: Tensor, channels: int, name: str) -> None:
    """Check a feature map: rank 4, ``channels`` channels, floating point, not empty.

    Raises:
        TypeError: not a tensor, not floating point.
        ValueError: anything else.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape (B, {channels}, H, W), got {type(x)}")
    if x.dim() != 4:
        raise ValueError(f"{name} must have shape (B, {channels}, H, W), got {x.dim()} dimensions: {list(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}: convert it, e.g. x.float() / 255 for images")
    if x.shape[1] != channels:
        raise ValueError(f"{name} has {x.shape[1]} channels, expected {channels}: {list(x.shape)}")
    if x.shape[0] == 0 or x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"{name} is empty, shape {list(x.shape)}: batch, height and width must be at least 1")


def check_pyramid(maps: list[Tensor], channels: list[int], name: str) -> None:
    """Check a list of feature maps, one for each entry of ``channels``."""
    if not isinstance(maps, (list, tuple)):
        raise TypeError(f"{name} must be a list of {len(channels)} feature maps, got {type(maps)}")
    if len(maps) != len(channels):
        raise ValueError(f"{name} holds {len(maps)} feature maps, expected {len(channels)}, one for each stage")
    for x, chans in zip(maps, channels):
        check_map(x, chans, name)
        if x.shape[0] != maps[0].shape[0]:
            raise ValueError(f"{name} holds batches of {maps[0].shape[0]} and {x.shape[0]} samples: they must be equal")


def check_same(a: Tensor, b: Tensor, names: str, same_grid: bool = True) -> None:
    """Check that two maps are of one batch and, with ``same_grid``, of one height and width."""
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"{names} hold batches of {a.shape[0]} and {b.shape[0]} samples: they must be equal")
    if same_grid and (a.shape[2] != b.shape[2] or a.shape[3] != b.shape[3]):
        raise ValueError(
            f"{names} have grids of {a.shape[2]}x{a.shape[3]} and {b.shape[2]}x{b.shape[3]}: they must be equal; "
            "DualBranchAlign brings maps to one grid"
        )


def check_batch(x: Tensor) -> None:
    """Check that a batch holds more than one sample, as batch norm over a vector needs in training mode."""
    if x.shape[0] == 1:
        raise ValueError(
            "a batch of one sample has no batch statistics: use at least two samples in training mode "
            "(DataLoader(drop_last=True)), or model.eval()"
        )


def check_sides(x: Tensor, min_size: int, name: str) -> None:
    """Check that the last two dimensions are at least ``min_size`` pixels."""
    if x.shape[-2] < min_size or x.shape[-1] < min_size:
        raise ValueError(
            f"{name} is {x.shape[-2]}x{x.shape[-1]} pixels: this network takes {min_size}x{min_size} and more"
        )


def check_image(x: Tensor, in_chans: int, min_size: int, training: bool) -> None:
    """Check a batch of images: as :func:`check_map`, and at least ``min_size`` pixels a side."""
    check_map(x, in_chans, "image")
    check_sides(x, min_size, "image")
    if training and x.shape[2] <= 32 and x.shape[3] <= 32:
        # The stride-32 map is a single pixel, so that batch norm has one value per sample.
        check_batch(x)
