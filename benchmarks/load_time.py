"""How long artifacts take to load in a process that has imported everything: medians of several loads, in milliseconds.

    python benchmarks/peers.py --quick          # or any artifact
    python benchmarks/load_time.py build/peers/bert-base/*bert*

"read" maps the file and checks every promise of docs/artifact.md, "engine" re-lays the weights; the two are the
artifact. The tokenizer is parsed from its JSON beside them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bitpress.artifact import read_artifact
from bitpress.runtime.engine import Engine
from bitpress.runtime.tokenization import Tokenizer


def milliseconds(repeats: int, run: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        times.append(1e3 * (time.perf_counter() - start))
        del result
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    print(f"{'artifact':40} {'read':>8} {'engine':>8} {'both':>8} {'tokenizer':>10}")
    for path in options.artifacts:
        artifact = read_artifact(path)
        read = milliseconds(options.repeats, lambda path=path: read_artifact(path))
        engine = milliseconds(options.repeats, lambda artifact=artifact: Engine.from_artifact(artifact))
        tokenizer = milliseconds(options.repeats, lambda path=path: Tokenizer.from_directory(path))
        print(f"{path.name:40} {read:8.1f} {engine:8.1f} {read + engine:8.1f} {tokenizer:10.1f}")


if __name__ == "__main__":
    main()
