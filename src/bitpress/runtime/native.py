"""The native library: finding it, loading it, its signatures.

``BITPRESS_LIBRARY`` names another build of it (for developers, e.g. one with sanitizers), ``BITPRESS_ISA`` forces an
instruction set.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitpress
from bitpress.errors import EngineError

LIBRARY_NAME = "libbitpress.so"
# bp_operation, in order: what bp_profile attributes time to.
OPERATIONS = (
    "embedding",
    "query_key_value",
    "attention_output",
    "ffn_up",
    "ffn_down",
    "head",
    "attention",
    "softmax",
    "activation",
    "layer_norm",
    "quantize",
    "waiting",
)
ABI_VERSION = 7  # BP_ABI_VERSION of native/include/bitpress.h


class Config(ctypes.Structure):
    """bp_config."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("abi_version", "vocab_size", "max_positions", "type_vocab_size")),
        *((name, ctypes.c_uint32) for name in ("embedding_size", "hidden_size", "num_layers", "num_heads")),
        *((name, ctypes.c_uint32) for name in ("intermediate_size", "num_labels", "head_size", "hidden_act", "head")),
        *(
            (name, ctypes.c_uint32)
            for name in ("activation_range", "activation_bits", "activation_symmetric", "attention")
        ),
        ("activation_clip", ctypes.c_float),
        ("layer_norm_eps", ctypes.c_float),
    )


class Packed(ctypes.Structure):
    """bp_packed."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("scheme", "bits", "packing", "terms")),
        *((name, ctypes.c_size_t) for name in ("rows", "cols", "group_rows", "group_cols")),
        ("codes", ctypes.c_void_p),
        *(("scale", ctypes.c_void_p), ("scale_count", ctypes.c_size_t)),
        *(("offset", ctypes.c_void_p), ("offset_count", ctypes.c_size_t)),
        *(("table", ctypes.c_void_p), ("table_count", ctypes.c_size_t)),
        *((name, ctypes.c_void_p) for name in ("outlier_counts", "outlier_columns", "outliers")),
        ("outlier_count", ctypes.c_size_t),
    )


def isa() -> str:
    """The instruction set that the engine uses; the environment variable BITPRESS_ISA forces one.

    Raises:
        EngineError: BITPRESS_ISA names one that this CPU or build lacks.
    """
    name = library().bp_isa()
    if name is None:
        raise EngineError(library().bp_last_error().decode())
    return str(name.decode())


def available_isas() -> list[str]:
    """Instruction sets that this build has and this CPU can run."""
    return str(library().bp_available_isas().decode()).split(",")


def hardware_threads() -> int:
    """Logical processors this process may use."""
    return int(library().bp_hardware_threads())


def library_path() -> Path:
    """The native library: the one that the environment variable BITPRESS_LIBRARY names, else the package's own.

    Raises:
        EngineError: there is none.
    """
    chosen = os.environ.get("BITPRESS_LIBRARY")
    if chosen:
        if not Path(chosen).is_file():
            raise EngineError(
                f"BITPRESS_LIBRARY names {chosen}, which is not a file; unset it to use the package's own"
            )
        return Path(chosen)
    # An editable install has two directories: the sources and the one with the built library.
    for directory in bitpress.__path__:
        if (path := Path(directory) / LIBRARY_NAME).is_file():
            return path
    raise EngineError(
        f"{LIBRARY_NAME} is in none of {', '.join(bitpress.__path__)}: the package was not built; run `pip install .` "
        "in its sources, or set BITPRESS_LIBRARY to a built library"
    )


@cache
def library() -> ctypes.CDLL:
    """The loaded library with the signatures of bitpress.h.

    Raises:
        EngineError: it is absent, no engine, or of another version of the interface.
    """
    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.bp_abi_version.restype = ctypes.c_uint32
        version = loaded.bp_abi_version()
    except (OSError, AttributeError) as error:
        raise EngineError(f"{path} cannot be loaded as the engine: {error}") from error
    if version != ABI_VERSION:
        raise EngineError(
            f"{path} has version {version} of the interface, this package needs {ABI_VERSION}: install both together"
        )
    pointer, size, text, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_float
    quantizer = (pointer, size, size, ctypes.c_uint32, ctypes.c_int, number, pointer, pointer, pointer)
    for name, result, arguments in (
        ("bp_isa", text, ()),
        ("bp_last_error", text, ()),
        ("bp_available_isas", text, ()),
        ("bp_hardware_threads", ctypes.c_uint32, ()),
        ("bp_model_create", ctypes.c_int, (pointer, pointer)),
        ("bp_model_set_float", ctypes.c_int, (pointer, text, pointer, size, size)),
        ("bp_model_set_packed", ctypes.c_int, (pointer, text, pointer)),
        ("bp_model_set_range", ctypes.c_int, (pointer, text, number, number)),
        ("bp_model_finish", ctypes.c_int, (pointer,)),
        ("bp_model_free", None, (pointer,)),
        ("bp_model_panels", ctypes.c_int, (pointer, text, pointer, pointer)),
        (
            "bp_forward",
            ctypes.c_int,
            (pointer, pointer, pointer, pointer, size, pointer, pointer, ctypes.c_uint32),
        ),
        (
            "bp_profile",
            ctypes.c_int,
            (pointer, pointer, pointer, pointer, size, pointer, ctypes.c_uint32, pointer),
        ),
        ("bp_machine_limits", ctypes.c_int, (pointer, pointer)),
        ("bp_quantize_rows", ctypes.c_int, quantizer),
        ("bp_apply", ctypes.c_int, (ctypes.c_uint32, pointer, size)),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def check(status: int) -> None:
    """EngineError with the library's own text where a call of this thread was refused."""
    if status != 0:
        raise EngineError(library().bp_last_error().decode(errors="replace"))


def choice(what: str, found: str, allowed: Mapping[str, int]) -> int:
    """The enum value of a name; EngineError for another name."""
    if found not in allowed:
        raise EngineError(f"{what} is {found!r}, allowed are {', '.join(allowed)}")
    return allowed[found]


def array(name: str, data: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """data, C-contiguous; EngineError for another dtype, which would be read as garbage."""
    if data.dtype != dtype:
        raise EngineError(f"tensor {name!r}: the array is {data.dtype}, expected {np.dtype(dtype)}")
    return np.ascontiguousarray(data)
