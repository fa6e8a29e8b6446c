"""Bits of blocks under a limit. Oracles: the sizes and the 6 + 6 layers that the Q-BERT paper prints (spec §4, §7), all
combinations by brute force, and ``scipy.optimize.milp``."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from bitpress.errors import RecipeError
from bitpress.sensitivity.allocation import (
    allocate_by_loss,
    allocate_by_rank,
    predicted_losses,
)
from bitpress.sensitivity.budget import Budget

MIB = 2**20
# A layer of BERT-base as an artifact stores it: 7,077,888 weights, and 6 matrices × 128 scales and offsets.
LAYER = {bits: 7_077_888 * bits // 8 + 6 * 128 * 8 for bits in (2, 3, 4, 8)}
NAMES = [f"layers.{i}" for i in range(12)]


def paper(*widths: int) -> dict[str, dict[int, float]]:
    return {name: {bits: LAYER[bits] for bits in widths} for name in NAMES}


def scores(order: list[int]) -> dict[str, float]:
    """Layers in falling sensitivity."""
    return {f"layers.{i}": 100.0 - place for place, i in enumerate(order)}


def test_the_published_budget_gives_6_and_6() -> None:
    """T8, with the sizes of §7: 25.42 MiB for 2 and 3 bits, 30.49 MiB for 2 and 4."""
    order = [4, 5, 3, 6, 2, 7, 1, 8, 0, 9, 10, 11]
    for mib, widths in ((25.42, (2, 3)), (30.49, (2, 4))):
        found = allocate_by_rank(scores(order), paper(*widths), Budget(mib * MIB))
        assert [name for name in NAMES if found.bits[name] == widths[1]] == [f"layers.{i}" for i in sorted(order[:6])]
        assert list(found.bits) == NAMES
        assert found.cost <= mib * MIB < found.cost + LAYER[widths[1]] - LAYER[2]
        assert found == allocate_by_rank(scores(order), paper(*widths))  # half of the layers, as published
        assert found == allocate_by_rank(scores(order), paper(*widths), high=6)


def test_omega_of_the_specification_ranks_b_a_c_d() -> None:
    """§3: A 8.707, B 20.920, C 3.707, D .571."""
    omega = {"a": 8.707, "b": 20.920, "c": 3.707, "d": 0.571}
    costs = {block: {2: 2.0, 4: 4.0} for block in omega}
    order = []
    for high in range(5):
        bits = allocate_by_rank(omega, costs, high=high).bits
        order.append("".join(block for block in bits if bits[block] == 4))
    assert order == ["", "b", "ab", "abc", "abcd"]


def test_equal_scores_go_by_the_order_of_the_blocks() -> None:
    found = allocate_by_rank(dict.fromkeys(NAMES, 1.0), paper(2, 4), high=2)
    assert [name for name, bits in found.bits.items() if bits == 4] == ["layers.0", "layers.1"]


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]], Budget]:
    """(losses, costs, budget): up to six blocks, each with choices of its own, losses that need not fall with bits."""
    costs: dict[str, dict[int, float]] = {}
    losses: dict[str, dict[int, float]] = {}
    number = st.integers(0, 30) if draw(st.booleans()) else st.floats(0, 30).map(lambda x: round(x, 4))
    for i in range(draw(st.integers(1, 6))):
        widths = draw(st.lists(st.sampled_from([2, 3, 4, 8]), min_size=1, max_size=4, unique=True))
        costs[f"b{i}"] = {bits: draw(number) for bits in widths}
        losses[f"b{i}"] = {bits: draw(number) for bits in widths}
    least, most = (sum(pick(c.values()) for c in costs.values()) for pick in (min, max))
    amount = least + draw(st.floats(0, 1)) * (most - least)
    return losses, costs, Budget(max(amount, 1e-9), "ms")


def brute_force(losses: dict, costs: dict, budget: Budget) -> float:
    best = math.inf
    for bits in itertools.product(*(costs[block] for block in costs)):
        chosen = dict(zip(costs, bits, strict=True))
        if sum(costs[b][k] for b, k in chosen.items()) <= budget.amount * (1 + 1e-12):
            best = min(best, sum(losses[b][k] for b, k in chosen.items()))
    return best


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_knapsack_is_solved_exactly(problem: tuple) -> None:
    losses, costs, budget = problem
    best = brute_force(losses, costs, budget)
    found = allocate_by_loss(losses, costs, budget)
    assert found.cost <= budget.amount * (1 + 1e-12)
    assert found.loss == pytest.approx(best, rel=1e-9, abs=1e-9)
    assert found.loss == pytest.approx(sum(losses[b][k] for b, k in found.bits.items()), abs=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.77])
@pytest.mark.parametrize("by", ["layer", "matrix", "unlike"])
def test_it_is_as_good_as_an_integer_program_on_encoders(by: str, share: float) -> None:
    """12 layers; 72 matrices of two sizes; 40 blocks whose costs, as latencies, have nothing in common."""
    rng = np.random.default_rng(3)
    sizes = {
        "layer": [7_077_888] * 12,
        "matrix": [589_824, 589_824, 589_824, 589_824, 2_359_296, 2_359_296] * 12,
        "unlike": (rng.uniform(1, 5, 40) * 1e6).tolist(),
    }[by]
    widths = (2, 3, 4, 8)
    costs = {f"b{i}": {bits: n * bits / 8 + 1024 for bits in widths} for i, n in enumerate(sizes)}
    sensitivity = rng.lognormal(0, 1.5, len(sizes))
    losses = {f"b{i}": {bits: s * 4.0**-bits for bits in widths} for i, s in enumerate(sensitivity)}
    least, most = (sum(pick(c.values()) for c in costs.values()) for pick in (min, max))
    budget = Budget(least + share * (most - least))
    start = time.perf_counter()
    found = allocate_by_loss(losses, costs, budget)
    assert time.perf_counter() - start < 5
    assert found.cost <= budget.amount

    flat_cost, flat_loss = ([v for c in table.values() for v in c.values()] for table in (costs, losses))
    one_each = np.kron(np.eye(len(sizes)), np.ones(len(widths)))
    constraints = [
        LinearConstraint(one_each, 1, 1),
        LinearConstraint(np.array([flat_cost]) / 1e6, -np.inf, budget.amount / 1e6),
    ]
    oracle = milp(
        np.array(flat_loss),
        integrality=np.ones(len(flat_loss)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 1e-7},
    )
    assert oracle.status == 0
    assert found.loss is not None
    assert found.loss <= oracle.fun * (1 + 1e-9)
    assert found.loss == pytest.approx(oracle.fun, rel=1e-6)


def test_with_two_widths_and_equal_blocks_the_rule_is_a_sort() -> None:
    """Spec §4: then both rules pick the same layers."""
    order = [4, 5, 3, 6, 2, 7, 1, 8, 0, 9, 10, 11]
    omega, costs, budget = scores(order), paper(2, 4), Budget(30.49 * MIB)
    losses = {block: {2: value, 4: value / 16} for block, value in omega.items()}
    assert allocate_by_loss(losses, costs, budget).bits == allocate_by_rank(omega, costs, budget).bits


def test_predicted_losses() -> None:
    """½ · trace / n · error; the magnitude of a negative trace."""
    found = predicted_losses({"a": 8.0, "b": -2.0}, {"a": 4, "b": 2}, {"a": {2: 3.0, 4: 0.5}, "b": {2: 1.0, 4: 0.25}})
    assert found == {"a": {2: 3.0, 4: 0.5}, "b": {2: 0.5, 4: 0.125}}


COSTS = {"a": {2: 1000.0, 4: 2000.0}, "b": {2: 3000.0, 4: 5000.0}}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: allocate_by_rank({"a": 1, "b": 2}, COSTS, Budget(3999)),
            "the budget is 3,999 bytes .* 2 blocks take ",
        ),
        (lambda: allocate_by_loss(COSTS, COSTS, Budget(3999)), r"from 4,000 bytes \(0.00 MiB\) to 7,000 bytes"),
        (lambda: allocate_by_rank({"a": 1, "b": 2}, COSTS, Budget(3.9, "ms")), "the budget is 3.900 ms; the 2 blocks"),
        (lambda: allocate_by_rank({"a": 1}, COSTS), "block 'b' has no score; those known: a"),
        (lambda: allocate_by_rank({"a": 1}, {"a": {2: 1, 3: 2, 4: 3}}), "has the widths 2, 3, 4; it divides two"),
        (
            lambda: allocate_by_rank({"a": 1, "b": 2}, COSTS, Budget(9999), 1),
            "allocation.high is 1 and a budget is given",
        ),
        (lambda: allocate_by_rank({"a": 1, "b": 2}, COSTS, high=3), "allocation.high is 3; allowed: 0 to 2"),
        (lambda: allocate_by_loss({"a": {2: 1}, "b": {2: 1, 4: 0}}, COSTS, Budget(9999)), "'a' has no loss for 4 bits"),
        (lambda: allocate_by_rank({}, {}), "there is no block to give bits to"),
    ],
)
def test_what_is_refused(call: object, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("value", "amount", "unit"),
    [
        ("30.5MB", 30_500_000, "bytes"),
        ("25.42 MiB", 25.42 * MIB, "bytes"),
        ("12mib", 12 * MIB, "bytes"),
        ("1000000", 1_000_000, "bytes"),
        (1_000_000, 1_000_000, "bytes"),
        ("1/13", 1300 // 13, "bytes"),
        (0.08, 104, "bytes"),
        ("8%", 104, "bytes"),
        (1, 1300, "bytes"),
        ("40ms", 40, "ms"),
    ],
)
def test_budgets_as_people_write_them(value: object, amount: float, unit: str) -> None:
    found = Budget.parse(value, fp32_bytes=1300)
    assert (found.amount, found.unit) == (pytest.approx(amount), unit)


@pytest.mark.parametrize(
    "value", ["", "12 parsecs", "MB", "-3MB", 0, -1, "0", 1.5, "3/2", "150%", "1/0", None, True, math.nan]
)
def test_budgets_that_mean_nothing(value: object) -> None:
    with pytest.raises(RecipeError, match=r"allocation\.budget is .* allowed: bytes such as 30.5MB, 12MiB"):
        Budget.parse(value, 1300)
