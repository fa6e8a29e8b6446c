"""Weight quantizers that read the optimizer's state of their own weight, such as loss-aware ternarization.

A module with a ``weight`` has one as ``weight_quantizer`` if that says ``needs_second_moment``. While a stage trains,
its ``second_moment`` is the optimizer's own tensor of the weight, which each step changes. Before an evaluation
``settle(weight)`` is called, after which it must do in eval mode without: the best weights are kept from an evaluation,
and the moments are not.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bitpress.train.optimizer import FusedAdam


class SecondMoments:
    """The quantizers of ``model`` that need second moments, which they have from here to :meth:`release`."""

    def __init__(self, model: nn.Module, optimizer: FusedAdam) -> None:
        self._readers: list[tuple[Any, Tensor]] = []
        for module in model.modules():
            quantizer: Any = getattr(module, "weight_quantizer", None)
            weight = getattr(module, "weight", None)
            if getattr(quantizer, "needs_second_moment", False) and isinstance(weight, nn.Parameter):
                quantizer.second_moment = optimizer.second_moment(weight)
                self._readers.append((quantizer, weight))

    def settle(self) -> None:
        """Tell each that evaluations and files are to have its weight as it is now."""
        for quantizer, weight in self._readers:
            quantizer.settle(weight)

    def release(self) -> None:
        """Take the tensors away; what was settled stays."""
        for quantizer, _ in self._readers:
            quantizer.second_moment = None
