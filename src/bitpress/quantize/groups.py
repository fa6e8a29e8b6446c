"""What shares a scale in a weight matrix [rows, cols] = [outputs, inputs], and how many rows make a group.

    matrix      everything                                    1 group
    row         one output                                    rows
    row_block   ``size`` neighbouring outputs                 ceil(rows / size)         Q-BERT's groups, by count
    input       ``size`` neighbouring inputs of one output    rows × ceil(cols / size)

The last block or group may be smaller. Q-BERT (Shen et al. 2020, arXiv 1909.05840, §3.3) counts groups instead: 128 a
matrix, so 6 rows each of 768.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bitpress.errors import RecipeError

UNIFORM_GROUPS = ("matrix", "row", "row_block", "input")
INPUT_GROUP_MULTIPLE = 32  # docs/artifact.md: a scale never changes within a vector of codes
MAX_GROUP_SIZE = 1 << 16


@dataclass(frozen=True)
class Groups:
    """``kind`` of the table above, and ``size`` where it has one: :func:`check_group_size`."""

    kind: str
    size: int | None = None

    def members(self, values: Tensor) -> list[Tensor]:
        """values [rows, cols] → one or two tensors [..., n] of the n members of each group, in the order of groups; the
        second is a last group that is smaller."""
        rows, cols = values.shape
        if self.kind == "row":
            return [values]
        if self.kind == "matrix":
            return [values.reshape(1, -1)]
        assert self.size is not None  # check_group_size
        if self.kind == "row_block":
            whole = rows // self.size
            blocks, last = values[: whole * self.size], values[whole * self.size :]
            parts = [blocks.reshape(whole, self.size * cols)] if whole else []
            return [*parts, last.reshape(1, -1)] if len(last) else parts
        whole = cols // self.size
        blocks, last = values[:, : whole * self.size], values[:, whole * self.size :]
        parts = [blocks.unflatten(1, (whole, self.size))] if whole else []
        return [*parts, last.unsqueeze(1)] if last.shape[1] else parts

    def reduce(self, values: Tensor, reduction: Callable[[Tensor], Tensor]) -> Tensor:
        """A number a group: [1], [rows], [ceil(rows / size)] or [rows, ceil(cols / size)].

        Args:
            reduction: [..., n] → [...], over the last dimension.
        """
        return torch.cat([reduction(part) for part in self.members(values)], dim=-1)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of each group in fp64, along rows first: a row is never split, so threads do not matter."""
        if self.kind == "input":
            return self.reduce(values, lambda part: part.sum(dim=-1, dtype=torch.float64))
        by_row = values.sum(dim=1, keepdim=True, dtype=torch.float64)
        return self.reduce(by_row, lambda part: part.sum(dim=-1))

    def spread(self, numbers: Tensor, like: Tensor) -> Tensor:
        """A number a group → broadcastable to ``like`` [rows, cols]."""
        if self.kind == "input":
            assert self.size is not None  # check_group_size
            return numbers.repeat_interleave(self.size, dim=1)[:, : like.shape[1]]
        if self.kind == "row_block":
            assert self.size is not None  # check_group_size
            numbers = numbers.repeat_interleave(self.size)[: like.shape[0]]
        return numbers.unsqueeze(1)

    def of_pairs(self, values: Tensor) -> tuple[Groups, Tensor]:
        """values [rows, cols] → sums of columns (k, k+1), k even, and the groups of these; an odd last column is alone.

        Groups of inputs are a multiple of 32 wide, so no pair belongs to two of them.
        """
        even = F.pad(values, (0, values.shape[1] % 2))
        halved = self if self.kind != "input" or self.size is None else Groups("input", self.size // 2)
        return halved, even[:, 0::2] + even[:, 1::2]


def check_group_size(group: str, group_size: object, where: str = "") -> None:
    """RecipeError where ``group`` needs a size and ``group_size`` is none that it can have."""
    if group not in ("row_block", "input"):
        return
    multiple = INPUT_GROUP_MULTIPLE if group == "input" else 1
    if type(group_size) is not int or not 1 <= group_size <= MAX_GROUP_SIZE or group_size % multiple:
        kind = f"a multiple of {multiple}" if multiple > 1 else "an integer"
        raise RecipeError(
            f"{where}group_size is {group_size!r}; allowed with group {group!r}: {kind} up to {MAX_GROUP_SIZE}"
        )


def row_groups(rows: int, count: int, fit: str = "exact") -> Groups:
    """``count`` groups of equally many neighbouring rows.

    Args:
        fit: "exact"; or "below": the largest number up to ``count`` that divides the rows, which is ``count`` itself
            wherever it does.

    Raises:
        RecipeError: "exact", and ``count`` does not divide the rows; the text lists what does.
    """
    divisors = [n for n in range(1, min(rows, MAX_GROUP_SIZE) + 1) if rows % n == 0]
    if fit == "below":
        count = max(n for n in divisors if n <= max(1, count))
    if count not in divisors:
        raise RecipeError(
            f"groups is {count}, which does not divide {rows} rows; allowed: {', '.join(map(str, divisors))}; "
            "or group_fit=below, which takes the next smaller one"
        )
    if count == 1:
        return Groups("matrix")
    return Groups("row") if count == rows else Groups("row_block", rows // count)
