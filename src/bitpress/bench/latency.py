"""Latency of models side by side: median, minimum and 95th percentile over a grid of batch sizes and lengths.

Design goals
- Figures that can be compared: every model sees the same batches, the same number of threads, in one run.
- A disturbance of the machine hits all models alike: they take turns burst by burst. [One model after the other would
  let a change of clock or a neighbour's job decide the ratio.]
- Engines do not disturb each other: each in its own process; before each burst a pause longer than any engine's spin
  wait, then warm-up passes that bring caches and clock back.

Non-goals: throughput under concurrent load; tokenization time.
"""

from __future__ import annotations

import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitpress.bench.client import PROGRAM, Worker
from bitpress.bench.models import read_config
from bitpress.errors import BitpressError
from bitpress.families import most_tokens as positions_of

# Threads of the other engines must be asleep when a burst starts. GNU and LLVM OpenMP spin for up to 200 ms
# (KMP_BLOCKTIME) after a parallel region; a quarter of a second is past that.
PAUSE_SECONDS = 0.25
# At the end of each pause, when every engine of ours sleeps, what still runs is somebody else's: this share of the
# pause is watched. Above the limit figures are not to be trusted, least of all ratios: an engine whose threads wait
# for each other at barriers loses far more to a third job than one that hands out work.
WATCHED = 0.2
BUSY_LIMIT = 0.1
# Measured passes between two turns: long enough that warm-up is the smaller part, short enough to interleave.
BURST = 5
# Where a burst is as many passes as fill a given time: no more than this many, which is plenty for a median of rounds.
_MOST_PASSES = 10
# Distinct random batches a cell: more than one, so that no engine answers from the embedding rows of one text only.
_RANDOM_BATCHES = 4


@dataclass(frozen=True)
class Cell:
    """One point of the grid: ``batch`` texts of ``length`` tokens, special tokens included."""

    batch: int
    length: int


DEFAULT_GRID = (Cell(1, 16), Cell(1, 128), Cell(8, 128))


def most_tokens(models: Iterable[str | Path]) -> int:
    """The longest text that every one of ``models`` (directories) has positions for."""
    return min(positions_of(read_config(path)) for path in models)


def default_grid(models: Iterable[str | Path]) -> tuple[Cell, ...]:
    """``DEFAULT_GRID``, its lengths cut to what the models take."""
    limit = most_tokens(models)
    return tuple(dict.fromkeys(Cell(cell.batch, min(cell.length, limit)) for cell in DEFAULT_GRID))


def available_threads() -> int:
    """Logical processors that this process may use."""
    return len(os.sched_getaffinity(0))


def summarize(times: Sequence[float]) -> dict[str, float]:
    """``median_ms``, ``min_ms`` and ``p95_ms`` of times in milliseconds; p95 by nearest rank, so a time that was."""
    ordered = sorted(times)
    rank = math.ceil(0.95 * len(ordered))
    return {"median_ms": statistics.median(ordered), "min_ms": ordered[0], "p95_ms": ordered[rank - 1]}


def measure(
    models: Mapping[str, str | Path],
    grid: Sequence[Cell] = DEFAULT_GRID,
    *,
    threads: int | Mapping[str, int] | None = None,
    warmup: int = 2,
    repeats: int = 20,
    texts: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
    programs: Mapping[str, Sequence[str]] | None = None,
    burst_seconds: float | None = None,
) -> dict[str, Any]:
    """Measures ``models`` (name in the report -> directory) over ``grid``.

    Args:
        threads: of every engine, or by its name in the report; None means all that the process may use.
        warmup: unmeasured passes before each burst.
        repeats: measured passes of each model in each cell.
        texts: real texts instead of random token ids; ``length`` is then where they are cut.
        progress: called with one line before each cell.
        programs: name in the report -> worker program, for models that other engines run.
        burst_seconds: for grids whose cells differ by orders of magnitude. A burst then is as many passes as fill this
            time, one to ten, after half as many warm-up passes (one at least); ``repeats`` counts bursts, and
            ``warmup`` is not used.

    Returns:
        ``rows`` (one a model and cell), ``ratios`` (each other model's median over the first model's), ``machine`` and
        ``busy_elsewhere``: the share of processor time, 0..1, that other jobs took while the engines slept.

    Raises:
        BitpressError: an empty grid, a length that a model has no positions for, a model that does not load.
    """
    threads = available_threads() if threads is None else threads
    threads_of = dict(threads) if isinstance(threads, Mapping) else dict.fromkeys(models, threads)
    _check(models, grid, min(threads_of.values(), default=1), warmup, repeats, texts)
    rows: list[dict[str, Any]] = []
    watch = Watch()
    with ExitStack() as stack:
        workers, info = {}, {}
        for name, path in models.items():
            workers[name] = stack.enter_context(
                Worker(path, threads=threads_of[name], program=(programs or {}).get(name, PROGRAM))
            )
            info[name] = workers[name].receive()["info"]
        for cell in grid:
            if progress is not None:
                progress(f"batch {cell.batch} × {cell.length} tokens")
            batches = {
                name: make_batches(path, cell, texts, _smallest_vocabulary(models)) for name, path in models.items()
            }
            for name, worker in workers.items():
                worker.request({"op": "prepare", "batches": batches[name]})
            if burst_seconds is None:
                counts = [min(BURST, repeats - done) for done in range(0, repeats, BURST)]
                plans = {name: Plan(warmup, tuple(counts)) for name in models}
            else:
                plans = {name: _plan(worker, burst_seconds, repeats) for name, worker in workers.items()}
            times = _take_turns(workers, plans, watch)
            for name in models:
                row = {"model": name, "batch": cell.batch, "length": cell.length, "threads": threads_of[name]}
                row |= summarize(times[name]) | info[name]
                row |= {"warmup": plans[name].warmup, "repeats": len(times[name])}
                if texts is not None:
                    row["mean_tokens"] = _mean_tokens(batches[name])
                rows.append(row)
    return {"rows": rows, "ratios": ratios(rows), "machine": machine(), "busy_elsewhere": watch.busy_share()}


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many times faster the first model is than each other one, cell by cell (medians)."""
    found = []
    first = rows[0]["model"] if rows else None
    base = {(row["batch"], row["length"]): row["median_ms"] for row in rows if row["model"] == first}
    for row in rows:
        if row["model"] != first:
            cell = (row["batch"], row["length"])
            found.append(
                {
                    "model": first,
                    "vs": row["model"],
                    "batch": row["batch"],
                    "length": row["length"],
                    "ratio": row["median_ms"] / base[cell],
                }
            )
    return found


def make_batches(
    path: str | Path, cell: Cell, texts: Sequence[str] | None, vocabulary: int
) -> list[dict[str, list[list[int]]]]:
    """The batches of a cell: random ids below ``vocabulary``, the same for each model, or the texts in file order."""
    if texts is None:
        rng = random.Random(f"{cell.batch}x{cell.length}")
        return [
            {
                "ids": [[rng.randrange(vocabulary) for _ in range(cell.length)] for _ in range(cell.batch)],
                "type_ids": [[0] * cell.length for _ in range(cell.batch)],
            }
            for _ in range(_RANDOM_BATCHES)
        ]
    from bitpress.runtime.tokenization import Tokenizer

    encodings = Tokenizer.from_directory(path).encode(list(texts), None, cell.length)
    # Every batch is full: the last one starts over at the first text.
    count = math.ceil(len(encodings) / cell.batch)
    picks = [[encodings[(b * cell.batch + i) % len(encodings)] for i in range(cell.batch)] for b in range(count)]
    return [{"ids": [list(e.ids) for e in pick], "type_ids": [list(e.type_ids) for e in pick]} for pick in picks]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "logical_processors": available_threads(),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


class Watch:
    """Pauses between bursts, and how busy the machine was with other jobs during them."""

    def __init__(self) -> None:
        self._busy = self._total = 0

    def pause(self) -> None:
        """Sleeps PAUSE_SECONDS and watches the end of it."""
        time.sleep((1 - WATCHED) * PAUSE_SECONDS)
        busy, total = _processor_ticks()
        time.sleep(WATCHED * PAUSE_SECONDS)
        busy_after, total_after = _processor_ticks()
        self._busy += busy_after - busy
        self._total += total_after - total

    def busy_share(self) -> float:
        """0..1 of all processors' time; 0 before the first tick."""
        return self._busy / self._total if self._total else 0.0


def _processor_ticks() -> tuple[int, int]:
    """(busy, total) ticks of all processors since boot; time stolen by other virtual machines counts as busy."""
    # user nice system idle iowait irq softirq steal; the two guest columns after them are part of user and nice
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


@dataclass(frozen=True)
class Plan:
    """How one model is measured in one cell: ``warmup`` unmeasured passes before each burst, ``counts`` measured ones
    in it. All models of a cell have the same number of bursts."""

    warmup: int
    counts: tuple[int, ...]


def plan(ms: float, burst_seconds: float, rounds: int) -> Plan:
    """Bursts of ``burst_seconds`` for passes of ``ms`` milliseconds."""
    passes = min(max(int(burst_seconds * 1e3 / ms), 1), _MOST_PASSES)
    return Plan(max(passes // 2, 1), (passes,) * rounds)


def turns(names: Sequence[str], round_: int, rounds: int) -> list[str]:
    """The order of turns in a round: who begins moves on, far enough that ``rounds`` rounds go once around."""
    start = round_ * max(1, len(names) // rounds) % len(names)
    return [*names[start:], *names[:start]]


def _plan(worker: Worker, burst_seconds: float, rounds: int) -> Plan:
    """Bursts by what a pass takes. A first pass may be slow because engines prepare for its shape, so a short one gets
    a second chance."""
    probe = {"op": "burst", "first": 0, "warmup": 0, "count": 1}
    ms = worker.request(probe)["ms"][0]
    if ms < burst_seconds * 1e3:
        ms = worker.request(probe)["ms"][0]
    return plan(ms, burst_seconds, rounds)


def _take_turns(workers: Mapping[str, Worker], plans: Mapping[str, Plan], watch: Watch) -> dict[str, list[float]]:
    """Times of each model in milliseconds, on batches that are prepared."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    rounds = len(next(iter(plans.values())).counts)
    for i in range(rounds):
        for name in turns(list(workers), i, rounds):
            watch.pause()
            burst = {"warmup": plans[name].warmup, "count": plans[name].counts[i]}
            times[name] += workers[name].request({"op": "burst", "first": len(times[name]), **burst})["ms"]
    return times


def _check(
    models: Mapping[str, str | Path],
    grid: Sequence[Cell],
    threads: int,
    warmup: int,
    repeats: int,
    texts: Sequence[str] | None,
) -> None:
    if not grid:
        raise BitpressError("nothing to measure: give at least one batch size and one length")
    if threads < 1 or repeats < 1 or warmup < 0:
        raise BitpressError(
            f"threads = {threads}, repeats = {repeats}, warmup = {warmup}: "
            "threads and repeats must be at least 1, warm-up at least 0"
        )
    if texts is not None and not texts:
        raise BitpressError("the file of texts is empty; give at least one text, or leave it out for random token ids")
    # [CLS] token [SEP] is the shortest text that a tokenizer makes; random ids need no more than one token.
    shortest = 1 if texts is None else 3
    for path in models.values():
        positions = most_tokens([path])
        for cell in grid:
            if cell.batch < 1:
                raise BitpressError(f"batch size {cell.batch}: must be at least 1")
            if not shortest <= cell.length <= positions:
                raise BitpressError(
                    f"length {cell.length}: {path} takes {shortest} to {positions} tokens; choose one of these"
                )


def _smallest_vocabulary(models: Mapping[str, str | Path]) -> int:
    return min(int(read_config(path).get("vocab_size", 1)) for path in models.values())


def _mean_tokens(batches: Sequence[Mapping[str, list[list[int]]]]) -> float:
    lengths = [len(ids) for batch in batches for ids in batch["ids"]]
    return sum(lengths) / len(lengths)
