"""Trains the tiny model in forked children that die by SIGKILL; one JSON line a case on stdout.

usage: crash_harness.py DIRECTORY STRIDE

Every instrumented point (a batch, an evaluation, a line of scalars, a half-written file, a sync, a rename, a removal)
counts as one event; a child kills itself at its n-th. The parent runs no tensor operation, so that forking is safe.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_training
import torch._dynamo  # noqa: F401  (torch imports it at the first optimizer step; once here is cheaper than in each child)
from safetensors.torch import save_file

from bitpress.train import checkpoint, running_stage, scalars


def instrument(kill_at: int | None) -> list[int]:
    """Patches the events into this process; returns the running count."""
    count = [0]

    def event() -> None:
        if count[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1

    def wrap(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            event()
            return original(*args, **kwargs)

        setattr(owner, name, patched)

    def half_written_save(tensors: Any, path: Path) -> None:
        save_file(tensors, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        event()
        path.write_bytes(whole)

    wrap(tiny_training, "cross_entropy")
    wrap(tiny_training, "rising_and_falling")
    wrap(scalars.ScalarLog, "write")
    for name in ("fsync", "rename", "replace"):
        wrap(os, name)
    wrap(shutil, "rmtree")
    checkpoint.save_file = half_written_save  # type: ignore[assignment]
    running_stage.CHECKPOINT_SHARE = 1e9  # never put a checkpoint off: one a step
    return count


def child(run_dir: Path, kill_at: int | None, delay: float = 0.0) -> int:
    """Runs one training in a child; returns how it ended (0, or −9)."""
    pid = os.fork()
    if pid == 0:
        try:
            count = instrument(kill_at)
            result, model = tiny_training.train_tiny(
                run_dir, loss_fn=tiny_training.cross_entropy, evaluate=tiny_training.rising_and_falling
            )
            save_file({k: v.clone() for k, v in model.state_dict().items()}, run_dir / "final.safetensors")
            (run_dir / "result.json").write_text(
                json.dumps({"events": count[0], "resumed_from": result.resumed_from, "best_step": result.best_step})
            )
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    if delay:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(run_dir: Path) -> dict[str, Any]:
    volatile = ("time", "tokens_per_second")
    lines = [json.loads(line) for line in (run_dir / "scalars.jsonl").read_text().splitlines()]
    return {
        "weights": (run_dir / "final.safetensors").read_bytes().hex(),
        "scalars": [{k: v for k, v in line.items() if k not in volatile} for line in lines],
        "files": sorted(path.name for path in (run_dir / "tiny").iterdir()),
        "best_step": json.loads((run_dir / "result.json").read_text())["best_step"],
    }


def main(directory: Path, stride: int) -> None:
    start = time.perf_counter()
    assert child(directory / "undisturbed", None) == 0
    seconds = time.perf_counter() - start
    expected = outcome(directory / "undisturbed")
    events = json.loads((directory / "undisturbed" / "result.json").read_text())["events"]
    rng = random.Random(5)
    cases: list[tuple[list[int], float]] = [([at], 0.0) for at in range(rng.randrange(stride), events, stride)]
    cases += [([rng.randrange(events // 2) for _ in range(3)], 0.0) for _ in range(3)]
    cases += [([], rng.uniform(0.2, 0.95) * seconds) for _ in range(4)]
    for number, (kills, delay) in enumerate(cases):
        run_dir = directory / f"run{number}"
        ends = [child(run_dir, None, delay)] if delay else [child(run_dir, at) for at in kills]
        last = child(run_dir, None)
        ends.append(last)
        report = {"kills": kills, "delay": delay, "ends": ends, "events": events}
        if last == 0:
            found = outcome(run_dir)
            report["differing"] = [key for key in expected if found[key] != expected[key]]
            report["resumed_from"] = json.loads((run_dir / "result.json").read_text())["resumed_from"]
        print(json.dumps(report), flush=True)
        shutil.rmtree(run_dir)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
