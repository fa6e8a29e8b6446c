"""Tables that the ``datasets`` library holds: directories of ``save_to_disk``, and names on a hub.

A directory is one split (``data/train`` of a saved DatasetDict). A hub name is ``hub:NAME:SPLIT`` or
``hub:NAME:CONFIGURATION:SPLIT``, such as ``hub:glue:sst2:train``; what stands between the colons goes to
``datasets.load_dataset``, which also takes a local directory of data files for NAME.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bitpress.data.tables import Table, check_characters
from bitpress.errors import DataError

HUB = "hub:"


def is_saved(path: str | Path) -> bool:
    """Whether ``path`` names a table of the ``datasets`` library rather than a file."""
    return str(path).startswith(HUB) or Path(path).is_dir()


def read_saved_table(path: str | Path) -> tuple[Table, str]:
    """The table, a row's number where a file has a line, and the SHA-256 of its rows.

    Classes that are stored as numbers with names (``ClassLabel``) become their names, also in lists; without a name
    (-1, as unlabelled rows of GLUE have) they stay numbers.

    Raises:
        DataError: there is no such table, it has no rows, or ``datasets`` is not installed.
    """
    dataset = _load(str(path))
    columns = list(dataset.column_names)
    names = {column: _class_names(dataset.features[column]) for column in columns}
    if not len(dataset):
        raise DataError("the dataset has no rows", path)
    rows: list[tuple[int, list[Any]]] = []
    digest = hashlib.sha256()
    for number, row in enumerate(dataset, 1):
        values = [_named(row[column], names[column]) for column in columns]
        check_characters(values, columns, path, number)
        digest.update(json.dumps(values, ensure_ascii=True, default=str).encode() + b"\n")
        rows.append((number, values))
    return Table(str(path), columns, rows, header_line=None), digest.hexdigest()


def _load(path: str) -> Any:
    if path.startswith(HUB):
        name, *rest = path.removeprefix(HUB).split(":")
        if not name or len(rest) not in (1, 2) or not all(rest):
            raise DataError("not a hub name; write hub:NAME:SPLIT or hub:NAME:CONFIGURATION:SPLIT", path)
        library = _library(path)
        try:
            return library.load_dataset(name, *rest[:-1], split=rest[-1])
        except Exception as error:  # whatever its builders and the network raise
            raise DataError(f"datasets.load_dataset cannot load it: {_first_line(error)}", path) from error
    folder = Path(path)
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        raise DataError(f"holds the splits {', '.join(splits)}; name one of them, such as {folder / splits[0]}", path)
    if not (folder / "state.json").is_file():
        raise DataError(
            "is a directory, but not one that datasets.save_to_disk wrote (no state.json); give that, or a csv, tsv or "
            "jsonl file",
            path,
        )
    library = _library(path)
    try:
        return library.load_from_disk(path)
    except Exception as error:  # damaged files fail in pyarrow, json or datasets itself
        raise DataError(f"datasets.load_from_disk cannot read it: {_first_line(error)}", path) from error


def _library(path: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            "is a table of the `datasets` library, which is not installed; pip install 'bitpress[datasets]', or give a "
            "csv, tsv or jsonl file",
            path,
        ) from None
    return datasets


def _class_names(feature: Any) -> list[str] | None:
    """The names of a column of classes, or of lists of classes; None of any other."""
    feature = getattr(feature, "feature", feature)
    names = getattr(feature, "names", None)
    return None if names is None else list(names)


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
