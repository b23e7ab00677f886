"""Classification head: pool, hidden layer, classifier."""

import torch
from torch import Tensor, nn

from ..layers.checks import check_batch, check_integer, check_map
from ..layers.pooling import GlobalPool

__all__ = ["ClassificationHead"]


class ClassificationHead(nn.Module):
    """``pool -> [Linear -> BatchNorm1d -> ReLU] -> Dropout -> Linear``; the defaults give the published head.

    Args:
        in_features: channels of the map.
        num_classes: number of classes; 0 for no classifier.
        hidden_size: width of the hidden layer; None for no hidden layer.
        global_pool: any of timm's pools, see :class:`~mfsf2.layers.GlobalPool`. ``""``, with ``num_classes=0``, gives
            an empty head that returns its input.
        drop_rate: dropout before the classifier.

    Shape: ``(B, in_features, H, W)`` to ``(B, num_classes)``; without classes to ``(B, hidden_size)``.

    Raises:
        ValueError: negative ``num_classes``, classes without a pool, or a batch of one in training mode (batch norm).

    Example:
        >>> ClassificationHead(512, num_classes=7)(torch.randn(2, 512, 7, 7)).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_size: int | None = 1024,
        global_pool: str = "avg",
        drop_rate: float = 0.3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.hidden_size = hidden_size
        self.drop = nn.Dropout(drop_rate)
        self._build_pool_and_hidden(global_pool, num_classes, device, dtype)
        self._build_classifier(num_classes, device, dtype)

    @property
    def num_features(self) -> int:
        """Number of features after the pool."""
        return self.in_features * self.global_pool.feat_mult()

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """Names of the layers with one output per class."""
        return ("fc",)

    def _build_pool_and_hidden(
        self, global_pool: str, num_classes: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        check_integer(num_classes, "num_classes", 0, " (no classifier)")
        if not global_pool and num_classes:
            raise ValueError(
                f"global_pool='' with num_classes={num_classes}: a classifier needs a pooled vector; use a pool, or "
                "num_classes=0 for the map"
            )
        self.global_pool = GlobalPool(global_pool)
        self.hidden: nn.Module = nn.Identity()
        if global_pool and self.hidden_size:
            self.hidden = nn.Sequential(
                nn.Linear(self.num_features, self.hidden_size, device=device, dtype=dtype),
                nn.BatchNorm1d(self.hidden_size, device=device, dtype=dtype),
                nn.ReLU(inplace=True),
            )

    def _build_classifier(self, num_classes: int, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        self.num_classes = int(num_classes)
        self.fc: nn.Module = nn.Identity()
        if num_classes:
            in_features = self.hidden_size or self.num_features
            self.fc = nn.Linear(in_features, self.num_classes, device=device, dtype=dtype)

    def reset(
        self,
        num_classes: int,
        global_pool: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Replace the classifier, and with another ``global_pool`` the pool; None keeps it.

        The hidden layer is kept unless its input changes in width. If there is no pool to keep, classes get ``"avg"``.
        """
        pool = global_pool
        if pool is None:
            pool = self.global_pool.pool_type or ("avg" if num_classes else "")
        hidden, width = self.hidden, self.num_features
        self._build_pool_and_hidden(pool, num_classes, device, dtype)
        if pool and isinstance(hidden, nn.Sequential) and self.num_features == width:
            self.hidden = hidden
        self._build_classifier(num_classes, device, dtype)
        self.train(self.training)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        check_map(x, self.in_features)
        if not self.global_pool.pool_type:
            return x
        check_batch(x, self.hidden)
        x = self.drop(self.hidden(self.global_pool(x)))
        return x if pre_logits else self.fc(x)
