"""Units of the command line: overrides, JSON, number formats. Oracle: values written out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitpress.cli.options import parse_overrides
from bitpress.cli.output import emit_json, format_bytes, format_metric, format_ms, format_ratio
from bitpress.errors import RecipeError


def test_overrides_take_json_values_and_strings() -> None:
    given = ["epochs=3", "lr=5e-5", "freeze=false", "clip=null", "range=static", "name=a=b", "empty="]
    assert parse_overrides(given) == {
        "epochs": 3,
        "lr": 5e-5,
        "freeze": False,
        "clip": None,
        "range": "static",
        "name": "a=b",
        "empty": "",
    }
    assert parse_overrides(None) == {}


@pytest.mark.parametrize("wrong", ["epochs", "=3", " =3", ""])
def test_override_without_key_or_value_is_refused(wrong: str) -> None:
    with pytest.raises(RecipeError, match="expected KEY=VALUE"):
        parse_overrides([wrong])


def test_override_given_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match="epochs: given twice"):
        parse_overrides(["epochs=1", "epochs=2"])


def test_shorthands_are_overrides() -> None:
    assert parse_overrides(["warmup=0"], epochs=2.0, max_length=None) == {"epochs": 2.0, "warmup": 0}
    with pytest.raises(RecipeError, match="max_length: given twice, also as --max-length"):
        parse_overrides(["max_length=8"], max_length=9)


def test_json_takes_numpy_paths_and_non_finite_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": float("nan"), "d": Path("x"), "e": (np.inf, "ü")}
    emit_json(value)
    assert json.loads(capsys.readouterr().out) == {"a": 0.5, "b": [0, 1], "c": None, "d": "x", "e": [None, "ü"]}


def test_formats() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 29_435_625, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "28.1 MiB",
        "3.00 GiB",
    ]
    assert [format_ms(t) for t in (0.123, 12.34, 123.4, 1234)] == ["0.12 ms", "12.3 ms", "123 ms", "1.23 s"]
    assert [format_ratio(r) for r in (0.5, 9.99, 14.88)] == ["0.50×", "9.99×", "14.9×"]
    assert [format_metric("accuracy", 0.9), format_metric("macro_f1", 0.5), format_metric("pearson", 0.875)] == [
        "90.00 %",
        "50.00 %",
        "87.50",
    ]
