"""The safetensors container: 8 bytes little-endian header length, a JSON header, the tensors' bytes.

Version 1 of the artifact uses a part of the format: dtypes F32, F16, U16, I8 and U8, at most two dimensions, no
``__metadata__``.
What is written here is byte for byte what the ``safetensors`` package writes for the same tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitpress.artifact.strict_json import DAMAGED, parse_object, shown
from bitpress.errors import ArtifactError

# In the order in which the safetensors package writes them.
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
MAX_HEADER_BYTES = 4 << 20  # 256 layers need 0.9 MB
MAX_DIMENSION = 1 << 32  # with two dimensions and 4-byte elements, sizes stay below 2^66; Python integers do not wrap
MAX_RANK = 3
MAX_NAME_LENGTH = 200
_ALIGNMENT = 8


@dataclass(frozen=True)
class Entry:
    """One tensor of the container; ``begin`` and ``end`` count bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header(data: Any, size: int, where: str) -> dict[str, Entry]:
    """Read the header of a container and prove that its entries cover the file exactly once.

    Args:
        data: the whole file, as bytes or as a memory map.
        size: its length in bytes.
        where: names the file in errors.

    Raises:
        ArtifactError: whatever of this does not hold; nothing is allocated beyond the bounded header.
    """
    if size < 8:
        raise ArtifactError(f"{where}: has {size} bytes; a header length of 8 bytes is expected first. {DAMAGED}")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise ArtifactError(f"{where}: header of {length} bytes; at most {MAX_HEADER_BYTES} are allowed. {DAMAGED}")
    if length > size - 8:
        raise ArtifactError(f"{where}: header of {length} bytes; the file has {size - 8} after its start. {DAMAGED}")
    if length % _ALIGNMENT:
        raise ArtifactError(f"{where}: header of {length} bytes; a multiple of {_ALIGNMENT} is expected. {DAMAGED}")
    raw = bytes(data[8 : 8 + length])
    if not raw.startswith(b"{"):
        raise ArtifactError(f"{where}: header starts with {raw[:1]!r}; '{{' is expected. {DAMAGED}")
    header = parse_object(raw, f"{where} header")
    start = 8 + length
    entries = {name: _parse_entry(name, value, start, size) for name, value in header.items()}
    _check_cover(entries, start, size, where)
    return entries


def serialize(tensors: Mapping[str, np.ndarray[Any, Any]]) -> Iterator[bytes]:
    """The file's bytes, in pieces: header, then the tensors by dtype in the order of ``DTYPES``, each sorted by name.

    The header is padded with spaces to a multiple of 8 and larger elements come first, so every tensor starts on a
    boundary of its elements in the file (and so in a memory map).
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    dtypes = list(DTYPES.values())
    ordered = sorted(tensors, key=lambda name: (dtypes.index(tensors[name].dtype.newbyteorder("<")), name))
    header: dict[str, dict[str, Any]] = {}
    offset = 0
    for name in ordered:
        array = tensors[name]
        header[name] = {
            "dtype": names[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for name in ordered:
        array = tensors[name]
        yield array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes()


def _parse_entry(name: str, value: Any, start: int, size: int) -> Entry:
    if len(name) > MAX_NAME_LENGTH:
        raise ArtifactError(f"name of {len(name)} characters; at most {MAX_NAME_LENGTH} are allowed", name[:80] + "…")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        found = sorted(value) if isinstance(value, dict) else value
        raise ArtifactError(f"header entry holds {shown(found)}; dtype, shape and data_offsets are expected", name)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ArtifactError(f"dtype is {shown(dtype)}; allowed are {sorted(DTYPES)}", name)
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_int(d, MAX_DIMENSION) for d in shape):
        raise ArtifactError(f"shape is {shown(shape)}; at most {MAX_RANK} integers from 0 to 2^32 are allowed", name)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_int(o, size - start) for o in offsets):
        raise ArtifactError(
            f"data_offsets are {shown(offsets)}; two integers from 0 to {size - start}, the bytes after the header, "
            f"are expected. {DAMAGED}",
            name,
        )
    begin, end = offsets
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != expected:
        raise ArtifactError(f"data_offsets span {end - begin} bytes; {dtype} {shape} takes {expected}", name)
    alignment = DTYPES[dtype].itemsize
    if (start + begin) % alignment:
        raise ArtifactError(f"starts at byte {start + begin}; {dtype} must start on a multiple of {alignment}", name)
    return Entry(dtype, tuple(shape), start + begin, start + end)


def _check_cover(entries: dict[str, Entry], start: int, size: int, where: str) -> None:
    at = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin < at:
            raise ArtifactError(f"starts at byte {entry.begin}, inside the tensor before it, which ends at {at}", name)
        if entry.begin > at:
            raise ArtifactError(
                f"starts at byte {entry.begin}; {entry.begin - at} bytes before it belong to no tensor", name
            )
        at = entry.end
    if at != size:
        raise ArtifactError(f"{where}: {size - at} bytes after the last tensor; the file must end there. {DAMAGED}")


def _is_int(value: Any, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high
