"""Rows of a table to sets of labels: a column that lists them, or one column of 0 and 1 a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.data.tables import MAX_CLASSES, Table, field_value, find_column, listed, require_column
from bitpress.errors import DataError

LABELS_COLUMNS = ("labels", "label", "tags", "categories", "classes", "topics", "emotions")
# Columns that number rows; their first one is often 0 or 1.
_NUMBERING = ("id", "index", "idx", "row", "row_id", "guid", "")
_BITS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}


def read_label_sets(
    table: Table, texts: Sequence[int], asked: str | None, names: Sequence[str] | None, required: bool = True
) -> tuple[NDArray[np.float32] | None, list[str]]:
    """[N, C] with 1 where a row has a label, and the labels' names; (None, names) where labels are not ``required``.

    A column that lists labels, found by common names or ``asked``, holds a JSON list, or names between commas; an empty
    one is no label. Without such a column the labels are all columns but ``texts`` that hold 0 or 1 in the first row;
    ``asked`` names them between commas.

    Args:
        texts: positions of the columns with texts.
        names: labels by index; others are refused. None: those that occur, sorted, or the columns in order.

    Raises:
        DataError: names file, line and column.
    """
    if not required:
        return None, list(names or ())
    column = _list_column(table, texts, asked)
    if column is None:
        columns = _bit_columns(table, texts, asked, names)
        labels = [[_bit(table, line, values, i) for i in columns] for line, values in table.rows]
        return np.array(labels, np.float32), list(names or (table.columns[i] for i in columns))
    if column in texts:
        name = table.columns[column]
        raise DataError("one column cannot be both text and label", table.path, table.header_line, name)
    rows = [_listed_labels(table, line, values, column) for line, values in table.rows]
    known = list(names or sorted({label for row in rows for label in row}))
    _check_count(table, known, table.columns[column])
    index = {name: i for i, name in enumerate(known)}
    found = np.zeros((len(rows), len(known)), np.float32)
    for number, ((line, _), row) in enumerate(zip(table.rows, rows, strict=True)):
        for label in row:
            if label not in index:
                raise DataError(
                    f"unknown label {label[:60]!r}; allowed: {listed(known)}", table.path, line, table.columns[column]
                )
            found[number, index[label]] = 1.0
    return found, known


def _list_column(table: Table, texts: Sequence[int], asked: str | None) -> int | None:
    if asked is not None:
        found = find_column(table, asked)
        return require_column(table, asked, "--label-column") if found is None and "," not in asked else found
    for name in LABELS_COLUMNS:
        found = find_column(table, name)
        if found is not None and found not in texts:
            return found
    return None


def _bit_columns(table: Table, texts: Sequence[int], asked: str | None, names: Sequence[str] | None) -> list[int]:
    """Positions of the columns of 0 and 1, in the order of ``names``."""
    if asked is not None:
        named = [require_column(table, name.strip(), "--label-column") for name in asked.split(",")]
    else:
        first = table.rows[0][1]
        named = [
            i
            for i, name in enumerate(table.columns)
            if i not in texts and name.lower() not in _NUMBERING and i < len(first) and _as_bit(first[i]) is not None
        ]
    if names:
        return [require_column(table, name, "--label-column") for name in names]
    if not named:
        raise DataError(
            f"no labels were found among {listed(table.columns)}; give a column that lists them, such as 'labels', "
            "or one column of 0 and 1 a label, or name them with --label-column",
            table.path,
            table.header_line or 1,
        )
    _check_count(table, [table.columns[i] for i in named], None)
    return named


def _check_count(table: Table, names: Sequence[str], column: str | None) -> None:
    if len(names) < 2:
        raise DataError(
            f"found {len(names)} label ({listed(names)}); at least two are needed, or --task classification",
            table.path,
            table.header_line,
            column,
        )
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"found {len(names)} different labels (allowed: {MAX_CLASSES}); perhaps this column holds the text: name "
            "the labels' with --label-column",
            table.path,
            table.header_line,
            column,
        )


def _as_bit(value: Any) -> float | None:
    return _BITS.get(str(value).strip().lower())


def _bit(table: Table, line: int, values: list[Any], index: int) -> float:
    value = field_value(table, line, values, index)
    bit = _as_bit(value)
    if bit is None:
        raise DataError(
            f"expected 0 or 1, found {value!r:.60}; name the columns of the labels with --label-column a,b if this is "
            "none",
            table.path,
            line,
            table.columns[index],
        )
    return bit


def _listed_labels(table: Table, line: int, values: list[Any], index: int) -> list[str]:
    value = field_value(table, line, values, index)
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(value, str) and not value.strip():
        return []
    if not isinstance(parts, list) or not all(type(part) in (str, int) and str(part).strip() for part in parts):
        raise DataError(
            f"expected a list of labels, or labels between commas, found {value!r:.60}",
            table.path,
            line,
            table.columns[index],
        )
    return [str(part).strip() for part in parts]
