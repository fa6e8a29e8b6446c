"""Real texts through each engine, tokenization included: from a list of strings to an answer for each."""

from __future__ import annotations

import csv
import gzip
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitpress.bench.client import Worker
from bitpress.bench.latency import Watch, turns
from bitpress.runtime.tokenization import Tokenizer
from peer_models import MAX_LENGTH, Engine

DATA = Path(os.environ.get("BITPRESS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
PARAGRAPHS = 2000
# Engines take turns chunk by chunk, so that a disturbance hits all alike.
CHUNK = 500
SEED = 0


@dataclass(frozen=True)
class TextSet:
    """Texts that every engine answers ``rounds`` times."""

    name: str
    texts: list[str]
    rounds: int


def text_sets(quick: bool) -> tuple[list[TextSet], dict[str, str]]:
    """The sets that are there, and name -> reason of those that are not."""
    sets, skipped = [], {}
    for name, file, read, rounds in (
        ("SST-2 dev", DATA / "SST-2" / "dev.tsv", _sentences, 2),
        ("paragraphs", DATA / "corpus" / "enwiki_sample.txt.gz", _paragraphs, 1),
    ):
        if file.is_file():
            texts = read(file)
            sets.append(TextSet(name, texts[:200], 1) if quick else TextSet(name, texts, rounds))
        else:
            skipped[name] = f"{file} is absent; BITPRESS_DATA names the folder with the data"
    return sets, skipped


def _sentences(file: Path) -> list[str]:
    with file.open(encoding="utf-8", newline="") as lines:
        return [row["sentence"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]


def _paragraphs(file: Path) -> list[str]:
    """PARAGRAPHS lines of any length drawn from the whole file, the same ones each time."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        found = [line.strip() for line in lines if line.strip()]
    return random.Random(SEED).sample(found, min(PARAGRAPHS, len(found)))


def measure_texts(
    engines: Mapping[str, Engine], sets: Sequence[TextSet], threads: int, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], float]:
    """One result a set, with ``rows`` (engine, texts and real tokens a second), and how busy the machine was meanwhile.

    Texts a second are all texts of all rounds over the time they took. Tokens are those of BERT's tokenizer, special
    ones included and cut at MAX_LENGTH, without padding: the same for every engine.
    """
    results = []
    watch = Watch()
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(engine.path, threads=threads, texts=True, program=engine.program))
            for name, engine in engines.items()
        }
        for worker in workers.values():
            worker.receive()
        tokenizer = Tokenizer.from_directory(next(iter(engines.values())).path)
        for one in sets:
            say(f"{one.name}: {len(one.texts)} texts")
            chunks = [one.texts[i : i + CHUNK] for i in range(0, len(one.texts), CHUNK)] * one.rounds
            ms = dict.fromkeys(workers, 0.0)
            for name in workers:
                workers[name].request({"texts": one.texts[:8]})  # warm-up
            for i, chunk in enumerate(chunks):
                for name in turns(list(workers), i, len(chunks)):
                    watch.pause()
                    ms[name] += workers[name].request({"texts": chunk})["ms"]
            encodings = tokenizer.encode(one.texts, max_length=MAX_LENGTH)
            found = sum(len(encoding.ids) for encoding in encodings)
            texts, tokens = len(one.texts) * one.rounds, found * one.rounds
            rows = [
                {"engine": name, "texts_per_second": 1e3 * texts / t, "tokens_per_second": 1e3 * tokens / t}
                for name, t in ms.items()
            ]
            results.append(
                {
                    "name": one.name,
                    "texts": len(one.texts),
                    "rounds": one.rounds,
                    "mean_tokens": found / len(encodings),
                    "truncated": sum(encoding.truncated for encoding in encodings),
                    "rows": rows,
                }
            )
    return results, watch.busy_share()
