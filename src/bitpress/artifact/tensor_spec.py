"""How one tensor is stored: its entry in ``quantization_config.tensors``, as a dataclass and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitpress.artifact.codec import BITS as TERNARY_BITS
from bitpress.artifact.model_config import POSITIONS, can_be_quantized, is_number
from bitpress.artifact.strict_json import shown
from bitpress.errors import ArtifactError

# Bits of a weight by scheme. Ternary has those of its packing, binary one for each term.
BITS: dict[str, tuple[int, ...]] = {
    "fp32": (32,),
    "fp16": (16,),
    "uniform": (2, 3, 4, 8),
    "codebook": (2, 3, 4),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "ternary": ("matrix", "row"),
    "uniform": ("matrix", "row", "row_block", "input"),
    "codebook": ("matrix", "row"),
    "binary": ("matrix", "row"),
}
# Of group "input". Kernels multiply 32 bytes of codes at once, so that a scale never changes within a vector.
INPUT_GROUP_MULTIPLE = 32
# Of a scale of a binary tensor, where they are a tenth of the bytes of small rows: 32 (fp32) or 16 (fp16).
SCALE_BITS = (32, 16)
# A binary weight is one signed scale, or the sum of two.
TERMS = (1, 2)
MAX_GROUP_SIZE = 1 << 16  # the largest intermediate_size; "matrix" and "row" say the same as any larger group

_COMMON = {"scheme", "bits", "shape"}
_KEYS = {
    "fp32": _COMMON,
    "fp16": _COMMON,
    "ternary": _COMMON | {"packing", "group"},
    "uniform": _COMMON | {"symmetric", "group", "group_size"},
    "codebook": _COMMON | {"group"},
    "binary": _COMMON | {"group", "scale_bits", "terms"},
}
# Keys that may be absent, and then say that there is nothing of their kind.
_OPTIONAL = {"codebook": {"outliers"}}


@dataclass(frozen=True)
class TensorSpec:
    """How one tensor is stored. The constructors below say what each scheme has; everything else is None.

    ``bits`` a weight: 32 (fp32), 16 (fp16), 2 (ternary, "2bit"), 1.6 (ternary, "trits"), 1 for each term (binary), else
    those of the codes. ``group`` is what shares a scale: "matrix", "row", "row_block" (``group_size`` rows) or "input"
    (``group_size`` neighbouring inputs of one row). ``scale_bits`` and ``terms``: of a binary tensor, see SCALE_BITS
    and TERMS. ``outliers``: how many a codebook tensor has, at least 1, or None.
    """

    scheme: str
    bits: float
    shape: tuple[int, ...]
    packing: str | None = None
    group: str | None = None
    symmetric: bool | None = None
    group_size: int | None = None
    scale_bits: int | None = None
    terms: int | None = None
    outliers: int | None = None

    @classmethod
    def fp32(cls, shape: tuple[int, ...]) -> TensorSpec:
        """Stored as it is."""
        return cls("fp32", 32.0, tuple(shape))

    @classmethod
    def fp16(cls, shape: tuple[int, ...]) -> TensorSpec:
        """IEEE half precision; every value is exactly an fp32 number."""
        return cls("fp16", 16.0, tuple(shape))

    @classmethod
    def ternary(cls, shape: tuple[int, ...], packing: str, group: str) -> TensorSpec:
        """Codes {−1, 0, 1} in ``packing``, scales per ``group``."""
        return cls("ternary", TERNARY_BITS.get(packing, 0.0), tuple(shape), packing, group)

    @classmethod
    def uniform(
        cls, shape: tuple[int, ...], bits: int, symmetric: bool, group: str, group_size: int | None = None
    ) -> TensorSpec:
        """value = scale·code + offset, or scale·(code − 2^(bits−1)) where ``symmetric``."""
        return cls("uniform", float(bits), tuple(shape), None, group, symmetric, group_size)

    @classmethod
    def codebook(cls, shape: tuple[int, ...], bits: int, group: str, outliers: int = 0) -> TensorSpec:
        """value = scale·table[code], but of so many ``outliers``, which are stored as they are."""
        return cls("codebook", float(bits), tuple(shape), None, group, outliers=outliers or None)

    @classmethod
    def binary(cls, shape: tuple[int, ...], group: str, scale_bits: int = 32, terms: int = 1) -> TensorSpec:
        """value = ±scale, or of two terms ±scale[0] ± scale[1]."""
        return cls("binary", float(terms), tuple(shape), None, group, scale_bits=scale_bits, terms=terms)

    @property
    def is_float(self) -> bool:
        """Stored as numbers, in one entry under the tensor's own name."""
        return self.scheme in ("fp32", "fp16")

    @property
    def code_bits(self) -> int:
        """Bits of a code of a uniform, codebook or binary tensor."""
        return 1 if self.scheme == "binary" else int(self.bits)

    @property
    def codes_shape(self) -> tuple[int, ...]:
        """Of the codes of a quantized tensor [rows, cols]: its own, of two terms [2, rows, cols]."""
        return self.shape if self.terms in (None, 1) else (self.terms, *self.shape)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Of the scales (and offsets) of a quantized tensor [rows, cols]."""
        rows, cols = self.shape
        if self.terms == 2:
            return (2,) if self.group == "matrix" else (2, rows)
        if self.group == "matrix":
            return (1,)
        if self.group == "row":
            return (rows,)
        assert self.group_size is not None  # parse_spec: "row_block" and "input" have one
        return (-(-rows // self.group_size),) if self.group == "row_block" else (rows, -(-cols // self.group_size))


def spec_document(spec: TensorSpec) -> dict[str, Any]:
    """The JSON object of ``spec``; inverse of `parse_spec`."""
    keys = _KEYS.get(spec.scheme, _COMMON)
    document = {key: getattr(spec, key) for key in keys}
    optional = {key: getattr(spec, key) for key in _OPTIONAL.get(spec.scheme, ())}
    document |= {key: value for key, value in optional.items() if value is not None}
    bits = int(spec.bits) if spec.bits == int(spec.bits) else spec.bits
    return document | {"bits": bits, "shape": list(spec.shape)}


def parse_spec(name: str, value: Any, shape: tuple[int, ...]) -> TensorSpec:
    """Check the entry of tensor ``name``, whose shape the model's config gives.

    Raises:
        ArtifactError: names the tensor, what was found and what is allowed.
    """
    scheme = value.get("scheme") if isinstance(value, dict) else value
    if not isinstance(scheme, str) or scheme not in _KEYS:
        raise ArtifactError(f"scheme is {shown(scheme)}; version 1 has {', '.join(_KEYS)}", name)
    optional = _OPTIONAL.get(scheme, set())
    if value.keys() - optional != _KEYS[scheme]:
        further = f", and may have {sorted(optional)}" if optional else ""
        raise ArtifactError(
            f"entry has the keys {shown(sorted(value))}; {scheme} has exactly {sorted(_KEYS[scheme])}{further}", name
        )
    found = value["shape"]
    if found != list(shape) or any(type(size) is not int for size in found):
        raise ArtifactError(f"shape is {shown(found)}; the model's config gives {list(shape)}", name)
    if name == POSITIONS and scheme in GROUPS and scheme != "uniform":
        raise ArtifactError(f"scheme is {scheme!r}; this tensor is fp32, fp16 or uniform", name)
    if scheme in GROUPS and name != POSITIONS and not can_be_quantized(name):
        raise ArtifactError(f"scheme is {scheme!r}; this tensor is fp32 or fp16 in every artifact", name)
    packing = _parse_packing(name, value) if scheme == "ternary" else None
    group = group_size = symmetric = scale_bits = terms = outliers = None
    if scheme in GROUPS:
        group = value["group"]
        if not isinstance(group, str) or group not in GROUPS[scheme]:
            raise ArtifactError(f"group is {shown(group)}; allowed are {', '.join(GROUPS[scheme])}", name)
    if scheme == "uniform":
        symmetric = value["symmetric"]
        if not isinstance(symmetric, bool):
            raise ArtifactError(f"symmetric is {shown(symmetric)}; true or false is expected", name)
        group_size = _parse_group_size(name, value["group_size"], group)
    if scheme == "binary":
        scale_bits = value["scale_bits"]
        if type(scale_bits) is not int or scale_bits not in SCALE_BITS:
            raise ArtifactError(f"scale_bits is {shown(scale_bits)}; allowed are 32 and 16", name)
        terms = value["terms"]
        if type(terms) is not int or terms not in TERMS:
            raise ArtifactError(f"terms is {shown(terms)}; allowed are 1 and 2", name)
    if "outliers" in value:
        outliers = value["outliers"]
        most = math.prod(shape)
        if type(outliers) is not int or not 1 <= outliers <= most:
            raise ArtifactError(
                f"outliers is {shown(outliers)}; from 1 to {most}, the number of weights, is expected, or no such key",
                name,
            )
    allowed: tuple[float, ...]
    if packing is not None:
        kind, allowed = packing, (TERNARY_BITS[packing],)
    elif terms is not None:
        kind, allowed = f"binary with terms {terms}", (terms,)
    else:
        kind, allowed = scheme, BITS[scheme]
    bits = value["bits"]
    if not is_number(bits) or bits not in allowed:
        raise ArtifactError(f"bits is {shown(bits)}; {kind} has {', '.join(f'{b:g}' for b in allowed)}", name)
    return TensorSpec(scheme, float(bits), shape, packing, group, symmetric, group_size, scale_bits, terms, outliers)


def _parse_packing(name: str, value: Mapping[str, Any]) -> str:
    packing = value["packing"]
    if not isinstance(packing, str) or packing not in TERNARY_BITS:
        raise ArtifactError(f"packing is {shown(packing)}; allowed are {', '.join(TERNARY_BITS)}", name)
    return packing


def _parse_group_size(name: str, value: Any, group: str | None) -> int | None:
    if group in ("matrix", "row"):
        if value is not None:
            raise ArtifactError(f"group_size is {shown(value)}; null is expected with group {group!r}", name)
        return None
    multiple = INPUT_GROUP_MULTIPLE if group == "input" else 1
    if type(value) is not int or not 1 <= value <= MAX_GROUP_SIZE or value % multiple:
        kind = f"a multiple of {multiple}" if multiple > 1 else "an integer"
        raise ArtifactError(
            f"group_size is {shown(value)}; {kind} from {multiple} to {MAX_GROUP_SIZE} is expected with group "
            f"{group!r}",
            name,
        )
    return value
