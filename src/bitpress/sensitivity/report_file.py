"""The file of a measurement, ``sensitivity.json``.

It holds every measured number; what is computed from them (Ω, means, errors) stands beside them for readers without
bitpress, is computed again on reading, and must be the same.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from bitpress.errors import DataError, RecipeError
from bitpress.sensitivity.report import BlockSensitivity, SampleMeasurement, SensitivityReport, SensitivitySettings

FILE = "sensitivity.json"
FORMAT = 1


def as_document(report: SensitivityReport) -> dict[str, Any]:
    """JSON values: what the file holds."""
    document = dataclasses.asdict(report)
    for entry, block in zip(document["blocks"], report.blocks, strict=True):
        entry |= _derived(block)
    plain: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **document}, allow_nan=False))
    return plain


def save_sensitivity(report: SensitivityReport, directory: str | Path) -> Path:
    """Write ``sensitivity.json`` into ``directory``, in one piece or not at all; its path."""
    path = Path(directory) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, as_document(report))
    return path


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace ``path`` by the JSON of ``value``: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _derived(block: BlockSensitivity) -> dict[str, Any]:
    return {
        "omega": block.omega,
        "omega_error": block.omega_error,
        "trace": block.trace,
        "trace_error": block.trace_error,
        "positive": len(block.samples) - block.negative,
        "negative": block.negative,
        "converged": block.converged,
        "products": block.products,
    }


def load_sensitivity(path: str | Path) -> SensitivityReport:
    """Read what :func:`save_sensitivity` wrote.

    Args:
        path: the file, or the directory it is in.

    Raises:
        DataError: no such file, no JSON, another format, or a value that no measurement gives; names the key.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_constant)
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror}); `bitpress sensitivity TEACHER --train F --out DIR` writes it", path
        ) from error
    except ValueError as error:
        raise DataError(f"is not JSON: {error}; measure again", path) from error
    return _Reader(path).report(document)


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


# An integer stands for a number too; True does not stand for 1.
_KINDS: dict[type, tuple[type, ...]] = {float: (float, int), int: (int,), bool: (bool,), str: (str,), list: (list,)}


class _Reader:
    """Checks of one file; every complaint names the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def report(self, document: Any) -> SensitivityReport:
        if isinstance(document, dict) and document.get("format") != FORMAT:
            self._fail("format", f"is {document.get('format')!r}; allowed: {FORMAT}")
        fields = [field.name for field in dataclasses.fields(SensitivityReport)]
        values = self._object(document, "", ["format", *fields])
        settings = self._settings(values["settings"])
        blocks = tuple(self._block(entry, f"blocks[{i}]") for i, entry in enumerate(self._list(values, "blocks", "")))
        if not blocks:
            self._fail("blocks", "is empty; a measurement has at least one")
        names = [block.name for block in blocks]
        if len(set(names)) != len(names):
            self._fail("blocks", "has a name twice")
        for block in blocks:
            if len(block.samples) != settings.samples:
                self._fail(
                    f"blocks {block.name!r}",
                    f"has {len(block.samples)} samples; settings.samples is {settings.samples}",
                )
        return SensitivityReport(
            settings=settings,
            weights_sha256=self._value(values, "weights_sha256", str, ""),
            data_sha256=self._value(values, "data_sha256", str, ""),
            texts=self._value(values, "texts", int, "", 1),
            tokens=self._value(values, "tokens", int, "", 1),
            blocks=blocks,
            seconds=self._value(values, "seconds", float, "", 0),
        )

    def _settings(self, entry: Any) -> SensitivitySettings:
        values = self._object(entry, "settings", [field.name for field in dataclasses.fields(SensitivitySettings)])
        try:
            return SensitivitySettings(**values)
        except RecipeError as error:
            self._fail("settings", f"has a value out of range: {error}")

    def _block(self, entry: Any, where: str) -> BlockSensitivity:
        keys = ["name", "parameters", "size", "samples", *_derived(BlockSensitivity("", (), 0, (_NOTHING,)))]
        values = self._object(entry, where, keys)
        parameters = self._list(values, "parameters", where)
        if not parameters or not all(isinstance(name, str) and name for name in parameters):
            self._fail(f"{where}.parameters", "must be names of parameters, at least one")
        samples = self._list(values, "samples", where)
        if not samples:
            self._fail(f"{where}.samples", "is empty; a block has one entry a sample")
        block = BlockSensitivity(
            name=self._value(values, "name", str, where),
            parameters=tuple(parameters),
            size=self._value(values, "size", int, where, 1),
            samples=tuple(self._sample(sample, f"{where}.samples[{i}]") for i, sample in enumerate(samples)),
        )
        for key, computed in _derived(block).items():
            stored = values[key]
            number = isinstance(stored, (int, float)) and not isinstance(stored, bool)
            same = stored is None if computed is None else number and math.isclose(stored, computed, rel_tol=1e-9)
            if not same:
                self._fail(f"{where}.{key}", f"is {stored!r}, but its samples give {computed!r}")
        return block

    def _sample(self, entry: Any, where: str) -> SampleMeasurement:
        values = self._object(entry, where, [field.name for field in dataclasses.fields(SampleMeasurement)])
        traces = self._list(values, "traces", where)
        return SampleMeasurement(
            eigenvalue=self._value(values, "eigenvalue", float, where),
            change=self._value(values, "change", float, where, 0),
            converged=self._value(values, "converged", bool, where),
            iterations=self._value(values, "iterations", int, where, 1),
            traces=tuple(self._value({"traces": value}, "traces", float, where) for value in traces),
            products=self._value(values, "products", int, where, 1),
        )

    def _object(self, entry: Any, where: str, keys: list[str]) -> dict[str, Any]:
        if not isinstance(entry, dict):
            self._fail(where or "the file", f"is a JSON {type(entry).__name__}; an object is expected")
        for key in keys:
            if key not in entry:
                self._fail(_join(where, key), "is missing")
        for key in entry:
            if key not in keys:
                self._fail(_join(where, key), f"is unknown; allowed: {', '.join(keys)}")
        return dict(entry)

    def _list(self, values: Mapping[str, Any], key: str, where: str) -> list[Any]:
        found: list[Any] = self._value(values, key, list, where)
        return found

    def _value(self, values: Mapping[str, Any], key: str, kind: type, where: str, least: float | None = None) -> Any:
        value = values[key]
        if type(value) not in _KINDS[kind] or (kind is float and not math.isfinite(value)):
            self._fail(_join(where, key), f"is {value!r}; a {kind.__name__} is expected")
        if least is not None and value < least:
            self._fail(_join(where, key), f"is {value!r}; allowed: at least {least:g}")
        return float(value) if kind is float else value

    def _fail(self, key: str, problem: str) -> NoReturn:
        raise DataError(
            f"{key} {problem}. The file is damaged or of another version of bitpress: measure again", self.path
        )


_NOTHING = SampleMeasurement(0.0, 1.0, False, 1, (), 1)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
