"""The comparison with other engines: its arithmetic, its page, and the parts of the workers that need no peer.

Oracles: values by hand. Nothing here imports onnxruntime, openvino or ctranslate2.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bitpress.bench import latency
from bitpress.bench.client import Worker
from bitpress.bench.latency import Cell, Plan, measure, plan, turns
from bitpress.bench.worker import batches_of_like_length, in_batches_of_like_length

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import peer_texts
import peer_worker
import performance_page
from peers import largest_difference, portable
from performance_bars import Bar, read_bars
from performance_page import MARK, UNEXPLAINED, Reason, explain, page, plain_text, read_reasons, standing, standings

OURS, INT8, OTHER = "bitpress ternary", "ONNX Runtime int8", "OpenVINO fp32"


def cells(batch: int, length: int, ms: dict[str, float]) -> list[dict[str, Any]]:
    row = {"shape": "tiny", "batch": batch, "length": length, "threads": 2, "min_ms": 0.1, "p95_ms": 9.0}
    return [row | {"engine": name, "median_ms": value, "repeats": 6, "warmup": 1} for name, value in ms.items()]


@pytest.fixture
def result() -> dict[str, Any]:
    """What peers.py writes, with one shape, two cells, a set of texts: ours loses one of each kind."""
    names = (OURS, INT8, OTHER)
    process = {"shape": "tiny", "threads": 2, "file_bytes": 1 << 20, "first_ms": 1.0}
    return {
        "command": "python benchmarks/peers.py --quick",
        "date": "2026-01-01",
        "machine": {
            "cpu": "A CPU",
            "logical_processors": 2,
            "memory_bytes": 2**34,
            "system": "Linux",
            "python": "3.11",
        },
        "versions": {"torch": "2.13.0"},
        "settings": {"pause_seconds": 0.25, "burst_seconds": 0.15, "bursts": 3, "max_length": 384},
        "shapes": {"tiny": "Tiny 1 × 8"},
        "engines": {name: {"note": "as it comes", "engine": name, "isa": ""} for name in names},
        "skipped": {"bitpress int3": "no recipe"},
        "limits": {
            "processors": 2,
            "fp32_gmacs": [50.0, 100.0],
            "gbytes": {"L1": {"bytes": 1, "read": [9.0, 18.0], "copy": [5.0, 10.0]}},
            "kernels": [],
            "kernels_printed": ["ISA avx2", "  ternary_linear 2.50 of the fp32 peak"],
        },
        "agreement": [{"shape": "tiny", "engine": INT8, "largest_difference": 0.002}],
        "cells": cells(1, 16, {OURS: 2.0, INT8: 5.0, OTHER: 4.0})
        + cells(8, 128, {OURS: 30.0, INT8: 45.0, OTHER: 24.0}),
        "busy_elsewhere": {"tiny, 2 threads": 0.01},
        "processes": [
            process | {"engine": OURS, "load_ms": 90.0, "peak_bytes": 50 << 20},
            process | {"engine": INT8, "load_ms": 80.0, "peak_bytes": 100 << 20},
        ],
        "texts": {
            "shape": "tiny",
            "threads": 2,
            "skipped": {"paragraphs": "the folder is absent"},
            "sets": [
                {
                    "name": "SST-2 dev",
                    "texts": 8,
                    "rounds": 1,
                    "mean_tokens": 20.0,
                    "truncated": 0,
                    "rows": [
                        {"engine": OURS, "texts_per_second": 90.0, "tokens_per_second": 1800.0},
                        {"engine": INT8, "texts_per_second": 100.0, "tokens_per_second": 2000.0},
                    ],
                }
            ],
        },
        "minutes": {"building": 1.0, "measuring": 2.0},
    }


def test_ratios_are_to_the_baseline_and_to_the_best_peer() -> None:
    (one,) = standing("tiny", 2, "1 × 16", {OURS: 2.0, INT8: 5.0, OTHER: 4.0}, "ms")
    assert (one.best_peer, one.to_best, one.to_baseline, one.faster) == (OTHER, 2.0, 2.5, True)
    (rate,) = standing("tiny", 2, "texts", {OURS: 90.0, INT8: 100.0}, "texts/s", more_is_better=True)
    assert (rate.best_peer, rate.to_best, rate.faster) == (INT8, 0.9, False)


def test_level_with_the_best_peer_is_not_faster() -> None:
    (one,) = standing("tiny", 2, "1 × 16", {OURS: 4.0, OTHER: 4.0}, "ms")
    assert not one.faster
    assert one.to_baseline is None
    assert standing("tiny", 2, "1 × 16", {OURS: 4.0}, "ms") == []


def test_every_kind_of_figure_is_held_against_the_peers(result: dict[str, Any]) -> None:
    found = [(one.what, round(one.to_best, 2), one.faster) for one in standings(result)]
    assert found == [
        ("1 × 16", 2.0, True),
        ("8 × 128", 0.8, False),
        ("SST-2 dev", 0.9, False),
        ("load time", 0.89, False),
        ("peak memory", 2.0, True),
    ]


def test_first_matching_reason_explains_and_the_rest_comes_first(result: dict[str, Any]) -> None:
    losses = [one for one in standings(result) if not one.faster]
    reasons = [
        Reason("large batches", what="8 × *", engine="tern*"),
        Reason("other engine", engine="binary*"),
        Reason("any cell", what="8 × 128"),
        Reason("texts", what="SST-2*"),
    ]
    found = {text: [one.what for one in rows] for text, rows in explain(losses, reasons).items()}
    assert list(found.items()) == [
        (UNEXPLAINED, ["load time"]),
        ("large batches", ["8 × 128"]),
        ("texts", ["SST-2 dev"]),
    ]


def test_reasons_of_the_repository_are_well_formed() -> None:
    assert all(isinstance(reason, Reason) and reason.text for reason in read_reasons())
    assert {bar.what for bar in read_bars(performance_page.REASONS)} == {"faster", "texts", "threads", "overhead"}


def test_page_marks_and_lists_what_is_not_faster(result: dict[str, Any]) -> None:
    text = page(result, [Reason("Because of attention.", what="8 × 128")], "performance.svg")
    assert f"| {OURS} | **2** | 30 {MARK} |" in text
    assert f"| {OURS} | 2.50 / 2.00 | 1.50 / 0.80 {MARK} |" in text
    assert f"| {OURS} | 90.0 {MARK} | 1800 |" in text
    assert "3 of 5 figures" in text
    assert f"| {OURS} | tiny | 2 | 8 × 128 | 30 ms | {OTHER} | 0.80 |" in text
    assert text.index(UNEXPLAINED) < text.index("Because of attention.")
    for piece in ("performance.svg", "--quick", "bitpress int3: no recipe", "the folder is absent", "torch 2.13.0"):
        assert piece in text


def test_page_says_what_further_threads_are_worth(result: dict[str, Any]) -> None:
    assert "threads against" not in page(result, [])
    result["scaling"] = {"shape": "tiny", "threads": [1, 2], "rows": [{"engine": OURS, "ms": [9.0, 4.8]}]}
    text = page(result, [])
    assert "## 2 threads against 1\n" in text
    assert f"| {OURS} | 9 | 4.8 | 1.88 |" in text


def test_bars_are_read_off_the_run_and_missed_ones_say_why(result: dict[str, Any]) -> None:
    result["scaling"] = {"shape": "tiny", "threads": [1, 2], "rows": [{"engine": OURS, "ms": [9.0, 4.8]}]}
    shares = {"ffn_up": 0.6, "attention": 0.15, "softmax": 0.05, "waiting": 0.12, "layer_norm": 0.08}
    rows = [{"operation": name, "share": share} for name, share in shares.items()]
    result["explained"] = {OURS: [*rows, {"operation": "tokenization", "share": None}]}
    bars = [
        Bar("ternary", "faster", 2.4, cell="1 × 16", shape="tiny"),
        Bar("ternary", "faster", 1.6, cell="8 × 128", shape="tiny", why="The cores are busy."),
        Bar("ternary", "texts", 2.0, cell="SST-2 dev"),
        Bar("ternary", "threads", 1.8, shape="tiny"),
        Bar("ternary", "overhead", 0.15, shape="tiny"),
        Bar("binary", "faster", 6.0, cell="1 × 16", shape="tiny"),
    ]
    text = page(result, [], None, bars)
    section = text[text.index("## What the engine is held to") : text.index("## Latency")]
    assert [line.split(" | ")[2:] for line in section.splitlines() if line.startswith(f"| {OURS}")] == [
        ["at least 2.40 ×", "2.50 ×", "yes |"],
        ["at least 1.60 ×", "1.50 ×", "no |"],
        ["at least 2.00 ×", "0.90 ×", "no |"],
        ["at least 1.80 ×", "1.88 ×", "yes |"],
        ["at most 15 %", "13 %", "yes |"],
    ]
    assert "against ONNX Runtime int8: The cores are busy.\n" in section
    assert "against the best peer: not explained yet." in section


def test_page_without_texts_and_without_losses(result: dict[str, Any]) -> None:
    result["texts"]["sets"] = []
    result["cells"] = result["cells"][:3]
    result["processes"] = []
    assert "0 of 1 figures" in page(result, [])


def test_plain_text_has_the_same_figures_in_columns(result: dict[str, Any]) -> None:
    lines = plain_text(result).splitlines()
    rows = [line for line in lines if line.startswith(OURS)]
    assert rows[0].split()[-3:] == ["2", "30", MARK]
    assert "|" not in "".join(lines)
    assert "**" not in "".join(lines)


def test_page_is_written_by_the_command(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "peers.json"
    file.write_text(json.dumps(result), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["performance_page.py", str(file)])
    assert performance_page.main() == 0
    assert capsys.readouterr().out == page(result, read_reasons())


@pytest.mark.parametrize(("engines", "rounds"), [(2, 4), (3, 3), (12, 3), (12, 5), (1, 2)])
def test_turns_rotate(engines: int, rounds: int) -> None:
    names = [f"engine {i}" for i in range(engines)]
    orders = [turns(names, i, rounds) for i in range(rounds)]
    assert orders[0] == names
    for order in orders:
        assert sorted(order) == sorted(names)
    # Nobody begins more often than it must: with two engines and four rounds each begins twice.
    first = Counter(order[0] for order in orders)
    assert max(first.values()) == -(-rounds // engines)


@pytest.mark.parametrize(
    ("ms", "expected"),
    [(1.0, Plan(5, (10, 10))), (50.0, Plan(1, (3, 3))), (80.0, Plan(1, (1, 1))), (900.0, Plan(1, (1, 1)))],
)
def test_bursts_fill_their_time(ms: float, expected: Plan) -> None:
    assert plan(ms, 0.15, 2) == expected


def test_measure_counts_bursts_where_they_have_a_length(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "PAUSE_SECONDS", 0.0)
    (row,) = measure({"ours": artifact}, [Cell(1, 3)], threads=1, repeats=2, burst_seconds=0.1)["rows"]
    # A tiny model fills 0.1 s many times over, so a burst is the most that one may be.
    assert (row["repeats"], row["warmup"]) == (20, 5)


def test_measure_takes_threads_by_name(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "PAUSE_SECONDS", 0.0)
    models = {"one": artifact, "two": artifact}
    rows = measure(models, [Cell(1, 4)], threads={"one": 1, "two": 2}, repeats=2)["rows"]
    assert {row["model"]: row["threads"] for row in rows} == {"one": 1, "two": 2}


def test_texts_run_by_length_and_come_back_in_order() -> None:
    assert batches_of_like_length([3, 9, 1, 9, 4], 2) == [[1, 3], [4, 0], [2]]
    seen: list[list[int]] = []

    def forward(batch: dict[str, list[list[int]]]) -> list[int]:
        seen.append([len(ids) for ids in batch["ids"]])
        assert seen[-1] == [len(types) for types in batch["type_ids"]]
        return seen[-1]

    def encode(texts: list[str]) -> dict[str, list[list[int]]]:
        return {"ids": [[1] * len(text) for text in texts], "type_ids": [[0] * len(text) for text in texts]}

    texts = ["a" * (1 + i % 7) for i in range(40)]
    assert in_batches_of_like_length(encode, forward)(texts) == [len(text) for text in texts]
    assert [len(lengths) for lengths in seen] == [32, 8]
    assert [length for lengths in seen for length in lengths] == sorted(map(len, texts), reverse=True)


@pytest.mark.parametrize("kind", ["artifact", "checkpoint"])
def test_worker_answers_texts(kind: str, request: pytest.FixtureRequest) -> None:
    with Worker(request.getfixturevalue(kind), threads=1, texts=True) as worker:
        assert worker.receive() == {}
        assert worker.request({"texts": ["good", "the film is very bad"]})["ms"] > 0


def test_worker_returns_logits_to_compare(checkpoint: Path) -> None:
    batch = {"ids": [[2, 5, 3], [2, 5, 6, 3]], "type_ids": [[0] * 3, [0] * 4]}
    with Worker(checkpoint, threads=1) as worker:
        worker.receive()
        logits = worker.request({"op": "logits", "batch": batch})["logits"]
    assert len(logits) == 2
    assert largest_difference(logits, logits) == 0


def test_largest_difference() -> None:
    assert largest_difference([[1.0, 2.0], [0.0, 0.0]], [[1.0, 2.5], [-1.0, 0.0]]) == 1.0


def test_the_command_that_is_printed_names_no_place_of_this_machine() -> None:
    given = ["--work", "/mnt/x", "--threads", "2", "1", "--json=/mnt/y", "--quick"]
    assert portable(given) == ["--threads", "2", "1", "--quick"]


def test_padding_of_peers() -> None:
    found = peer_worker.padded({"ids": [[5, 6, 7], [8]], "type_ids": [[0, 1, 1], [1]]})
    assert found["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert found["token_type_ids"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert {array.dtype.name for array in found.values()} == {"int64"}


def test_absent_data_is_skipped_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_texts, "DATA", tmp_path)
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "dev.tsv").write_text('sentence\tlabel\na "film\t1\n', encoding="utf-8")
    sets, skipped = peer_texts.text_sets(quick=False)
    assert [(one.name, one.texts) for one in sets] == [("SST-2 dev", ['a "film'])]
    assert "BITPRESS_DATA" in skipped["paragraphs"]
