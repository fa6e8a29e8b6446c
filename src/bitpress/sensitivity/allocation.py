"""How many bits each block gets: by rank (Q-BERT, Shen et al. 2020, arXiv 1909.05840, §3.1), or by predicted loss with
an exact solver (HAWQ-V2, Dong et al. 2020, arXiv 1911.03852, eq. 6; HAWQ-V3 poses it as an integer program). By hand it
is ``blocks`` of :class:`bitpress.quantize.Policy` that says.

A block's choices have costs: ``costs[block][bits]`` is a number in the unit of the budget, bytes or milliseconds, from
whatever source. Costs of blocks add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitpress.errors import RecipeError
from bitpress.sensitivity.budget import Budget

Costs = Mapping[str, Mapping[int, float]]

# Sums of a few hundred fp64 numbers differ from the exact ones by less than this share of their largest partial sum
# (256 · 2⁻⁵³ = 3e-14): no solution is cut off because two ways of adding disagree. Of bytes, which add up exactly, it
# is less than one.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Allocation:
    """``bits`` of each block, in the order of the costs, what they cost together, and the predicted increase of the
    loss where the rule is about one."""

    bits: dict[str, int]
    cost: float
    loss: float | None = None


def allocate_by_rank(
    scores: Mapping[str, float], costs: Costs, budget: Budget | None = None, high: int | None = None
) -> Allocation:
    """The blocks of the highest scores get the higher of two widths, the others the lower.

    Args:
        scores: sensitivity of each block (Ω); equal ones in the order of ``costs``.
        costs: two widths, the same for each block.
        budget: as many blocks get the higher width as keep within it.
        high: how many do, instead of a budget; with neither, half of them, as published (rounded down).

    Raises:
        RecipeError: not two widths, a block without a score, both limits, more blocks than there are, or a budget that
            not even the lower width for all keeps.
    """
    _check_scores(scores, costs, "score")
    widths = sorted({bits for choices in costs.values() for bits in choices})
    if len(widths) != 2 or any(len(choices) != 2 for choices in costs.values()):
        raise RecipeError(
            f"allocation by rank has the widths {', '.join(map(str, widths))}; it divides two, such as bits=2/4. "
            "Of more, allocation.rule=error chooses"
        )
    if budget is not None and high is not None:
        raise RecipeError(f"allocation.high is {high} and a budget is given; one says the other: set one of them only")
    if high is not None and not 0 <= high <= len(costs):
        raise RecipeError(f"allocation.high is {high}; allowed: 0 to {len(costs)}, the number of blocks")
    ranking = sorted(costs, key=lambda block: -scores[block])
    if high is None:
        high = len(costs) // 2
        if budget is not None:
            check_budget(costs, budget)
            most = budget.amount * (1 + _ROUNDING)
            high = max(m for m in range(len(costs) + 1) if _cost(costs, _top(ranking, m, widths)) <= most)
    chosen = _top(ranking, high, widths)
    bits = {block: chosen[block] for block in costs}
    return Allocation(bits, _cost(costs, bits))


def predicted_losses(
    traces: Mapping[str, float], sizes: Mapping[str, int], errors: Mapping[str, Mapping[int, float]]
) -> dict[str, dict[int, float]]:
    """½ · |tr H| / n · ‖W − q(W)‖² of each block and width: what a perturbation without a direction of its own adds to
    the loss. The magnitude, as in Ω: at a saddle a negative trace says as much about sensitivity as a positive one.

    Args:
        traces: of the Hessian of each block; ``sizes``: its n parameters.
        errors: block → bits → squared error of its quantized weights, summed.
    """
    return {
        block: {bits: 0.5 * abs(traces[block]) / sizes[block] * error for bits, error in choices.items()}
        for block, choices in errors.items()
    }


def allocate_by_loss(losses: Costs, costs: Costs, budget: Budget) -> Allocation:
    """The choices of least total loss whose total cost keeps the budget; of equally good ones the cheapest.

    This is the multiple-choice knapsack problem. It is solved exactly: block by block, all partial solutions are kept
    that no other one beats in cost and loss at once (Nemhauser & Ullmann 1969), without those whose loss, with the
    linear relaxation of the blocks to come, exceeds that of a greedy solution. The number kept is at most that of
    distinct costs. In an encoder these are few, since its matrices have two or three sizes: some thousands for 72
    matrices and three widths. It does not depend on the budget in bytes, as a table over bytes would, and takes costs
    that are no integers, such as latencies.

    Args:
        losses: block → bits → number; the choices are those of ``costs``.

    Raises:
        RecipeError: a block or choice without a loss, or a budget that no choices keep.
    """
    _check_scores(losses, costs, "loss")
    check_budget(costs, budget)
    blocks = [_Choices.of(block, costs[block], losses[block]) for block in costs]
    rest = [_Relaxation.of(blocks[i:]) for i in range(len(blocks) + 1)]
    most = budget.amount * (1 + _ROUNDING)
    limit = rest[0].greedy(most)
    limit += _ROUNDING * sum(float(np.abs(block.loss).max()) for block in blocks)
    cost, loss = np.zeros(1), np.zeros(1)
    steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for block, following in zip(blocks, rest[1:], strict=True):
        extended_cost, extended_loss = cost[:, None] + block.cost, loss[:, None] + block.loss
        left = most - extended_cost
        hopeful = (left >= following.least_cost) & (extended_loss + following.least_loss(left) <= limit)
        before, choice = np.nonzero(hopeful)
        cost, loss = extended_cost[hopeful], extended_loss[hopeful]
        order = np.lexsort((loss, cost))
        lowest = np.minimum.accumulate(loss[order])
        kept = order[np.concatenate([[True], loss[order][1:] < lowest[:-1]])]
        cost, loss = cost[kept], loss[kept]
        steps.append((before[kept], choice[kept]))
    at = len(loss) - 1  # losses fall with costs
    found: dict[str, int] = {}
    for block, (before, choice) in zip(reversed(blocks), reversed(steps), strict=True):
        found[block.name] = block.bits[choice[at]]
        at = int(before[at])
    bits = {block: found[block] for block in costs}
    return Allocation(bits, _cost(costs, bits), sum(losses[block][width] for block, width in bits.items()))


def check_budget(costs: Costs, budget: Budget) -> None:
    """RecipeError where not even the cheapest choices keep the budget; names the smallest and largest possible cost."""
    cheapest = sum(min(choices.values()) for choices in costs.values())
    dearest = sum(max(choices.values()) for choices in costs.values())
    if cheapest > budget.amount * (1 + _ROUNDING):
        raise RecipeError(
            f"the budget is {budget.shown(budget.amount)}; the {len(costs)} blocks take from "
            f"{budget.shown(cheapest)} to {budget.shown(dearest)} with the widths given. Raise the budget, or allow "
            "fewer bits"
        )


@dataclass(frozen=True)
class _Choices:
    """The choices of one block, cheapest first, without those that another one beats."""

    name: str
    bits: tuple[int, ...]
    cost: NDArray[np.float64]
    loss: NDArray[np.float64]

    @classmethod
    def of(cls, name: str, costs: Mapping[int, float], losses: Mapping[int, float]) -> _Choices:
        if missing := sorted(costs.keys() - losses.keys()):
            raise RecipeError(f"block {name!r} has no loss for {missing[0]} bits; give one for each choice")
        kept: list[int] = []
        for bits in sorted(costs, key=lambda bits: (costs[bits], losses[bits])):
            if not kept or losses[bits] < losses[kept[-1]]:
                kept.append(bits)
        return cls(name, tuple(kept), *(np.array([table[b] for b in kept], float) for table in (costs, losses)))

    def hull(self) -> list[int]:
        """Indices of the lower convex hull of (cost, loss)."""
        kept: list[int] = []
        for i in range(len(self.bits)):
            while len(kept) > 1 and self._slope(kept[-2], kept[-1]) >= self._slope(kept[-2], i):
                kept.pop()
            kept.append(i)
        return kept

    def _slope(self, i: int, j: int) -> float:
        return float((self.loss[j] - self.loss[i]) / (self.cost[j] - self.cost[i]))


@dataclass(frozen=True)
class _Relaxation:
    """Some blocks with fractions of choices allowed: ``least_cost``, and from there the least loss as a function of the
    cost, piecewise linear through (``cost``, ``loss``), convex and falling."""

    least_cost: float
    cost: NDArray[np.float64]
    loss: NDArray[np.float64]
    of_block: Sequence[int]  # of each piece the block that it belongs to

    @classmethod
    def of(cls, blocks: Sequence[_Choices]) -> _Relaxation:
        pieces = []
        for number, block in enumerate(blocks):
            hull = block.hull()
            for i, j in pairwise(hull):
                pieces.append(
                    (block._slope(i, j), number, block.cost[j] - block.cost[i], block.loss[j] - block.loss[i])
                )
        pieces.sort(key=lambda piece: piece[0])  # stable: pieces of a block stay in order, since its hull is convex
        base = sum(float(block.cost[0]) for block in blocks), sum(float(block.loss[0]) for block in blocks)
        cost, loss = (
            np.cumsum([start, *(piece[k] for piece in pieces)]) for start, k in zip(base, (2, 3), strict=True)
        )
        return cls(base[0], cost, loss, [piece[1] for piece in pieces])

    def least_loss(self, budget: NDArray[np.float64]) -> NDArray[np.float64]:
        """No choices of the blocks within ``budget``, at least ``least_cost``, have less."""
        found: NDArray[np.float64] = np.interp(budget, self.cost, self.loss)
        return found

    def greedy(self, budget: float) -> float:
        """The loss of choices that keep ``budget``: pieces from the steepest on, where they fit."""
        cost, loss = float(self.cost[0]), float(self.loss[0])
        stopped: set[int] = set()
        for number, more, less in zip(self.of_block, np.diff(self.cost), np.diff(self.loss), strict=True):
            if number in stopped or cost + more > budget:
                stopped.add(number)  # its next piece starts where this one ends
                continue
            cost, loss = cost + float(more), loss + float(less)
        return loss


def _check_scores(scores: Mapping[str, object], costs: Costs, what: str) -> None:
    if not costs:
        raise RecipeError("there is no block to give bits to")
    if missing := [block for block in costs if block not in scores]:
        raise RecipeError(f"block {missing[0]!r} has no {what}; those known: {', '.join(scores) or 'none'}")


def _top(ranking: Sequence[str], high: int, widths: Sequence[int]) -> dict[str, int]:
    return {block: widths[-1 if place < high else 0] for place, block in enumerate(ranking)}


def _cost(costs: Costs, bits: Mapping[str, int]) -> float:
    return sum(choices[bits[block]] for block, choices in costs.items())
