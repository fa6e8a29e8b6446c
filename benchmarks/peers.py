"""bitpress beside PyTorch, ONNX Runtime, OpenVINO and CTranslate2 on this machine: latency, real texts, memory, limits.

    pip install -c constraints.txt '.[peers]'
    python benchmarks/peers.py                    # everything; by estimate 25 minutes with ten engines, plus building
    python benchmarks/peers.py --quick            # one shape, two lengths, few texts: within 3 minutes
    python benchmarks/performance_page.py build/peers/peers.json --plot docs/performance.svg > docs/performance.md

What is compared and how each engine is set up: peer_models.py. Every engine runs in a process of its own; they take
turns burst by burst in rotating order, after a pause in which all others fall asleep. A burst fills 0.15 s or is one
pass, after half as much warm-up, so a cell takes engines × --repeats × (0.25 s + the longer of 0.22 s and two passes).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitpress.bench.client import Worker
from bitpress.bench.explain import explain
from bitpress.bench.latency import PAUSE_SECONDS, Cell, available_threads, machine, measure
from bitpress.bench.memory import measure_process
from bitpress.bench.models import weight_bytes
from bitpress.bench.report import busy_warning
from peer_models import MAX_LENGTH, OURS, SHAPES, Engine, build
from peer_texts import measure_texts, text_sets
from performance_page import plain_text

ROOT = Path(__file__).resolve().parents[1]
BURST_SECONDS = 0.15
LENGTHS = (16, 64, 128, 384)
LARGE = Cell(8, 128)  # the batch beside the single texts, where length 128 is measured
PACKAGES = ("torch", "transformers", "onnxruntime", "openvino", "ctranslate2", "tokenizers", "numpy")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="models that are built; kept")
    parser.add_argument("--json", type=Path, help="where the result goes; default: peers.json in --work")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, available_threads()}, reverse=True))
    parser.add_argument("--repeats", type=int, default=3, help="bursts of each engine in each cell")
    parser.add_argument("--engines", default="*", help="pattern of the engines to run, like '*int8'")
    parser.add_argument("--quick", action="store_true", help="one shape, lengths 16 and 128, all threads, few texts")
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.lengths, options.repeats = ["minilm"], [16, 128], 2
        options.threads = options.threads[:1]
    options.json = options.json or options.work / "peers.json"
    return options


def say(line: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> int:
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    started = time.time()
    engines: dict[str, dict[str, Engine]] = {}
    skipped: dict[str, str] = {}
    for shape in options.shapes:
        engines[shape], missing = build(shape, options.work, options.engines, say)
        skipped |= missing
    for name, reason in skipped.items():
        say(f"skipped: {name}: {reason}")
    built = time.time()

    texts_on = "minilm" if "minilm" in engines else options.shapes[-1]
    grid = [Cell(1, length) for length in options.lengths] + ([LARGE] if LARGE.length in options.lengths else [])
    result: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/peers.py", *portable(sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "pause_seconds": PAUSE_SECONDS,
            "burst_seconds": BURST_SECONDS,
            "bursts": options.repeats,
            "max_length": MAX_LENGTH,
        },
        "shapes": {shape: SHAPES[shape].title for shape in options.shapes},
        "engines": {name: {"note": engine.note} for found in engines.values() for name, engine in found.items()},
        "skipped": skipped,
        "limits": limits(options.work),
        "agreement": [],
        "cells": [],
        "busy_elsewhere": {},
        "processes": [],
    }
    for shape in options.shapes:
        result["agreement"] += agreement(shape, engines[shape])
        for threads in options.threads:
            measured = measure(
                {name: engine.path for name, engine in engines[shape].items()},
                grid,
                threads=threads,
                repeats=options.repeats,
                progress=lambda line, shape=shape, threads=threads: say(f"{shape}, {threads} threads, {line}"),
                programs={name: engine.program for name, engine in engines[shape].items()},
                burst_seconds=BURST_SECONDS,
            )
            for row in measured["rows"]:
                name = row.pop("model")
                result["engines"][name] |= {"engine": row.pop("engine"), "isa": row.pop("isa")}
                result["cells"].append({"shape": shape, "engine": name} | row)
            result["busy_elsewhere"][f"{shape}, {threads} threads"] = measured["busy_elsewhere"]
            save(options.json, result)

    result["explained"] = {
        name: explain(engine.path, [Cell(1, 128)], threads=max(options.threads))["rows"]
        for name, engine in engines[options.shapes[0]].items()
        if name.startswith(OURS)
    }
    if len(options.threads) > 1:
        result["scaling"] = scaling(options.shapes[0], engines[options.shapes[0]], options, result)
        save(options.json, result)
    threads, runs = max(options.threads), 1 if options.quick else 3
    for shape in dict.fromkeys([options.shapes[0], texts_on]):
        for name, engine in engines[shape].items():
            say(f"load time and memory, {shape}: {name}")
            found = measure_process(engine.path, threads=threads, program=engine.program, runs=runs)
            row = {"shape": shape, "engine": name, "threads": threads, "file_bytes": model_bytes(engine.path)}
            result["processes"].append(row | found)
    sets, absent = text_sets(options.quick)
    for name, reason in absent.items():
        say(f"skipped: {name}: {reason}")
    found_texts, busy = measure_texts(engines[texts_on], sets, threads, say)
    result["texts"] = {"shape": texts_on, "threads": threads, "sets": found_texts, "skipped": absent}
    result["busy_elsewhere"]["texts"] = busy
    result["minutes"] = {"building": (built - started) / 60, "measuring": (time.time() - built) / 60}
    save(options.json, result)

    print(plain_text(result))
    if (warning := busy_warning(max(result["busy_elsewhere"].values()))) is not None:
        print(warning)
    print(f"{result['minutes']['measuring']:.1f} minutes of measuring; everything is in {options.json}")
    return 0


def scaling(
    shape: str, engines: Mapping[str, Engine], options: argparse.Namespace, result: dict[str, Any]
) -> dict[str, Any]:
    """1 × 128 tokens with the fewest and with the most threads, all in turns: what further threads are worth."""
    counts = sorted({min(options.threads), max(options.threads)})
    named = {(name, count): f"{name}, {count}" for name in engines for count in counts}
    measured = measure(
        {title: engines[name].path for (name, _), title in named.items()},
        [Cell(1, 128)],
        threads={title: count for (_, count), title in named.items()},
        repeats=options.repeats,
        progress=lambda line: say(f"{shape}, threads {counts} in turns, {line}"),
        programs={title: engines[name].program for (name, _), title in named.items()},
        burst_seconds=BURST_SECONDS,
    )
    result["busy_elsewhere"][f"{shape}, threads in turns"] = measured["busy_elsewhere"]
    found = {row["model"]: row["median_ms"] for row in measured["rows"]}
    rows = [{"engine": name, "ms": [found[named[name, count]] for count in counts]} for name in engines]
    return {"shape": shape, "threads": counts, "rows": rows}


def versions() -> dict[str, str]:
    """Of the packages, and the commit of this checkout where git knows it."""
    found = {}
    for name in ("bitpress", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    if commit.returncode == 0:
        found["commit"] = commit.stdout.strip()
    return found


def portable(arguments: Sequence[str]) -> list[str]:
    """Without where this machine keeps its files."""
    kept = []
    words = iter(arguments)
    for word in words:
        option, joined, _ = word.partition("=")
        if option not in ("--work", "--json"):
            kept.append(word)
        elif not joined:
            next(words)
    return kept


def limits(work: Path) -> dict[str, Any]:
    """Builds and runs machine_limits and bench_kernels: what the machine can do, and each kernel's share of it."""
    say("limits of the machine and of the kernels")
    folder = work / "native"
    environment = {key: value for key, value in os.environ.items() if key != "BITPRESS_ISA"}
    configure = ["cmake", "-S", ROOT, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", "-DBITPRESS_BUILD_BENCHMARKS=ON"]
    target = ["cmake", "--build", folder, "--parallel", "--target", "machine_limits", "bench_kernels"]
    for command in (configure, target):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    printed = {}
    for program in ("machine_limits", "bench_kernels"):
        time.sleep(PAUSE_SECONDS)
        done = subprocess.run([folder / program], capture_output=True, text=True, check=True, env=environment)
        printed[program] = done.stdout
    return json.loads(printed["machine_limits"]) | {
        "kernels_printed": printed["bench_kernels"].rstrip().splitlines(),
    }


def agreement(shape: str, engines: Mapping[str, Engine]) -> list[dict[str, Any]]:
    """Largest difference of a logit between each peer and PyTorch on one ragged batch: that all compute one function.

    The artifacts are not held against it: packed without training, they are other functions on purpose.
    """
    lengths = (3, 40, 17)
    batch = {
        "ids": [[101, *range(2000, 2000 + length), 102] for length in lengths],
        "type_ids": [[0] * (length + 2) for length in lengths],
    }
    logits = {}
    for name, engine in engines.items():
        if not name.startswith(OURS):
            with Worker(engine.path, threads=1, program=engine.program) as worker:
                worker.receive()
                logits[name] = worker.request({"op": "logits", "batch": batch})["logits"]
    expected = logits.pop("PyTorch fp32", None)
    if expected is None:
        return []
    return [
        {"shape": shape, "engine": name, "largest_difference": largest_difference(expected, found)}
        for name, found in logits.items()
    ]


def largest_difference(a: list[list[float]], b: list[list[float]]) -> float:
    return max(abs(x - y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True))


def model_bytes(path: Path) -> int:
    """Weights on disk: model.safetensors, or all of another engine's files that are not the tokenizer's."""
    if (path / "model.safetensors").is_file():
        return weight_bytes(path)
    files = [file for file in path.rglob("*") if file.suffix in (".onnx", ".bin", ".npz", ".xml")]
    return sum(file.stat().st_size for file in files)


def save(file: Path, result: Mapping[str, Any]) -> None:
    """Replaces the file at once, so that a killed run leaves the last whole one."""
    half = file.with_name(file.name + ".half")
    half.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(file)


if __name__ == "__main__":
    sys.exit(main())
