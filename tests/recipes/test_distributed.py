"""Two processes that train together, started as the documentation says. Oracle: one process with the same batches a
step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task

from bitpress.recipes.runner import pretrain

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

STEPS = 20
SETTINGS = {"max_steps": STEPS, "learning_rate": 3e-3, "batch_tokens": 128, "max_length": 24, "evaluate_every": 5}


def start(tiny: Any, corpus: Path, out: Path, port: int, **changes: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    command += ["-m", "bitpress.cli", "pretrain", str(tiny.encoder)]
    command += ["--corpus", str(corpus), "--student", "1x16", "--out", str(out), "--quiet", "--json"]
    for key, value in (SETTINGS | changes).items():
        command += ["--set", f"{key}={value}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    result: dict[str, Any] = json.loads(output)  # the first process alone has spoken
    return result


def running(out: Path) -> list[int]:
    """Processes that write to ``out``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if os.fsencode(out) in arguments:
            found.append(int(folder.name))
    return found


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    words = tiny_task.FILLER + tiny_task.GOOD + tiny_task.BAD
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(rng.choice(words, rng.integers(1, 60))) for _ in range(200)) + "\n")
    return path


def test_two_processes_do_what_one_does(
    tiny: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitpress.train.running_stage.LOG_EVERY", 1)
    one = pretrain(
        tiny.encoder,
        corpus=[corpus],
        student="1x16",
        out=tmp_path / "one",
        overrides=SETTINGS | {"accumulate": 2},
        quiet=True,
    )
    two = finish(start(tiny, corpus, tmp_path / "two", 29611))
    assert two["steps"] == one.steps == STEPS
    assert two["tokens"] == one.tokens
    lines = [json.loads(line) for line in (tmp_path / "one.run" / "scalars.jsonl").read_text().splitlines()]
    by_ten = np.reshape([line["loss"] for line in lines if "loss" in line], (2, 10)).mean(axis=1)
    lines = [json.loads(line) for line in (tmp_path / "two.run" / "scalars.jsonl").read_text().splitlines()]
    at_evaluations = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert sorted(at_evaluations) == [5, 10, 15, 20]
    found = [np.mean([at_evaluations[a], at_evaluations[b]]) for a, b in ((5, 10), (15, 20))]
    np.testing.assert_allclose(found, by_ten, rtol=1e-5)
    assert two["metrics"]["total"] == pytest.approx(one.metrics["total"], rel=1e-5)


def test_killed_together_they_end_in_the_same_bytes(tiny: Any, corpus: Path, tmp_path: Path) -> None:
    more = {"max_steps": 400, "epochs": 100, "checkpoint_seconds": 0.0}
    finish(start(tiny, corpus, tmp_path / "calm", 29612, **more))
    process = start(tiny, corpus, tmp_path / "killed", 29613, **more)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "killed.run").glob("distill/checkpoint-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # The launcher and both processes, which it has put into sessions of their own.
    for pid in running(tmp_path / "killed"):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    while running(tmp_path / "killed"):
        time.sleep(0.02)
    assert not (tmp_path / "killed").exists(), "the run ended before it could be killed"
    finish(start(tiny, corpus, tmp_path / "killed", 29614, **more))
    calm, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("calm", "killed"))
    assert calm == killed
