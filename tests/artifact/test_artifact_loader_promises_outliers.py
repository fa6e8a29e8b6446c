"""What the reader promises about outliers of codebooks that lie: one test a lie, named after it.

Which number or place is changed is in the test; the oracle is the rule in docs/artifact.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_samples import edit_config, edit_entry, edit_header, make_gobo_config, quantization, refused, write_sample

from bitpress.artifact import Outliers, read_artifact

QUERY = "layers.0.attention.query.weight"
KEY = "layers.0.attention.key.weight"  # without outliers


@pytest.fixture
def gobo(tmp_path: Path) -> Path:
    write_sample(tmp_path / "gobo", make_gobo_config())
    return tmp_path / "gobo"


def outliers_of(path: Path) -> Outliers:
    found = read_artifact(path).outliers(QUERY)
    assert found is not None
    return found


def set_keys(path: Path, name: str, **keys: Any) -> None:
    edit_config(path, lambda d: quantization(d)["tensors"][name].update(keys))


@pytest.mark.parametrize("number", [0, -1, 22 * 22 + 1, 8.0, True, None, "8"])
def test_number_of_outliers_out_of_bounds(gobo: Path, number: Any) -> None:
    set_keys(gobo, QUERY, outliers=number)
    error = refused(gobo, r"outliers is .*; from 1 to 484, the number of weights, is expected, or no such key")
    assert error.tensor == QUERY


def test_outliers_of_another_scheme(gobo: Path) -> None:
    entry = {"scheme": "ternary", "bits": 2, "packing": "2bit", "group": "matrix", "shape": [22, 22], "outliers": 8}
    edit_config(gobo, lambda d: quantization(d)["tensors"].update({QUERY: entry}))
    assert refused(gobo, "entry has the keys .*'outliers'.*; ternary has exactly").tensor == QUERY


def test_outlier_entries_disagree_with_their_number(gobo: Path) -> None:
    number = outliers_of(gobo).values.size
    set_keys(gobo, QUERY, outliers=number + 1)
    refused(gobo, rf"is U16 \[{number}\] in model.safetensors; the config gives U16 \[{number + 1}\]")


def test_outlier_entries_missing_or_unexpected(gobo: Path) -> None:
    set_keys(gobo, KEY, outliers=2)
    assert refused(gobo, r"is missing from model.safetensors; U16 \[22\] is expected").tensor == f"{KEY}.outlier_counts"
    edit_config(gobo, lambda d: quantization(d)["tensors"][KEY].pop("outliers"))
    edit_config(gobo, lambda d: quantization(d)["tensors"][QUERY].pop("outliers"))
    refused(gobo, "stands in model.safetensors but the config has no such tensor")


@pytest.mark.parametrize("by", [1, -1, 256])
def test_outlier_counts_disagree_with_their_number(gobo: Path, by: int) -> None:
    counts = outliers_of(gobo).counts
    row, number = int(counts.argmax()), int(counts.sum())
    edit_entry(gobo, f"{QUERY}.outlier_counts", lambda a: a.__setitem__(row, int(a[row]) + by))
    error = refused(gobo, f"the counts of the rows add up to {number + by}; the tensor has {number} outliers")
    assert error.tensor == f"{QUERY}.outlier_counts"


@pytest.mark.parametrize("column", [22, 256, 65535])
def test_outlier_column_out_of_range(gobo: Path, column: int) -> None:
    outliers = outliers_of(gobo)
    last = outliers.columns.size - 1
    row = int(np.flatnonzero(outliers.counts)[-1])
    edit_entry(gobo, f"{QUERY}.outlier_columns", lambda a: a.__setitem__(last, column))
    error = refused(gobo, f"value {last} is {column}; row {row} has the columns 0 to 21")
    assert error.tensor == f"{QUERY}.outlier_columns"


def two_in_a_row(outliers: Outliers) -> tuple[int, int]:
    """The second outlier of a row with two, and that row."""
    row = int(np.flatnonzero(outliers.counts >= 2)[0])
    return int(outliers.counts[:row].sum()) + 1, row


def test_outlier_columns_out_of_order(gobo: Path) -> None:
    at, row = two_in_a_row(outliers_of(gobo))
    edit_entry(gobo, f"{QUERY}.outlier_columns", lambda a: a.__setitem__([at - 1, at], a[[at, at - 1]]))
    refused(gobo, rf"value {at} is \d+ after \d+; the columns of row {row} must ascend")


def test_outlier_twice_in_one_place(gobo: Path) -> None:
    at, row = two_in_a_row(outliers_of(gobo))
    edit_entry(gobo, f"{QUERY}.outlier_columns", lambda a: a.__setitem__(at, a[at - 1]))
    refused(gobo, rf"value {at} is (\d+) after \1; the columns of row {row} must ascend")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outlier_not_finite(gobo: Path, value: float) -> None:
    edit_entry(gobo, f"{QUERY}.outliers", lambda a: a.__setitem__(2, value))
    assert refused(gobo, f"value 2 is {value}; only finite numbers are allowed").tensor == f"{QUERY}.outliers"


def test_outlier_that_would_leave_fp32(gobo: Path) -> None:
    edit_entry(gobo, f"{QUERY}.outliers", lambda a: a.__setitem__(1, -2e38))
    refused(gobo, "value 1 is -.*, so that weights would leave fp32; at most 1.70141e.38 in size is allowed")


def test_misaligned_outlier_counts(gobo: Path) -> None:
    """The first entry of two bytes an element starts one byte late: so does all that follows."""

    def move(header: dict[str, Any]) -> None:
        start = min(e["data_offsets"][0] for e in header.values() if e["dtype"] == "U16")
        for entry in header.values():
            if entry["data_offsets"][0] >= start:
                entry["data_offsets"] = [offset + 1 for offset in entry["data_offsets"]]

    edit_header(gobo, move, extra=b"\0")
    refused(gobo, "U16 must start on a multiple of 2")
