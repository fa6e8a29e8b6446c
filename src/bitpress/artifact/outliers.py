"""Outliers of a codebook tensor: weights that are stored as numbers of their own (GOBO), row after row.

A row's count has 16 bits, a column 16 and a value 32: of 768 columns, 0.02 bits a weight and 48 an outlier. [A byte for
the count of every 256 columns and one for a column in them: of 768 columns smaller above 1 outlier a row, of 3,072
above 10, and a row of BERT-base has 1 to 5.]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.errors import ArtifactError

COUNTS, COLUMNS, VALUES = "outlier_counts", "outlier_columns", "outliers"
# Half of fp32: what an outlier differs by from the value of its code, at most a quarter, is finite then.
MAX_OUTLIER = float(np.finfo(np.float32).max) / 2
MAX_ROW_OUTLIERS = (1 << 16) - 1


@dataclass
class Outliers:
    """counts uint16 [rows]; columns uint16 [n], ascending within a row; values float32 [n]; n ≥ 1 is their sum."""

    counts: NDArray[np.uint16]
    columns: NDArray[np.uint16]
    values: NDArray[np.float32]

    @classmethod
    def at(cls, positions: NDArray[np.int64], values: NDArray[np.float32], shape: tuple[int, int]) -> Outliers | None:
        """Of a matrix of that shape, at ascending positions row · cols + column; None where there are none.

        Raises:
            ArtifactError: a row has more outliers than its count can say.
        """
        if not positions.size:
            return None
        rows, columns = np.divmod(positions, shape[1])
        counts = np.bincount(rows, minlength=shape[0])
        if counts.max() > MAX_ROW_OUTLIERS:
            raise ArtifactError(f"row {counts.argmax()} has {counts.max()} outliers; at most {MAX_ROW_OUTLIERS} fit")
        return cls(counts.astype(np.uint16), columns.astype(np.uint16), values)

    def put(self, dense: NDArray[np.float32]) -> None:
        """Set them in the decoded matrix, in place."""
        dense[_rows(self.counts), self.columns] = self.values


def outlier_entries(name: str, rows: int, number: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The entries of model.safetensors that hold ``number`` outliers of tensor ``name``: entry → (dtype, shape)."""
    return {
        f"{name}.{COUNTS}": ("U16", (rows,)),
        f"{name}.{COLUMNS}": ("U16", (number,)),
        f"{name}.{VALUES}": ("F32", (number,)),
    }


def check_outliers(name: str, cols: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Counts add up to the number of outliers, and columns exist and ascend within a row. (That values are finite and
    bounded is checked like other numbers.)

    Raises:
        ArtifactError: names the entry and what is wrong with which value.
    """
    counts, columns = arrays[f"{name}.{COUNTS}"], arrays[f"{name}.{COLUMNS}"]
    total = int(counts.sum(dtype=np.int64))
    if total != columns.size:  # so repeating rows, below, takes no more memory than the file
        raise ArtifactError(
            f"the counts of the rows add up to {total}; the tensor has {columns.size} outliers", f"{name}.{COUNTS}"
        )
    rows = _rows(counts)
    bad = columns.astype(np.int64) >= cols
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise ArtifactError(
            f"value {at} is {columns[at]}; row {rows[at]} has the columns 0 to {cols - 1}", f"{name}.{COLUMNS}"
        )
    late = (rows[1:] == rows[:-1]) & (columns[1:] <= columns[:-1])
    if late.any():
        at = int(np.flatnonzero(late)[0]) + 1
        raise ArtifactError(
            f"value {at} is {columns[at]} after {columns[at - 1]}; the columns of row {rows[at]} must ascend",
            f"{name}.{COLUMNS}",
        )


def _rows(counts: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The row of each outlier."""
    return np.repeat(np.arange(counts.size), counts)
