"""Batches. Oracles: counting, and padding by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from bitpress.errors import TrainingError
from bitpress.train import EncodedDataset, Schedule, collate, make_batches
from bitpress.train.batching import Plan


def schedule(**changes: object) -> Schedule:
    return Schedule(**{"learning_rate": 1.0, **changes})  # type: ignore[arg-type]


lengths_strategy = st.lists(st.integers(1, 30), max_size=300).map(lambda x: np.array(x, dtype=np.int64))


@settings(max_examples=60, deadline=None)
@given(lengths_strategy, st.integers(30, 200), st.integers(0, 3))
def test_batches_by_tokens_cover_all_once_within_the_budget(lengths: np.ndarray, budget: int, epoch: int) -> None:
    batches = make_batches(lengths, schedule(batch_tokens=budget), epoch, seed=5)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * lengths[batch].max() <= budget


@settings(max_examples=60, deadline=None)
@given(lengths_strategy, st.integers(1, 40))
def test_batches_by_size_cover_everything_once(lengths: np.ndarray, size: int) -> None:
    batches = make_batches(lengths, schedule(batch_size=size), 0, seed=5)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert all(len(batch) <= size for batch in batches)


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 200)
    first = [b.tolist() for b in make_batches(lengths, schedule(batch_tokens=90), 0, 1)]
    np.random.seed(9)
    assert [b.tolist() for b in make_batches(lengths, schedule(batch_tokens=90), 0, 1)] == first
    assert [b.tolist() for b in make_batches(lengths, schedule(batch_tokens=90), 1, 1)] != first
    assert [b.tolist() for b in make_batches(lengths, schedule(batch_tokens=90), 0, 2)] != first


def test_buckets_keep_padding_small_and_batches_in_random_order() -> None:
    lengths = np.random.default_rng(0).geometric(0.06, 20_000).clip(3, 128)
    batches = make_batches(lengths, schedule(batch_tokens=1024), 0, 1)
    padded = sum(len(b) * int(lengths[b].max()) for b in batches)
    assert lengths.sum() / padded > 0.95
    widths = [int(lengths[b].max()) for b in batches]
    assert abs(np.corrcoef(widths, range(len(widths)))[0, 1]) < 0.1


def test_example_longer_than_the_budget() -> None:
    with pytest.raises(TrainingError, match=r"batch_tokens is 64 but the longest example has 90 tokens.*at least 90"):
        make_batches(np.array([3, 90]), schedule(batch_tokens=64), 0, 0)


def test_collate_pads_and_masks() -> None:
    data = EncodedDataset.from_sequences(
        [[5, 6], [7], [1, 2, 3]], [[0, 1], [1], [0, 0, 1]], np.array([0.5, 1.5, 2.5], np.float32), pad_id=9
    )
    batch = collate(data, np.array([2, 1]))
    assert batch.input_ids.tolist() == [[1, 2, 3], [7, 9, 9]]
    assert batch.attention_mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.token_type_ids.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [2.5, 1.5]
    assert batch.indices.tolist() == [2, 1]
    assert len(batch) == 2
    unlabelled = EncodedDataset.from_sequences([[5, 6]], None, None)
    assert collate(unlabelled, np.array([0])).labels is None


def test_select_is_from_sequences_of_those() -> None:
    rows, types, labels = [[5, 6], [7], [1, 2, 3]], [[0, 1], [1], [0, 0, 1]], np.array([0.5, 1.5, 2.5], np.float32)
    data = EncodedDataset.from_sequences(rows, types, labels, pad_id=9)
    for chosen in ([2, 0], [1], [0, 1, 2]):
        expected = EncodedDataset.from_sequences(
            [rows[i] for i in chosen], [types[i] for i in chosen], labels[chosen], pad_id=9
        )
        assert data.select(np.array(chosen)).digest() == expected.digest()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([[1]], None, np.zeros(2)), "1 encoded examples but 2 labels"),
        (([[1], []], None, None), "example 1 has no token"),
        (([[1, 2]], [[0]], None), "differ in length"),
    ],
)
def test_unequal_inputs(arguments: tuple, text: str) -> None:
    with pytest.raises(TrainingError, match=text):
        EncodedDataset.from_sequences(*arguments)


def test_digest_sees_everything() -> None:
    rows, types, labels = [[1, 2], [3]], [[0, 0], [0]], np.array([0, 1])
    base = EncodedDataset.from_sequences(rows, types, labels).digest()
    others = [
        EncodedDataset.from_sequences([[1], [2, 3]], [[0], [0, 0]], labels),
        EncodedDataset.from_sequences(rows, [[0, 1], [0]], labels),
        EncodedDataset.from_sequences(rows, types, np.array([1, 1])),
        EncodedDataset.from_sequences(rows, types, None),
        EncodedDataset.from_sequences(rows, types, labels, pad_id=1),
    ]
    assert base == EncodedDataset.from_sequences(rows, None, labels).digest()
    assert len({base, *(o.digest() for o in others)}) == 6


@pytest.mark.parametrize(
    ("changes", "total"),
    [
        ({"epochs": 2}, 8),
        ({"epochs": 2, "accumulate": 1}, 14),
        ({"epochs": 1.5}, 6),
        ({"epochs": 0.01}, 1),
        ({"epochs": 2, "max_steps": 3}, 3),
        ({"epochs": 2, "max_steps": 99}, 8),
    ],
)
def test_plan_counts_steps_and_covers_each_epoch(changes: dict, total: int) -> None:
    plan = Plan(np.full(41, 3), schedule(**{"batch_size": 6, "accumulate": 2, **changes}), "stage")
    assert plan.total == total
    if total == 8:
        for epoch in range(2):
            seen = [i for s in range(4) for b in plan.micro_batches(4 * epoch + s) for i in b.tolist()]
            assert sorted(seen) == list(range(41))
            assert {plan.epoch(4 * epoch + s) for s in range(4)} == {epoch}
    steps = [s for s in range(1, plan.total + 1) if plan.is_evaluated(s)]
    assert steps[-1] == plan.total


def test_plan_evaluates_four_times_an_epoch() -> None:
    plan = Plan(np.full(100, 3), schedule(batch_size=1, epochs=2), "stage")
    assert [s for s in range(1, 201) if plan.is_evaluated(s)] == list(range(25, 201, 25))
