"""Latency: the arithmetic against values by hand, the workers against the models they run."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from bitpress.bench import latency
from bitpress.bench.client import Worker
from bitpress.bench.latency import Cell, make_batches, measure, ratios, summarize
from bitpress.bench.report import bench_rows, busy_warning, engine_lines, machine_line, short_names
from bitpress.errors import BitpressError, EngineError

KEYS = {"model", "batch", "length", "threads", "median_ms", "min_ms", "p95_ms", "isa", "warmup", "repeats", "engine"}


@pytest.mark.parametrize(
    ("times", "median", "p95"),
    [([5.0], 5, 5), ([3.0, 1.0], 2, 3), ([float(i) for i in range(20, 0, -1)], 10.5, 19), ([1.0] * 99 + [9.0], 1, 1)],
)
def test_summary_of_times(times: list[float], median: float, p95: float) -> None:
    assert summarize(times) == {"median_ms": median, "min_ms": min(times), "p95_ms": p95}


def test_ratios_are_to_the_first_model() -> None:
    def row(model: str, length: int, median: float) -> dict[str, Any]:
        return {"model": model, "batch": 1, "length": length, "median_ms": median}

    rows = [row("a", 16, 2.0), row("b", 16, 5.0), row("a", 128, 4.0), row("b", 128, 2.0)]
    assert [(r["vs"], r["length"], r["ratio"]) for r in ratios(rows)] == [("b", 16, 2.5), ("b", 128, 0.5)]
    assert ratios([]) == []


def test_random_batches_are_the_same_for_every_model_and_inside_the_vocabulary() -> None:
    one, other = (make_batches("anywhere", Cell(3, 17), None, 7) for _ in range(2))
    assert one == other
    ids = [token for batch in one for row in batch["ids"] for token in row]
    assert all(0 <= token < 7 for token in ids)
    assert {len(row) for batch in one for row in batch["ids"]} == {17}
    assert {len(batch["ids"]) for batch in one} == {3}
    assert len({str(batch) for batch in one}) == len(one)


def test_text_batches_are_full_cut_and_in_file_order(artifact: Path) -> None:
    batches = make_batches(artifact, Cell(2, 5), ["good", "the film is very bad", "bad"], 0)
    lengths = [[len(row) for row in batch["ids"]] for batch in batches]
    assert lengths == [[3, 5], [3, 3]]  # the last batch starts over at "good"
    assert batches[1]["ids"][1] == batches[0]["ids"][0]
    assert [[len(row) for row in batch["type_ids"]] for batch in batches] == lengths


def test_both_engines_are_measured_side_by_side(
    artifact: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "PAUSE_SECONDS", 0.0)
    grid = [Cell(1, 3), Cell(2, 7)]
    seen: list[str] = []
    models = {"ours": artifact, "theirs": checkpoint}
    result = measure(models, grid, threads=1, warmup=1, repeats=6, progress=seen.append)
    assert [(r["model"], r["batch"], r["length"]) for r in result["rows"]] == [
        ("ours", 1, 3),
        ("theirs", 1, 3),
        ("ours", 2, 7),
        ("theirs", 2, 7),
    ]
    for row in result["rows"]:
        assert row.keys() >= KEYS
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["p95_ms"]
        assert (row["threads"], row["repeats"], row["warmup"]) == (1, 6, 1)
    assert [row["engine"].split()[0] for row in result["rows"][:2]] == ["bitpress", "PyTorch"]
    first = result["ratios"][0]
    assert math.isclose(first["ratio"], result["rows"][1]["median_ms"] / result["rows"][0]["median_ms"])
    assert len(seen) == 2
    columns, rows = bench_rows(result)
    assert all(len(row) == len(columns) for row in rows)
    assert rows[0][-1] == "1.00"
    assert [line.split(":")[0] for line in engine_lines(result)] == ["ours", "theirs"]
    assert "1 of" in machine_line(result)


def test_worker_of_a_checkpoint_agrees_with_transformers_on_a_ragged_batch(checkpoint: Path) -> None:
    # Oracle: each sequence alone through transformers, without padding or mask.
    import torch
    import transformers

    from bitpress.bench.worker import load_checkpoint

    ids = [[2, 5, 6, 3], [2, 7, 3], [2, 8, 9, 10, 11, 3]]
    types = [[0, 0, 1, 1], [0, 0, 0], [0, 0, 0, 1, 1, 1]]
    ours = load_checkpoint(checkpoint, threads=1).forward({"ids": ids, "type_ids": types})
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    for row, one, kinds in zip(ours, ids, types, strict=True):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([one]), token_type_ids=torch.tensor([kinds])).logits[0]
        assert torch.allclose(torch.from_numpy(row), alone, atol=1e-6)


def test_a_busy_machine_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([(0, 0), (0, 10), (100, 200), (103, 210)])
    monkeypatch.setattr(latency, "_processor_ticks", lambda: next(ticks))
    monkeypatch.setattr(latency, "PAUSE_SECONDS", 0.0)
    watch = latency.Watch()
    assert watch.busy_share() == 0
    watch.pause()
    assert watch.busy_share() == 0
    watch.pause()
    assert watch.busy_share() == 3 / 20
    assert "15 % of the processors" in str(busy_warning(3 / 20))
    assert busy_warning(0.1) is None


def test_ticks_of_the_processors_never_run_backwards() -> None:
    busy, total = latency._processor_ticks()
    later_busy, later_total = latency._processor_ticks()
    assert 0 < busy <= later_busy
    assert 0 < total <= later_total
    assert busy < total


def test_models_are_called_by_the_last_part_of_their_path() -> None:
    assert short_names(["a/small", "a/small", "teacher/", "."]) == {"a/small": "small", "teacher/": "teacher", ".": "."}
    assert short_names(["a/small", "b/small"]) == {"a/small": "a/small", "b/small": "b/small"}


@pytest.mark.parametrize(
    ("grid", "options", "text"),
    [
        ([], {}, "nothing to measure"),
        ([Cell(1, 41)], {}, "takes 1 to 40 tokens"),
        ([Cell(1, 0)], {}, "takes 1 to 40 tokens"),
        ([Cell(1, 2)], {"texts": ["good"]}, "takes 3 to 40 tokens"),
        ([Cell(0, 8)], {}, "batch size 0"),
        ([Cell(1, 8)], {"threads": 0}, "threads = 0"),
        ([Cell(1, 8)], {"repeats": 0}, "repeats = 0"),
        ([Cell(1, 8)], {"warmup": -1}, "warmup = -1"),
        ([Cell(1, 8)], {"texts": []}, "file of texts is empty"),
    ],
)
def test_impossible_measurements_are_refused(
    grid: list[Cell], options: dict[str, Any], text: str, checkpoint: Path
) -> None:
    with pytest.raises(BitpressError, match=text):
        measure({"model": checkpoint}, grid, **options)


def test_error_of_a_worker_keeps_its_type(tmp_path: Path) -> None:
    with Worker(tmp_path / "no", threads=1) as worker, pytest.raises(BitpressError, match="found nothing") as caught:
        worker.receive()
    assert type(caught.value) is BitpressError


def test_other_errors_of_a_worker_name_type_and_model(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    with Worker(broken, threads=1) as worker, pytest.raises(EngineError, match="broken: OSError: "):
        worker.receive()


def test_missing_package_of_a_worker_is_told_by_name(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    with Worker(checkpoint, threads=1) as worker, pytest.raises(ModuleNotFoundError) as caught:
        worker.receive()
    assert caught.value.name == "torch"


def test_killed_worker_is_reported_and_leaves_nothing_behind(artifact: Path) -> None:
    with Worker(artifact, threads=1) as worker:
        worker.receive()
        worker._process.kill()
        with pytest.raises(EngineError, match="ended by signal 9"):
            worker.request({"op": "prepare", "batches": []})
    assert worker._process.poll() is not None


def test_worker_ends_with_its_owner(artifact: Path) -> None:
    # A killed owner cannot close anything; its end of the pipe closes by itself.
    worker = Worker(artifact, threads=1)
    worker.receive()
    assert worker._process.stdin is not None
    worker._process.stdin.close()
    deadline = time.monotonic() + 30
    while worker._process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    code = worker._process.poll()
    worker.close()
    assert code == 0
