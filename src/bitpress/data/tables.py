"""Bytes of a csv, tsv or jsonl file (plain or gzipped) to rows with their physical line numbers.

Design goals: every complaint names file, line and, where known, column; nothing is guessed silently.
Non-goals: other encodings than UTF-8, other delimiters than comma and tab [the error says which to use].
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitpress.errors import DataError

FORMATS = {".csv": "csv", ".tsv": "tsv", ".txt": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}

MAX_CLASSES = 1000  # of one column; more are hardly classes

# NUL ends strings in C; a lone surrogate is either a byte that is not UTF-8 (decoded with surrogateescape) or a
# broken \u escape in JSON. Neither can be tokenized.
_BAD_CHARACTER = re.compile("[\0\ud800-\udfff]")

# A tsv field that opens with a quote and holds a doubled quote, a tab or a line break before the quote closes.
_NEEDED_QUOTES = re.compile(r'(?:^|[\t\n])"[^"]*(?:""|[\t\n])')


class _Missing:
    """Stands where a JSON object lacks a key that other rows have."""

    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()


@dataclass
class Table:
    """Rows of equal width under named columns. ``rows`` holds (physical line of the row's start, values)."""

    path: str
    columns: list[str]
    rows: list[tuple[int, list[Any]]]
    header_line: int | None = 1


def file_format(path: str | Path) -> str | None:
    """``csv``, ``tsv`` or ``jsonl`` by the file's name (``.gz`` aside); None for any other name."""
    name = Path(path).name.lower().removesuffix(".gz")
    return FORMATS.get(Path(name).suffix)


def read_bytes(path: str | Path) -> bytes:
    """The content, decompressed where it is gzip. DataError where it cannot be read."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError("no such file", path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"is gzip, but damaged ({error}); copy or compress it again", path) from error


def decode(content: bytes, path: str | Path) -> str:
    """UTF-8 text without its byte order mark; bytes that are not UTF-8 become lone surrogates, reported by row."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("is UTF-16 text; save it as UTF-8", path, 1)
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if not text.strip():
        raise DataError("the file is empty; expected at least one row of data", path, 1)
    return text


def check_characters(values: list[Any], columns: list[str], path: str | Path, line: int) -> None:
    """DataError at the first value that holds a NUL or bytes that are not UTF-8."""
    for index, value in enumerate(values):
        found = _BAD_CHARACTER.search(value) if isinstance(value, str) else None
        if found:
            what = "a NUL character" if found.group() == "\0" else "bytes that are not UTF-8"
            column = columns[index] if index < len(columns) else None
            raise DataError(f"found {what} in the text; save the file as clean UTF-8", path, line, column)


def read_table(path: str | Path, content: bytes, names: tuple[str, ...] = (), text_column: str | None = None) -> Table:
    """Parse ``content`` by the format that the name of ``path`` says.

    ``names`` are the columns of a file without a header line: they are used unless the first row holds
    ``text_column``, which only a header does. A layout that fixes its columns (``text_column`` given) never quotes
    tsv fields, as GLUE; other tsv files may be quoted as csv writers do, see ``_is_quoted``.
    """
    kind = file_format(path)
    if kind is None:
        raise DataError(f"unknown kind of file; allowed: {', '.join(FORMATS)}, each also with .gz", path)
    text = decode(content, path)
    if kind == "jsonl":
        return _read_jsonl(text, path)
    if kind == "csv":
        rows = list(_csv_rows(text, ",", path))
    else:
        rows = _tsv_rows(text)
        if text_column is None and (quoted := _quoted_tsv_rows(text, path)) is not None:
            rows = quoted
    line, first = rows[0]
    if names and text_column not in first:
        _check_rows(rows, list(names), path, header_line=None)
        return Table(str(path), list(names), rows, header_line=None)
    columns = [name.strip() for name in first]
    check_characters(first, [], path, line)
    _check_rows(rows[1:], columns, path, header_line=line)
    if len(rows) == 1:
        raise DataError("the file has a header but no rows", path, line)
    return Table(str(path), columns, rows[1:], header_line=line)


def _tsv_rows(text: str) -> list[tuple[int, list[str]]]:
    """Fields between tabs, quotes left as they are; blank lines skipped."""
    # Not str.splitlines: it also splits at U+2028, U+0085 and form feeds, which texts hold.
    lines = ((number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line.split("\t")) for number, line in lines if line.strip()]


def _csv_rows(text: str, delimiter: str, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Strictly quoted rows (RFC 4180) with the line on which each starts; blank lines skipped."""
    reader = csv.reader((line + "\n" for line in text.split("\n")), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"not a valid row: {error}; a field that holds a quote, a comma or a line break must stand in quotes, "
                'with each quote inside it doubled ("")',
                path,
                start,
            ) from None
        if row and (len(row) > 1 or row[0].strip()):
            yield start, row


def _quoted_tsv_rows(text: str, path: str | Path) -> list[tuple[int, list[str]]] | None:
    """Rows of a tsv whose writer quoted fields as in csv (pandas does), None where quotes are part of the text.

    Quoted means: the whole file is a valid quoted table of equal widths, and a quote was needed somewhere (a doubled
    quote, tab or line break inside) or even the header is quoted. Plain text that merely begins with a quotation mark
    fails one of these.
    """
    if not (text.startswith('"') or _NEEDED_QUOTES.search(text)):
        return None
    try:
        rows = list(_csv_rows(text, "\t", path))
    except DataError:
        return None
    return rows if all(len(row) == len(rows[0][1]) for _, row in rows) else None


def _check_rows(
    rows: list[tuple[int, list[Any]]], columns: list[str], path: str | Path, header_line: int | None
) -> None:
    """DataError at the first row of another width than the header's, or with characters that are no text."""
    for line, values in rows:
        too_short_or_long = len(values) > len(columns) or (header_line is not None and len(values) < len(columns))
        if too_short_or_long:
            source = f"the header (line {header_line}) has" if header_line is not None else "the layout has"
            raise DataError(
                f"malformed row: found {len(values)} fields, {source} {len(columns)} "
                f"({', '.join(columns)}); a separator inside a text, or a missing field?",
                path,
                line,
            )
        check_characters(values, columns, path, line)


def _read_jsonl(text: str, path: str | Path) -> Table:
    """One JSON object a line; blank lines skipped. The columns are the keys of all rows, in order of appearance."""
    objects: list[tuple[int, dict[str, Any]]] = []
    for line, source in enumerate(text.split("\n"), 1):
        if not source.strip():
            continue
        try:
            value = json.loads(source)
        except json.JSONDecodeError as error:
            raise DataError(f"not valid JSON: {error.msg} at character {error.colno}", path, line) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"not usable JSON: {error}", path, line) from None
        if not isinstance(value, dict):
            raise DataError(
                f'expected one JSON object a line, such as {{"text": …, "label": …}}, found {type(value).__name__}',
                path,
                line,
            )
        objects.append((line, value))
    columns = list(dict.fromkeys(key for _, value in objects for key in value))
    rows = [(line, [value.get(key, MISSING) for key in columns]) for line, value in objects]
    for line, values in rows:
        check_characters(values, columns, path, line)
    return Table(str(path), columns, rows, header_line=None)


def listed(names: Iterable[str]) -> str:
    """Names for an error: quoted, at most twenty of them."""
    names = [repr(name if len(name) <= 40 else name[:39] + "…") for name in names]
    return ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")


def find_column(table: Table, name: str) -> int | None:
    """Position of a column by name, upper and lower case told apart only where the file needs it."""
    exact = [i for i, column in enumerate(table.columns) if column == name]
    matches = exact or [i for i, column in enumerate(table.columns) if column.lower() == name.lower()]
    if len(matches) > 1:
        raise DataError(f"the column stands {len(matches)} times in the header", table.path, table.header_line, name)
    return matches[0] if matches else None


def require_column(table: Table, name: str, option: str) -> int:
    """Position of a column by name; DataError where there is none, which ``option`` would name."""
    index = find_column(table, name)
    if index is None:
        raise DataError(
            f"missing column; found {listed(table.columns)}; name the right one with {option}",
            table.path,
            table.header_line or 1,
            name,
        )
    return index


def field_value(table: Table, line: int, values: list[Any], index: int) -> Any:
    """One field of a row; DataError where the row lacks it."""
    value = values[index] if index < len(values) else MISSING
    if value is MISSING:
        raise DataError("malformed row: it lacks this field", table.path, line, table.columns[index])
    return value
