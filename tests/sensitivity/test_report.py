"""Ω, errors, settings and the file. Oracles: the worked examples of the specification, formulas written out, and
files with one thing wrong each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitpress.errors import DataError, RecipeError
from bitpress.sensitivity import (
    BlockSensitivity,
    SampleMeasurement,
    SensitivityReport,
    SensitivitySettings,
    load_sensitivity,
    save_sensitivity,
)


def block(name: str, eigenvalues: tuple[float, ...], traces: tuple[tuple[float, ...], ...] = ()) -> BlockSensitivity:
    samples = tuple(
        SampleMeasurement(
            value, 0.01, i % 2 == 0, 3, traces[i] if traces else (), 3 + (len(traces[i]) if traces else 0)
        )
        for i, value in enumerate(eigenvalues)
    )
    return BlockSensitivity(name, (f"{name}.weight",), 10, samples)


EXAMPLES = {
    "A": (8.0, 9.0, 7.0, 8.0),
    "B": (1.0, 1.0, 30.0, 2.0),
    "C": (-3.0, -2.0, -3.0, -4.0),
    "D": (0.5, 0.6, 0.4, 0.5),
}


def report() -> SensitivityReport:
    settings = SensitivitySettings(samples=4, probes=2)
    blocks = tuple(block(name, values, ((1.0, 2.0), (), (4.0,), ())) for name, values in EXAMPLES.items())
    return SensitivityReport(settings, "w", "d", 12, 120, blocks, 1.5)


def test_omega_of_the_worked_examples_and_their_order() -> None:
    found = {b.name: b.omega for b in report().blocks}
    expected = {"A": 8.707, "B": 20.920, "C": 3.707, "D": 0.571}
    assert found == pytest.approx(expected, abs=6e-4)
    assert [b.name for b in report().ranking()] == ["B", "A", "C", "D"]
    assert {b.name: b.negative for b in report().blocks} == {"A": 0, "B": 0, "C": 4, "D": 0}


def test_errors() -> None:
    values = EXAMPLES["B"]
    without = [abs(np.mean(rest)) + np.std(rest) for i in range(4) for rest in [np.delete(values, i)]]
    assert block("x", values).omega_error == pytest.approx(math.sqrt(0.75 * np.sum((without - np.mean(without)) ** 2)))
    assert block("x", (2.0,) * 5).omega_error == 0
    assert block("x", (2.0, 1.0)).omega_error is None
    several = block("x", (1.0, 1.0, 1.0), ((1.0, 3.0), (), (5.0,)))
    assert (several.trace, several.trace_error) == (3.5, pytest.approx(np.std([2.0, 5.0], ddof=1) / math.sqrt(2)))
    one = block("x", (1.0,), ((1.0, 3.0, 5.0),))
    assert (one.trace, one.trace_error) == (3.0, pytest.approx(2 / math.sqrt(3)))
    assert (block("x", (1.0,), ((4.0,),)).trace_error, block("x", (1.0,)).trace) == (None, 0.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"samples": 0}, "samples is 0; allowed: an integer of at least 1"),
        ({"seed": -1}, "seed is -1; allowed: an integer of at least 0"),
        ({"probes": 1.5}, "probes is 1.5; allowed: an integer of at least 0"),
        ({"tokens": True}, "tokens is True"),
        ({"share": 1.2}, "share is 1.2; allowed: above 0 and at most 1"),
        ({"tolerance": 0}, "tolerance is 0; allowed: above 0"),
        ({"max_products": 26}, "10 samples of at least 2 iterations and 7 probes need 27"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        SensitivitySettings(**change)


@pytest.mark.parametrize(("samples", "probes"), [(10, 7), (3, 3), (4, 0), (2, 9), (1, 5)])
def test_probes_are_spread_over_the_samples(samples: int, probes: int) -> None:
    settings = SensitivitySettings(samples=samples, probes=probes)
    each = [settings.probes_of(i) for i in range(samples)]
    assert sum(each) == probes
    assert max(each) - min(each) <= 1


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = save_sensitivity(report(), tmp_path / "sens")
    assert load_sensitivity(tmp_path / "sens") == load_sensitivity(path) == report()
    document = json.loads(path.read_text())
    assert document["blocks"][2]["omega"] == pytest.approx(3.707, abs=1e-3)
    assert (document["blocks"][2]["positive"], document["blocks"][2]["negative"]) == (0, 4)
    assert [p.name for p in path.parent.iterdir()] == ["sensitivity.json"]


def broken(change: str) -> str:
    """The file with ``change`` made to it."""
    document = json.loads(json.dumps(_document()))
    first = document["blocks"][0]
    exec(change, {"d": document, "b": first, "s": first["samples"][0]})
    return json.dumps(document)


def _document() -> dict[str, Any]:
    from bitpress.sensitivity.report_file import as_document

    return as_document(report())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("d['format'] = 2", "format is 2; allowed: 1"),
        ("del d['format']", "format is None; allowed: 1"),
        ("del d['blocks']", "blocks is missing"),
        ("d['blocks'] = []", "blocks is empty"),
        ("d['blocks'] = {}", "blocks is {}; a list is expected"),
        ("d['more'] = 1", "more is unknown; allowed: format"),
        ("d['texts'] = 0", "texts is 0; allowed: at least 1"),
        ("d['tokens'] = 1.5", "tokens is 1.5; a int is expected"),
        ("d['seconds'] = '1'", "seconds is '1'; a float is expected"),
        ("d['settings']['samples'] = 3", "has 4 samples; settings.samples is 3"),
        ("d['settings']['share'] = 2", "settings has a value out of range: share is 2"),
        ("del d['settings']['seed']", "settings.seed is missing"),
        ("d['blocks'][1]['name'] = 'A'", "blocks has a name twice"),
        ("b['parameters'] = []", r"blocks\[0\].parameters must be names"),
        ("b['size'] = True", r"blocks\[0\].size is True; a int is expected"),
        ("b['samples'] = []", r"blocks\[0\].samples is empty"),
        ("b['omega'] = 9.0", r"blocks\[0\].omega is 9.0, but its samples give 8.707"),
        ("b['omega_error'] = None", r"blocks\[0\].omega_error is None, but"),
        ("s['eigenvalue'] = 8.1", r"blocks\[0\].omega is 8.707"),
        ("s['converged'] = 1", r"samples\[0\].converged is 1; a bool is expected"),
        ("s['iterations'] = 0", r"samples\[0\].iterations is 0; allowed: at least 1"),
        ("s['traces'] = ['x']", r"samples\[0\].traces is 'x'; a float is expected"),
        ("s['note'] = ''", r"samples\[0\].note is unknown"),
    ],
)
def test_a_damaged_file_is_refused_by_the_key(change: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.json"
    path.write_text(broken(change))
    with pytest.raises(DataError, match=text) as caught:
        load_sensitivity(tmp_path)
    assert str(path) in str(caught.value)


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .*`bitpress sensitivity TEACHER"):
        load_sensitivity(tmp_path)
    path = tmp_path / "other.json"
    for text, problem in (
        ("{", "is not JSON"),
        ("[]", "the file is a JSON list"),
        ('{"format": NaN}', "NaN is no JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=problem):
            load_sensitivity(path)
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match="is not JSON"):
        load_sensitivity(path)
