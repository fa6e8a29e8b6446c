"""What each scheme keeps in model.safetensors: its entries, their check, and the way there and back.

A scheme is one branch in each of `entries`, `check`, `pack` and `unpack`; reader, writer and inspection know no other
difference between schemes. Bit layouts are in codec.py (ternary) and bitstring.py (all others).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact.bitstring import bit_row_bytes, check_bits, pack_bits, unpack_bits
from bitpress.artifact.codec import check_packed, pack_ternary, row_bytes, unpack_ternary
from bitpress.artifact.forms import (
    BinaryTensor,
    CodebookTensor,
    QuantizedTensor,
    StoredTensor,
    TernaryTensor,
    UniformTensor,
)
from bitpress.artifact.outliers import COLUMNS, COUNTS, MAX_OUTLIER, VALUES, Outliers, check_outliers, outlier_entries
from bitpress.artifact.tensor_spec import TensorSpec
from bitpress.errors import ArtifactError

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

_FLOATS = {"fp32": ("F32", np.dtype(np.float32)), "fp16": ("F16", np.dtype(np.float16))}
_FORMS: dict[str, type[QuantizedTensor]] = {
    "ternary": TernaryTensor,
    "uniform": UniformTensor,
    "codebook": CodebookTensor,
    "binary": BinaryTensor,
}
_FP32_MAX = float(np.finfo(np.float32).max)
# |scale·level + offset| ≤ max/2 + max/2: a level is at most 255, and −128 in a codebook.
MAX_SCALE = _FP32_MAX / 512
MAX_OFFSET = _FP32_MAX / 2
MAX_TERM_SCALE = _FP32_MAX / 2  # of the two terms of a weight
_BLOCK = 1 << 16  # floats checked at once: temporaries stay in the level-2 cache


def entries(name: str, spec: TensorSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The entries of model.safetensors that hold tensor ``name``: entry → (dtype, shape)."""
    if spec.is_float:
        return {name: (_FLOATS[spec.scheme][0], spec.shape)}
    cols = spec.shape[1]
    if spec.scheme == "ternary":
        assert spec.packing is not None  # parse_spec: ternary has one
        width = row_bytes(cols, spec.packing)
    else:
        width = bit_row_bytes(cols, spec.code_bits)
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        f"{name}.codes": ("U8", (*spec.codes_shape[:-1], width)),
        f"{name}.scale": ("F16" if spec.scale_bits == 16 else "F32", spec.scale_shape),
    }
    if spec.scheme == "uniform" and not spec.symmetric:
        found[f"{name}.offset"] = ("F32", spec.scale_shape)
    if spec.scheme == "codebook":
        found[f"{name}.table"] = ("I8", (2**spec.code_bits,))
    if spec.outliers is not None:
        found |= outlier_entries(name, spec.shape[0], spec.outliers)
    return found


def check(name: str, spec: TensorSpec, arrays: Arrays) -> None:
    """The content of the entries of ``name``, whose dtypes and shapes are those of `entries`.

    Raises:
        ArtifactError: names the entry and what is wrong with which value.
    """
    if spec.is_float:
        check_finite(arrays[name], name)
        return
    codes, scale = arrays[f"{name}.codes"], f"{name}.scale"
    if spec.scheme == "ternary":
        assert spec.packing is not None  # parse_spec: ternary has one
        check_packed(codes, spec.shape[1], spec.packing, name)
    else:
        for term in codes.reshape(-1, spec.shape[0], codes.shape[-1]):
            check_bits(term, spec.shape[1], spec.code_bits, name, zero_is_a_code=not spec.symmetric)
    check_scale(arrays[scale], scale)
    if spec.scheme in ("uniform", "codebook"):
        _check_bound(arrays[scale], MAX_SCALE, scale)
    if spec.terms == 2:
        _check_bound(arrays[scale].astype(np.float32, copy=False), MAX_TERM_SCALE, scale)
    offset = f"{name}.offset"
    if offset in entries(name, spec):
        check_finite(arrays[offset], offset)
        _check_bound(arrays[offset], MAX_OFFSET, offset)
    if spec.outliers is not None:
        check_outliers(name, spec.shape[1], arrays)
        values = f"{name}.{VALUES}"
        check_finite(arrays[values], values)
        _check_bound(arrays[values], MAX_OUTLIER, values)


def pack(name: str, spec: TensorSpec, value: StoredTensor) -> dict[str, NDArray[Any]]:
    """``value`` as the entries of ``name``; what `check` sees is left to it.

    Raises:
        ArtifactError: a form, dtype or shape that is not that of ``spec``.
    """
    if isinstance(value, np.ndarray):
        if not spec.is_float:
            raise ArtifactError(
                f"is an array; the config's scheme {spec.scheme!r} needs a {_FORMS[spec.scheme].__name__}", name
            )
        dtype = _FLOATS[spec.scheme][1]
        if value.dtype != dtype or value.shape != spec.shape:
            raise ArtifactError(
                f"is {value.dtype} {list(value.shape)}; the config gives {dtype} {list(spec.shape)}", name
            )
        return {name: value}
    if spec.is_float or not isinstance(value, _FORMS[spec.scheme]):
        raise ArtifactError(f"is a {type(value).__name__}; the config's scheme is {spec.scheme!r}", name)
    _check_shapes(name, spec, value)
    arrays: dict[str, NDArray[Any]] = {
        f"{name}.codes": pack_codes(name, spec, value.codes),
        f"{name}.scale": value.scale,
    }
    if isinstance(value, UniformTensor) and value.offset is not None:
        arrays[f"{name}.offset"] = value.offset
    if isinstance(value, CodebookTensor):
        arrays[f"{name}.table"] = value.table
        if value.outliers is not None:
            arrays |= {
                f"{name}.{COUNTS}": value.outliers.counts,
                f"{name}.{COLUMNS}": value.outliers.columns,
                f"{name}.{VALUES}": value.outliers.values,
            }
    return arrays


def unpack(name: str, spec: TensorSpec, arrays: Arrays) -> QuantizedTensor:
    """The codes of a quantized tensor, with views of its scales: inverse of `pack`."""
    codes, scale = unpack_codes(spec, arrays[f"{name}.codes"]), arrays[f"{name}.scale"]
    if spec.scheme == "ternary":
        return TernaryTensor(codes, scale)
    if spec.scheme == "binary":
        return BinaryTensor(codes, scale)
    if spec.scheme == "codebook":
        return CodebookTensor(codes, arrays[f"{name}.table"], scale, unpack_outliers(name, arrays))
    assert spec.group is not None  # parse_spec: uniform has one
    return UniformTensor(codes, scale, arrays.get(f"{name}.offset"), spec.code_bits, spec.group, spec.group_size)


def unpack_outliers(name: str, arrays: Arrays) -> Outliers | None:
    """Views of the outliers of a quantized tensor; None where it has none."""
    if f"{name}.{VALUES}" not in arrays:
        return None
    return Outliers(arrays[f"{name}.{COUNTS}"], arrays[f"{name}.{COLUMNS}"], arrays[f"{name}.{VALUES}"])


def pack_codes(name: str, spec: TensorSpec, codes: NDArray[Any]) -> NDArray[np.uint8]:
    """Codes [rows, cols] as the form of the scheme has them (forms.py) → uint8 [rows, bytes of a row].

    Binary codes may have a dimension before these, of terms.

    Raises:
        ArtifactError: codes that the scheme does not have.
    """
    if spec.scheme == "ternary":
        assert spec.packing is not None  # parse_spec: ternary has one
        return pack_ternary(codes, spec.packing)
    if spec.scheme == "binary":
        if not np.isin(codes, (-1, 1)).all():
            raise ArtifactError("has codes other than −1 and +1, which are all that binary codes can be", name)
        rows = (codes > 0).astype(np.uint8).reshape(-1, codes.shape[-1])
        return pack_bits(rows, 1).reshape(*codes.shape[:-1], -1)
    return pack_bits(codes, spec.code_bits)


def unpack_codes(spec: TensorSpec, packed: NDArray[np.uint8]) -> NDArray[Any]:
    """Any rows of a tensor's packed codes → their codes: inverse of `pack_codes`."""
    if spec.scheme == "ternary":
        assert spec.packing is not None  # parse_spec: ternary has one
        return unpack_ternary(packed, spec.shape[1], spec.packing)
    codes = unpack_bits(packed.reshape(-1, packed.shape[-1]), spec.shape[1], spec.code_bits)
    if spec.scheme == "binary":
        return codes.view(np.int8).reshape(*packed.shape[:-1], -1) * np.int8(2) - np.int8(1)
    return codes


def check_finite(values: NDArray[Any], entry: str) -> None:
    """ArtifactError names the first value of ``entry`` that is not finite."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        finite = np.isfinite(flat[start : start + _BLOCK])
        if not finite.all():
            at = start + int(np.flatnonzero(~finite)[0])
            raise ArtifactError(f"value {at} is {flat[at]}; only finite numbers are allowed", entry)


def check_scale(scale: NDArray[Any], entry: str) -> None:
    """ArtifactError names the first scale of ``entry`` that is not finite and above 0."""
    good = np.isfinite(scale) & (scale > 0)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        raise ArtifactError(f"value {at} is {scale.flat[at]}; scales must be finite and above 0", entry)


def _check_bound(values: NDArray[np.float32], bound: float, entry: str) -> None:
    large = np.abs(values) > bound
    if large.any():
        at = int(np.flatnonzero(large)[0])
        raise ArtifactError(
            f"value {at} is {values.flat[at]}, so that weights would leave fp32; at most {bound:.6g} in size is "
            "allowed",
            entry,
        )


def _check_shapes(name: str, spec: TensorSpec, value: QuantizedTensor) -> None:
    """codes, scale, offset, table and outliers have the shapes and dtypes of ``spec``."""
    dtype = np.float16 if spec.scale_bits == 16 else np.float32
    found = f"codes {list(value.codes.shape)} and scale {value.scale.dtype} {list(value.scale.shape)}"
    given = f"codes {list(spec.codes_shape)} and scale {np.dtype(dtype)} {list(spec.scale_shape)}"
    fits = value.codes.shape == spec.codes_shape and _is(value.scale, dtype, spec.scale_shape)
    if isinstance(value, UniformTensor):
        kind, wanted = (value.bits, value.group, value.group_size), (spec.code_bits, spec.group, spec.group_size)
        found += f", {'no' if value.offset is None else 'an'} offset, (bits, group, group_size) {kind}"
        given += f", {'no' if spec.symmetric else 'an'} offset, (bits, group, group_size) {wanted}"
        fits = fits and kind == wanted and (value.offset is None) == spec.symmetric
        if value.offset is not None:
            fits = fits and _is(value.offset, np.float32, spec.scale_shape)
    if isinstance(value, CodebookTensor):
        found += f", table {value.table.dtype} {list(value.table.shape)}"
        given += f", table int8 {[2**spec.code_bits]}"
        fits = fits and _is(value.table, np.int8, (2**spec.code_bits,))
        number = 0 if value.outliers is None else value.outliers.values.size
        if number or spec.outliers:
            found += f", {number} outliers"
            given += f", {spec.outliers or 0} outliers"
        fits = fits and number == (spec.outliers or 0)
        if value.outliers is not None:
            fits = fits and _is(value.outliers.counts, np.uint16, spec.shape[:1])
            fits = fits and _is(value.outliers.columns, np.uint16, (number,))
            fits = fits and _is(value.outliers.values, np.float32, (number,))
    if not fits:
        raise ArtifactError(f"has {found}; the config gives {given}", name)


def _is(array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> bool:
    return array.dtype == np.dtype(dtype) and array.shape == shape
