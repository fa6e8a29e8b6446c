"""JSON read strictly (UTF-8, no duplicate key, NaN or Infinity, bounded depth and digits), written in one spelling."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import numpy as np

from bitpress.errors import ArtifactError

MAX_DEPTH = 32  # config.json needs 5 levels (quantization_config / tensors / NAME / shape), the safetensors header 3
MAX_SHOWN = 120
MAX_DIGITS = 20  # 2^64 has 20 digits; Python would build integers of any length

# Every opening quote matches (the closing one is optional), so the scan never goes back and stays linear.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)

DAMAGED = "The file is damaged or was not written by bitpress: copy it again, or compress the model again."


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in ``data``.

    Args:
        data: the bytes; the caller has bounded their number.
        where: names the file in errors.

    Raises:
        ArtifactError: not UTF-8, not JSON, not an object, a key twice in one object, NaN or an infinite number,
            an integer of more than 20 digits, a lone surrogate, or nesting deeper than 32.
    """
    depth = _depth(data)
    if depth > MAX_DEPTH:
        raise ArtifactError(f"{where}: nested {depth} levels deep; at most {MAX_DEPTH} are allowed. {DAMAGED}")
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
        # "\ud800" is JSON that no UTF-8 file or terminal can hold again.
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except ValueError as error:  # UnicodeError and JSONDecodeError are ValueErrors
        raise ArtifactError(f"{where}: not strict JSON: {error}. {DAMAGED}") from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{where}: holds a JSON {type(document).__name__}; an object is expected. {DAMAGED}")
    return document


def shown(value: Any) -> str:
    """``repr(value)`` for an error message, cut: a damaged file may hold a string of megabytes."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def dump_object(document: dict[str, Any]) -> bytes:
    """The one spelling of ``document``: sorted keys, two spaces, UTF-8, a newline at the end.

    Raises:
        ArtifactError: a value that JSON cannot hold (NaN, bytes, …).
    """
    try:
        # Once through JSON first: integer keys (Python's id2label) become strings before they are sorted.
        plain = json.loads(json.dumps(document, allow_nan=False))
        return (json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"cannot be written as JSON: {error}; use only strings, finite numbers, booleans, lists and dicts"
        ) from error


def _depth(data: bytes) -> int:
    """Deepest nesting of brackets outside strings, by one linear scan and no recursion."""
    outside = np.frombuffer(_STRING.sub(b"", data), np.uint8)
    opening = (outside == ord("[")) | (outside == ord("{"))
    closing = (outside == ord("]")) | (outside == ord("}"))
    return int(np.cumsum(opening.astype(np.int64) - closing).max(initial=0))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {shown(twice)}; each key may stand once")
    return result


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number; only finite numbers are allowed")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:40]} is out of range; only finite numbers are allowed")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"integer {text[:MAX_DIGITS]}… has {len(text)} digits; at most {MAX_DIGITS} are allowed")
    return int(text)
