"""The loop. Oracles: the same steps written out by hand, and counting."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from rich.console import Console
from tiny_training import SCHEDULE, TinyModel, cross_entropy, rising_and_falling, tiny_dataset, train_tiny
from torch import nn

from bitpress.errors import TrainingError
from bitpress.train import Batch, ProgressEvent, collate
from bitpress.train.batching import Plan
from bitpress.train.optimizer import FusedAdam
from bitpress.train.progress import describe
from bitpress.train.schedule import derive_seed, learning_rate_at


def records(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "scalars.jsonl").read_text().splitlines()]


def test_stage_equals_the_loop_written_out(tmp_path: Path) -> None:
    """Metric = step count, so the best weights are the last."""
    steps = iter(range(100))
    _, model = train_tiny(tmp_path, evaluate=lambda _: {"score": float(next(steps))})
    data, plan, expected = tiny_dataset(), Plan(tiny_dataset().lengths, SCHEDULE, "tiny"), TinyModel()
    optimizer = FusedAdam(expected.named_parameters(), SCHEDULE)
    for step in range(plan.total):
        batches = [collate(data, indices) for indices in plan.micro_batches(step)]
        for number, batch in enumerate(batches):
            torch.manual_seed(derive_seed(SCHEDULE.seed, "tiny", step, number))
            loss = cross_entropy(expected, batch)[0] * (len(batch) / sum(map(len, batches)))
            loss.backward()
        optimizer.set_learning_rate(learning_rate_at(SCHEDULE, step, plan.total))
        optimizer.step()
        optimizer.zero_grad()
    for (name, own), theirs in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(own, theirs), name


@pytest.mark.parametrize("optimizer", ["adamw", "bertadam"])
def test_accumulation_equals_the_big_batch(tmp_path: Path, optimizer: str) -> None:
    """41 examples: 3 batches of 14, 14, 13 against one of 41; weighting by batch instead of example would differ."""

    def loss_fn(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.eval()  # no dropout, no running buffer: these see batches, not examples
        return cross_entropy(model, batch)

    results = []
    for size, accumulate in ((14, 3), (41, 1)):
        schedule = dataclasses.replace(
            SCHEDULE, batch_size=size, accumulate=accumulate, epochs=4, optimizer=optimizer, learning_rate=0.01
        )
        _, model = train_tiny(tmp_path / str(size), loss_fn=loss_fn, schedule=schedule, evaluate=lambda m: {"score": 0})
        results.append((model.state_dict(), [r["loss"] for r in records(tmp_path / str(size)) if "loss" in r]))
    for name in results[0][0]:
        torch.testing.assert_close(results[0][0][name], results[1][0][name], rtol=1e-4, atol=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-5)


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([0.1, 0.9, 0.3, 0.9], 1),
        ([0.5, 0.5, 0.5, 0.5], 0),
        ([float("nan"), float("nan"), -0.5, -0.7], 2),
        ([float("nan")] * 4, 0),
        ([-3.0, -2.0, -1.0, float("nan")], 2),
    ],
)
def test_best_weights_are_returned_ties_to_the_earlier(tmp_path: Path, values: list[float], best: int) -> None:
    snapshots: list[dict[str, torch.Tensor]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        snapshots.append({name: t.clone() for name, t in model.state_dict().items()})
        return {"score": values[len(snapshots) - 1], "count": float(len(snapshots))}

    result, model = train_tiny(tmp_path, evaluate=evaluate)
    assert len(snapshots) == 4
    assert result.best_step == 3 * (best + 1)
    assert result.best_metric == pytest.approx(values[best], nan_ok=True)
    assert result.metrics["count"] == best + 1
    assert all(torch.equal(t, snapshots[best][name]) for name, t in model.state_dict().items())
    assert not torch.equal(snapshots[best]["running"], snapshots[best - 1]["running"])


def test_scalars_and_result(tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    result, model = train_tiny(tmp_path, on_progress=events.append)
    lines = records(tmp_path)
    trained = [r for r in lines if "loss" in r]
    evaluated = [r for r in lines if "metric" in r]
    assert [r["step"] for r in trained] == [3, 6, 9, 10, 12]
    assert [r["step"] for r in evaluated] == [3, 6, 9, 12]
    assert set(trained[0]) == {"stage", "step", "epoch", "loss", "components", "lr", "tokens_per_second", "time"}
    assert set(trained[0]["components"]) == {"squared_logits"}
    assert trained[0]["loss"] == pytest.approx(0.7, abs=0.4)
    assert [r["epoch"] for r in trained] == [0, 1, 2, 2, 2]
    assert trained[-1]["lr"] == pytest.approx(learning_rate_at(SCHEDULE, 11, 12))
    assert max(r["metric"] for r in evaluated) == result.best_metric == evaluated[-1]["best_metric"]
    assert result.tokens == 3 * int(tiny_dataset().lengths.sum())
    assert result.steps == 12
    assert result.tokens_per_second > 0
    assert [e.step for e in events] == [3, 6, 9, 10, 12]
    assert [e.evaluated for e in events] == [True, True, True, False, True]
    assert events[-1].seconds_left == 0
    assert all(p.grad is None for p in model.parameters())


def test_plain_lines_without_a_terminal(tmp_path: Path) -> None:
    output = io.StringIO()
    train_tiny(tmp_path, console=Console(file=output, width=40))
    lines = output.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("tiny: step 3/12 · loss 0.")
    assert "(best " in lines[0]
    assert lines[-1].endswith("0:00 left")


def test_live_bar_on_a_terminal(tmp_path: Path) -> None:
    output = io.StringIO()
    train_tiny(tmp_path, console=Console(file=output, force_terminal=True, width=120))
    assert "12/12" in output.getvalue()
    assert "score" in output.getvalue()


def test_time_left_in_hours() -> None:
    event = ProgressEvent("s", 1, 2, None, "f1", None, None, 1234.0, 3723.0, False)
    assert describe(event) == "1,234 tokens/s · 1:02:03 left"


def test_missing_metric_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"selects by 'accuracy' but the evaluation measured half, score"):
        train_tiny(tmp_path, metric="accuracy", evaluate=rising_and_falling)


def test_infinite_loss_stops(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan within the steps up to 3 of 12.*Lower learning_rate"):
        train_tiny(tmp_path, loss_fn=lambda m, b: (cross_entropy(m, b)[0] * float("nan"), {}))
    assert records(tmp_path)[-1]["loss"] is None


@pytest.mark.parametrize("name", ["", ".hidden", "a/b"])
def test_names_that_cannot_be_directories(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainingError, match="cannot name a stage"):
        train_tiny(tmp_path, name=name)


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training example"):
        train_tiny(tmp_path, train=tiny_dataset(0))


def test_global_settings_of_torch_are_restored(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(False)
    train_tiny(tmp_path)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory is True  # type: ignore[attr-defined]
