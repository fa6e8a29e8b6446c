"""Where the time of an artifact goes: milliseconds by operation, and how near its products come to the machine's limit.

Measured by the engine's own clocks during real passes (``bp_profile``), in this process. A thread's waiting is counted
as well, so the operations of a cell add up to the duration of a pass.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitpress.artifact import ArtifactConfig, read_artifact
from bitpress.bench.latency import Cell, make_batches
from bitpress.families import POOLED_HEADS, POOLINGS
from bitpress.runtime.engine import PROFILED_LINEARS, Engine, available_isas, machine_limits
from bitpress.runtime.tokenization import Tokenizer


def explain(path: str | Path, cells: Sequence[Cell], threads: int | None = None, repeats: int = 20) -> dict[str, Any]:
    """Profile the artifact at ``path`` over ``cells``, on random token ids.

    Returns:
        ``isa``, ``isa_reason``, ``threads``, ``fp32_peak`` (multiply-adds a second of one thread, measured here) and
        ``rows``, one a cell and operation: ``operation``, ``ms`` (of a pass's duration; the medians of ``repeats``
        passes), ``share`` of the pass, and for products ``multiply_adds`` (of a pass), ``of_fp32_peak`` (their rate in
        multiples of the peak) and ``kernel``. "tokenization" stands beside the pass, not in it.

    Raises:
        ArtifactError, EngineError: the artifact or the engine cannot be used.
    """
    artifact = read_artifact(path)
    engine = Engine.from_artifact(artifact, threads=threads)
    tokenizer = Tokenizer.from_directory(path)
    peak, _ = machine_limits()
    rows = []
    for cell in cells:
        (batch, *_) = make_batches(path, cell, None, artifact.config.vocab_size)
        engine.forward(batch["ids"], batch["type_ids"])
        profiles = [engine.profile(batch["ids"], batch["type_ids"]) for _ in range(repeats)]
        seconds = {name: statistics.median(p[name] for p in profiles) / engine.threads for name in profiles[0]}
        total = sum(seconds.values())
        work = multiply_adds(artifact.config, cell)
        for name, spent in seconds.items():
            row = {"batch": cell.batch, "length": cell.length, "operation": name}
            row |= {"ms": 1e3 * spent, "share": spent / total}
            if name in work:
                # Busy threads only: waiting is a row of its own.
                row |= {"multiply_adds": work[name], "of_fp32_peak": work[name] / (spent * engine.threads) / peak}
                row["kernel"] = kernel(artifact.config, name, engine)
            rows.append(row)
        spent = tokenization_seconds(tokenizer, cell, repeats)
        rows.append({**_cell(cell), "operation": "tokenization", "ms": 1e3 * spent, "share": None})
    return {
        "model": str(path),
        "isa": engine.isa,
        "isa_reason": _isa_reason(),
        "threads": engine.threads,
        "fp32_peak": peak,
        "rows": rows,
    }


def _isa_reason() -> str:
    if os.environ.get("BITPRESS_ISA"):
        return "forced by BITPRESS_ISA"
    return f"the best of {', '.join(available_isas())}, which this CPU has"


def multiply_adds(config: ArtifactConfig, cell: Cell) -> dict[str, int]:
    """Multiply-adds of a pass by operation. Of the last layer, where a pooler reads it, first tokens only, keys and
    values aside."""
    tokens, layers = cell.batch * cell.length, config.num_hidden_layers
    h, a, i = config.hidden_size, config.attention_size, config.intermediate_size
    pooled = config.head in POOLED_HEADS
    read = 1 if pooled or config.head == "cls" else cell.length  # of each text in the last layer
    after_attention = (layers - 1) * tokens + cell.batch * read
    head = {"head": cell.batch * read * h * (h * pooled + config.num_labels)}
    return {
        "query_key_value": ((3 * layers - 1) * tokens + cell.batch * read) * h * a,
        "attention": cell.batch * 2 * cell.length * ((layers - 1) * cell.length + read) * a,
        "attention_output": after_attention * h * a,
        "ffn_up": after_attention * h * i,
        "ffn_down": after_attention * h * i,
        **({} if config.head in POOLINGS else head),
    }


def kernel(config: ArtifactConfig, operation: str, engine: Engine) -> str:
    """What multiplies in ``operation``: kind of the activations, stored form of the weights, and how many panels of 16
    outputs have weights too large for the fast kernel (8 bits: neighbours that add up to more than 128)."""
    activations = "fp32" if config.activations.scheme == "fp32" else f"{config.activations.bits}-bit"
    if operation == "attention":
        return f"{activations} × {activations}"
    if operation == "head":
        names: list[str] = [name for name in ("pooler.dense.weight", "classifier.weight") if name in config.tensors]
    else:
        names = [
            f"layers.{i}.{part}.weight" for i in range(config.num_hidden_layers) for part in PROFILED_LINEARS[operation]
        ]
    forms = dict.fromkeys(_form(config, name, activations) for name in names)
    counts = [engine.panels(name) for name in names if not config.tensors[name].is_float]
    panels, fast = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    slow = f"; {panels - fast} of {panels} panels by the slower exact kernel" if fast < panels else ""
    return ", ".join(forms) + slow


def _form(config: ArtifactConfig, name: str, activations: str) -> str:
    spec = config.tensors[name]
    if spec.is_float:
        return "fp32 × fp32"
    group = f" in groups of {spec.group_size}" if spec.group == "input" else ""
    return f"{activations} × {spec.scheme} {spec.bits:g}-bit{group}"


def tokenization_seconds(tokenizer: Tokenizer, cell: Cell, repeats: int) -> float:
    """Median seconds to encode ``cell.batch`` texts of about ``cell.length`` tokens, words of the vocabulary."""
    rng = random.Random(0)
    words = [word for word in tokenizer.words() if word.isalpha()] or ["a"]
    texts = [" ".join(rng.choice(words) for _ in range(max(1, cell.length - 2))) for _ in range(cell.batch)]
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        tokenizer.encode(texts, max_length=max(cell.length, 3))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _cell(cell: Cell) -> dict[str, int]:
    return {"batch": cell.batch, "length": cell.length}
