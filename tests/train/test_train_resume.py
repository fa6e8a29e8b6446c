"""Exact resume. Oracle: the bytes that an undisturbed run of the same settings leaves behind."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from rich.console import Console
from safetensors.torch import save
from tiny_training import SCHEDULE, TinyModel, cross_entropy, rising_and_falling, tiny_dataset, train_tiny
from torch import nn

from bitpress.errors import TrainingError
from bitpress.train import running_stage


class Interruption(Exception):
    pass


def weights(model: nn.Module) -> bytes:
    return save({name: tensor.clone() for name, tensor in model.state_dict().items()})


def interrupted(run_dir: Path, monkeypatch: pytest.MonkeyPatch, evaluations: int = 3, **changes: Any) -> None:
    """A run that ends by an exception inside its n-th evaluation, a checkpoint at every step before it."""
    seen = 0

    def evaluate(model: nn.Module) -> dict[str, float]:
        nonlocal seen
        seen += 1
        if seen == evaluations:
            raise Interruption
        return rising_and_falling(model)

    monkeypatch.setattr(running_stage, "CHECKPOINT_SHARE", 1e9)
    with pytest.raises(Interruption):
        train_tiny(run_dir, evaluate=evaluate, **changes)


def crash(stride: int) -> list[dict[str, Any]]:
    script = Path(__file__).parent / "crash_harness.py"
    # In memory where possible: SIGKILL loses nothing that was written, and thousands of syncs cost nothing there.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        done = subprocess.run(
            [sys.executable, str(script), directory, str(stride)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_crashes(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        assert case["ends"][0] == -9 or case["delay"], f"the kill did not happen: {case}"
        assert case["ends"][-1] == 0, f"the run could not be resumed: {case}"
        assert case["differing"] == [], f"differs from the undisturbed run: {case}"
    assert len({case["resumed_from"] for case in cases}) > 4, "the kills did not spread over the run"


def test_killed_anywhere_then_resumed_to_the_same_bytes() -> None:
    """Weights, scalars, best step and remaining files; SIGKILL in steps, evaluations, half-written files, renames."""
    check_crashes(crash(23))


@pytest.mark.slow
def test_killed_at_every_single_event() -> None:
    check_crashes(crash(1))


def test_finished_stage_returns_at_once_with_the_same_weights(tmp_path: Path) -> None:
    first, trained = train_tiny(tmp_path)
    scalars = (tmp_path / "scalars.jsonl").read_bytes()

    def refuse(*_: object) -> Any:
        raise AssertionError("a finished stage must not train")

    again, loaded = train_tiny(tmp_path, model=TinyModel(), loss_fn=refuse, evaluate=refuse)
    assert weights(loaded) == weights(trained)
    assert dataclasses.replace(again, resumed_from=None, seconds=first.seconds) == first
    assert again.resumed_from == first.steps
    assert (tmp_path / "scalars.jsonl").read_bytes() == scalars
    assert not loaded.training


def test_random_numbers_after_a_stage_do_not_depend_on_whether_it_trained(tmp_path: Path) -> None:
    train_tiny(tmp_path)
    trained = torch.rand(3)
    train_tiny(tmp_path)
    assert torch.equal(torch.rand(3), trained)


@pytest.mark.parametrize("damaged", ["model.safetensors", "optimizer.safetensors", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_damaged_newest_checkpoint_is_skipped_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str, how: str
) -> None:
    _, undisturbed = train_tiny(tmp_path / "undisturbed")
    interrupted(tmp_path / "run", monkeypatch)
    checkpoints = sorted((tmp_path / "run" / "tiny").glob("checkpoint-*"))
    assert [path.name for path in checkpoints] == ["checkpoint-00000007", "checkpoint-00000008"]
    path = checkpoints[-1] / damaged
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    output = io.StringIO()
    result, resumed = train_tiny(tmp_path / "run", console=Console(file=output))
    assert "skipped and removed the damaged checkpoint" in output.getvalue()
    assert str(checkpoints[-1]) in output.getvalue()
    assert damaged in output.getvalue()
    assert result.resumed_from == 7
    assert weights(resumed) == weights(undisturbed)


def test_without_any_valid_checkpoint_the_stage_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, undisturbed = train_tiny(tmp_path / "undisturbed")
    interrupted(tmp_path / "run", monkeypatch)
    for path in (tmp_path / "run" / "tiny").glob("best-*"):
        path.write_bytes(b"")
    output = io.StringIO()
    result, resumed = train_tiny(tmp_path / "run", console=Console(file=output))
    assert output.getvalue().count("does not match its checksum") == 2
    assert result.resumed_from is None
    assert weights(resumed) == weights(undisturbed)


def test_damaged_result_is_trained_again(tmp_path: Path) -> None:
    _, first = train_tiny(tmp_path)
    (tmp_path / "tiny" / "finished" / "model.safetensors").write_bytes(b"")
    output = io.StringIO()
    _, again = train_tiny(tmp_path, console=Console(file=output))
    assert "damaged result" in output.getvalue()
    assert weights(again) == weights(first)


def test_other_settings_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, monkeypatch)
    with pytest.raises(TrainingError) as error:
        train_tiny(
            tmp_path,
            fingerprint={"encoder": "tiny", "policy": {"weights": "ternary"}, "compat": "paper"},
            schedule=dataclasses.replace(SCHEDULE, learning_rate=0.01, checkpoint_seconds=9.0),
        )
    text = str(error.value)
    assert 'policy.weights: found "ternary", expected "fp32"' in text
    assert "schedule.learning_rate: found 0.01, expected 0.05" in text
    assert 'compat: found "paper", expected nothing' in text
    assert "use another output directory, or delete this one" in text
    assert "checkpoint_seconds" not in text
    assert "encoder" not in text


def test_other_data_or_initial_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, monkeypatch)
    with pytest.raises(TrainingError, match="train_data: found"):
        train_tiny(tmp_path, train=tiny_dataset(40))
    other = TinyModel()
    other.head.bias.data[0] += 1
    with pytest.raises(TrainingError, match="initial_weights: found"):
        train_tiny(tmp_path, model=other)


def test_two_stages_share_the_scalars_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_tiny(tmp_path, name="first")
    first = (tmp_path / "scalars.jsonl").read_bytes()
    interrupted(tmp_path, monkeypatch, name="second", evaluations=1)
    train_tiny(tmp_path, name="second")
    content = (tmp_path / "scalars.jsonl").read_bytes()
    assert content.startswith(first)
    steps = [r["step"] for r in map(json.loads, content[len(first) :].splitlines()) if "metric" in r]
    assert steps == [3, 6, 9, 12]


def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Any:
        with pytest.raises(TrainingError, match="another process is training"):
            train_tiny(tmp_path)
        return cross_entropy(model, batch)

    train_tiny(tmp_path, loss_fn=loss_fn, schedule=dataclasses.replace(SCHEDULE, max_steps=1))


def test_interrupt_is_passed_on_and_the_next_call_starts(tmp_path: Path) -> None:
    def loss_fn(*_: object) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, loss_fn=loss_fn)
    assert train_tiny(tmp_path)[0].steps > 0


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_prints_no_evaluations(tmp_path: Path, quiet: bool) -> None:
    output = io.StringIO()
    train_tiny(tmp_path, console=Console(file=output), quiet=quiet)
    assert ("tokens/s" in output.getvalue()) is not quiet


def test_changed_thread_count_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, monkeypatch)
    monkeypatch.setattr(running_stage, "environment", lambda: {"threads": 99, "torch": torch.__version__})
    output = io.StringIO()
    train_tiny(tmp_path, console=Console(file=output))
    assert "continues with 99; the weights will not be byte-identical" in output.getvalue()
