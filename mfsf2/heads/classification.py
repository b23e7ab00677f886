"""Classification head: pool, hidden layer, classifier."""

import torch
import torch.fx
from torch import Tensor, nn

from ..layers.checks import check_batch, check_dtypes, check_integer, check_map, check_rate, takes_statistics
from ..layers.pooling import GlobalPool

__all__ = ["ClassificationHead"]

torch.fx.wrap("check_batch")
torch.fx.wrap("check_map")


class ClassificationHead(nn.Module):
    """``pool -> [Linear -> BatchNorm1d -> ReLU] -> Dropout -> Linear``, the published head with its defaults.

    Args:
        in_features: channels of the map.
        num_classes: number of classes; 0 returns what the classifier would be given.
        hidden_features: width of the hidden layer; None for a head of pool, dropout and classifier alone.
        global_pool: any of timm's pools, see :class:`~mfsf2.layers.GlobalPool`. With ``""``, which needs
            ``num_classes=0``, the head is empty and returns the map.
        drop_rate: dropout before the classifier.

    Shape: ``(B, in_features, H, W)`` to ``(B, num_classes)``; without classes to ``(B, hidden_features)``; without a
    pool to itself.

    Raises:
        ValueError: negative ``num_classes``, classes without a pool, a batch of one in training mode (batch norm).

    Example:
        >>> ClassificationHead(512, num_classes=7)(torch.randn(2, 512, 7, 7)).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_features: int | None = 1024,
        global_pool: str = "avg",
        drop_rate: float = 0.3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_integer(in_features, "in_features")
        if hidden_features is not None:
            check_integer(hidden_features, "hidden_features", meaning=", or None for no hidden layer")
        check_rate(drop_rate, "drop_rate")
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.drop = nn.Dropout(drop_rate)
        self._build_pool_and_hidden(global_pool, num_classes, device, dtype)
        self.fc = self._build_classifier(num_classes, device, dtype)
        self.num_classes = num_classes

    @property
    def num_features(self) -> int:
        """Features after the pool."""
        return self.in_features * self.global_pool.factor

    @property
    def hidden_size(self) -> int:
        """Features that the classifier is given."""
        return self.hidden_features or self.num_features

    @property
    def has_hidden_layer(self) -> bool:
        return isinstance(self.hidden, nn.Sequential)

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of the layers with an output for each class."""
        return ("fc",)

    def _build_pool_and_hidden(
        self, global_pool: str, num_classes: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        check_integer(num_classes, "num_classes", 0, " (no classifier)")
        if not global_pool and num_classes:
            raise ValueError(
                f"global_pool='' with num_classes={num_classes}: a classifier needs a pooled vector, so use a pool, or "
                "num_classes=0 for the map"
            )
        self.global_pool = GlobalPool(global_pool)
        self.hidden: nn.Module = nn.Identity()
        if global_pool and self.hidden_features:
            self.hidden = nn.Sequential(
                nn.Linear(self.num_features, self.hidden_features, device=device, dtype=dtype),
                nn.BatchNorm1d(self.hidden_features, device=device, dtype=dtype),
                nn.ReLU(inplace=True),
            )

    def _build_classifier(
        self, num_classes: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> nn.Module:
        if not num_classes:
            return nn.Identity()
        return nn.Linear(self.hidden_size, num_classes, device=device, dtype=dtype)

    def reset(
        self,
        num_classes: int,
        global_pool: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Replace the classifier by a new one, and with another pool (None keeps it) the hidden layer where it must be.

        The hidden layer survives every change that leaves its input's width alone. Where there is no pool to keep,
        classes get the average.
        """
        pool = global_pool
        if pool is None:
            pool = self.global_pool.pool_type or ("avg" if num_classes else "")
        fits = bool(pool) and self.has_hidden_layer and GlobalPool(pool).factor == self.global_pool.factor
        hidden = self.hidden
        self._build_pool_and_hidden(pool, num_classes, device, dtype)
        if fits:
            self.hidden = hidden
        self.fc = self._build_classifier(num_classes, device, dtype)
        self.num_classes = num_classes
        self.train(self.training)

    def check_batch(self, x: Tensor) -> None:
        """Refuse a batch of one where the hidden layer's batch norm needs more, before any work is done on it."""
        if takes_statistics(self.hidden):
            check_batch(x)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        check_map(x, self.in_features, "features")
        check_dtypes(self, features=x)
        if not self.global_pool.kind:
            return x
        self.check_batch(x)
        x = self.drop(self.hidden(self.global_pool(x)))
        return x if pre_logits else self.fc(x)
