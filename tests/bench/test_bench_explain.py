"""Where time goes. Oracles: multiply-adds by hand, and the sum of the parts against the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import make_artifact

from bitpress.artifact import read_artifact
from bitpress.bench.explain import explain, multiply_adds
from bitpress.bench.latency import Cell
from bitpress.bench.report import explain_tables
from bitpress.runtime.native import OPERATIONS


def test_operations_add_up_to_the_pass(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITPRESS_ISA", raising=False)
    cells = [Cell(1, 5), Cell(3, 17)]
    result = explain(artifact, cells, threads=1, repeats=3)
    assert result["threads"] == 1
    assert result["isa"] in result["isa_reason"]
    assert result["fp32_peak"] > 1e8  # a tenth of a multiply-add a cycle of a slow CPU
    for cell in cells:
        rows = [row for row in result["rows"] if (row["batch"], row["length"]) == (cell.batch, cell.length)]
        assert [row["operation"] for row in rows] == [*OPERATIONS, "tokenization"]
        assert sum(row["share"] for row in rows[:-1]) == pytest.approx(1)
        kernels = {row["operation"]: row["kernel"] for row in rows if "kernel" in row}
        assert kernels["ffn_up"] == "8-bit × ternary 2-bit"
        assert kernels["attention"] == "8-bit × 8-bit"
        assert all(0 < row["of_fp32_peak"] < 100 for row in rows if "kernel" in row)
    tables = list(explain_tables(result))
    assert [columns[0] for columns, _ in tables] == ["1 × 5 tokens", "3 × 17 tokens"]
    assert all(len(row) == len(columns) for columns, rows in tables for row in rows)


def test_multiply_adds_by_hand(artifact: Path) -> None:
    config = read_artifact(artifact).config
    h, i, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    work = multiply_adds(config, Cell(2, 7))
    assert work["query_key_value"] == layers * 14 * 2 * h * h + ((layers - 1) * 14 + 2) * h * h
    assert work["attention"] == 2 * ((layers - 1) * (7 * 7 * h + 7 * 7 * h) + 7 * h + 7 * h)
    assert work["attention_output"] == ((layers - 1) * 14 + 2) * h * h
    assert work["ffn_up"] == work["ffn_down"] == ((layers - 1) * 14 + 2) * h * i
    assert work["head"] == 2 * (h * h + h * config.num_labels)


def test_multiply_adds_of_a_classifier_of_tokens_by_hand(tmp_path: Path) -> None:
    """2 layers of 24 columns and 36 inside, 3 classes; 5 texts of 7 tokens, all of which go to the end."""
    tagger = make_artifact(tmp_path / "tagger", tokens=True)
    assert multiply_adds(read_artifact(tagger).config, Cell(5, 7)) == {
        "query_key_value": 2 * 3 * 35 * 24 * 24,
        "attention": 2 * 5 * 2 * 7 * 7 * 24,
        "attention_output": 2 * 35 * 24 * 24,
        "ffn_up": 2 * 35 * 24 * 36,
        "ffn_down": 2 * 35 * 24 * 36,
        "head": 35 * 24 * 3,
    }
    result = explain(tagger, [Cell(2, 5)], threads=1, repeats=1)
    kernels = {row["operation"]: row["kernel"] for row in result["rows"] if "kernel" in row}
    assert kernels["head"] == "fp32 × fp32"
