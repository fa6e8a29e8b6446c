"""The native engine behind ctypes: a model from named tensors, batches of token ids in, logits out.

Shapes: V vocabulary, P positions, T token types, H hidden, L layers, I intermediate, C labels, n texts, N their tokens.
The C ABI and its promises are in ``native/include/bitpress.h``; ctypes releases the GIL during every call.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitpress.errors import EngineError
from bitpress.runtime import native
from bitpress.runtime.native import available_isas, check, hardware_threads, isa, library, library_path

if TYPE_CHECKING:
    from bitpress.artifact.reader import Artifact
    from bitpress.artifact.schema import ActivationSpec, ArtifactConfig

Floats = NDArray[np.float32]
TokenIds = Sequence[Sequence[int]]

__all__ = [
    "Engine",
    "EngineConfig",
    "PackedTernary",
    "available_isas",
    "describe_engine",
    "hardware_threads",
    "isa",
    "library_path",
    "quantize_rows",
]

MAX_THREADS = 256  # ThreadTeam::kMaxThreads

# The enums of bitpress.h. transformers computes gelu_new and gelu_pytorch_tanh by the same formula.
HIDDEN_ACTS = {"gelu": 0, "gelu_new": 1, "gelu_pytorch_tanh": 1, "relu": 2, "silu": 3, "swish": 3}
_RANGES = {"fp32": 0, "token": 1, "static": 2}
_CODES_PER_BYTE = {"2bit": 4, "trits": 5}
_PACKINGS = {"2bit": 0, "trits": 1}


@dataclass(frozen=True)
class EngineConfig:
    """What the engine must know of a model besides its tensors.

    ``hidden_act`` is a transformers name; ``activation_range``: "fp32", or "token" or "static" (8 bits);
    ``activation_clip``: c of clamp(x, −c, c) before quantization, or None.
    """

    vocab_size: int
    max_positions: int
    type_vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    num_labels: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    activation_range: str = "token"
    activation_symmetric: bool = False
    activation_clip: float | None = None

    @classmethod
    def from_artifact(cls, config: ArtifactConfig) -> EngineConfig:
        """Of a checked config.json."""
        activations: ActivationSpec = config.activations
        return cls(
            vocab_size=config.vocab_size,
            max_positions=config.max_position_embeddings,
            type_vocab_size=config.type_vocab_size,
            hidden_size=config.hidden_size,
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            num_labels=config.num_labels,
            hidden_act=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
            activation_range="fp32" if activations.scheme == "fp32" else activations.range,
            activation_symmetric=activations.symmetric,
            activation_clip=activations.clip,
        )

    def to_native(self) -> native.Config:
        """bp_config; EngineError for a name or a number that has no native form."""
        act = _choice("hidden_act", self.hidden_act, HIDDEN_ACTS)
        activation_range = _choice("activation_range", self.activation_range, _RANGES)
        fields = ("vocab_size", "max_positions", "type_vocab_size", "hidden_size", "num_layers", "num_heads")
        sizes = [getattr(self, name) for name in (*fields, "intermediate_size", "num_labels")]
        for name, size in zip((*fields, "intermediate_size", "num_labels"), sizes, strict=True):
            if not 0 <= size < 2**32:  # ctypes would wrap around; the engine checks the rest
                raise EngineError(f"config: {name} is {size}, which is no unsigned 32-bit number")
        symmetric = int(self.activation_symmetric)
        clip = self.activation_clip or 0.0
        return native.Config(native.ABI_VERSION, *sizes, act, activation_range, symmetric, clip, self.layer_norm_eps)


@dataclass(frozen=True)
class PackedTernary:
    """A ternary tensor as artifacts store it: ``codes`` uint8 [rows, row_bytes] of ``cols`` codes a row in ``packing``
    ("2bit" or "trits"), ``scale`` float32 [1] or, for the word embedding, [rows]."""

    codes: NDArray[np.uint8]
    cols: int
    packing: str
    scale: Floats


class Engine:
    """A model in the engine. Thread-safe: any number of threads may call it at once.

    While one call uses the worker threads, further ones run on their own calling threads.

    Args:
        config: sizes and numerics.
        tensors: every tensor by its canonical name (docs/artifact.md): float32 arrays, ternary ones `PackedTernary`.
        ranges: (scale, offset) of every activation point; only with ``activation_range="static"``.
        threads: at most this many threads a call; default: the environment variable BITPRESS_THREADS, else every
            processor that this process may use.

    Raises:
        EngineError: the library cannot be used here, or refuses the config or a tensor, which it then names.
    """

    def __init__(
        self,
        config: EngineConfig,
        tensors: Mapping[str, Floats | PackedTernary],
        ranges: Mapping[str, tuple[float, float]] | None = None,
        threads: int | None = None,
    ) -> None:
        self.config = config
        self._isa = isa()
        self._threads = _threads(threads)
        model = _Model(config)
        for name, tensor in tensors.items():
            model.set(name, tensor)
        for point, (scale, offset) in (ranges or {}).items():
            check(library().bp_model_set_range(model.pointer, point.encode(), scale, offset))
        check(library().bp_model_finish(model.pointer))
        self._model: _Model | None = model

    @classmethod
    def from_artifact(cls, artifact: Artifact, threads: int | None = None) -> Engine:
        """The model of a read artifact. A ternary word embedding stays in the artifact's memory map."""
        tensors: dict[str, Floats | PackedTernary] = {}
        for name, spec in artifact.config.tensors.items():
            if spec.is_float:
                tensors[name] = artifact.dense(name)
            elif spec.packing is None:
                raise EngineError(f"tensor {name!r}: this engine does not run scheme {spec.scheme!r} yet")
            else:
                codes, scale = artifact.tensors[f"{name}.codes"], artifact.tensors[f"{name}.scale"]
                tensors[name] = PackedTernary(codes, spec.shape[1], spec.packing, scale)
        return cls(EngineConfig.from_artifact(artifact.config), tensors, artifact.ranges, threads)

    @property
    def isa(self) -> str:
        """Instruction set whose kernels run: "reference", "avx2", …"""
        return self._isa

    @property
    def threads(self) -> int:
        """Threads that a call may use."""
        return self._threads

    def forward(self, ids: TokenIds, type_ids: TokenIds | None = None) -> Floats:
        """Logits float32 [n, C].

        Args:
            ids: n sequences of 1 to P token ids, special tokens included, without padding.
            type_ids: token types of the same lengths; None: all 0.

        Raises:
            EngineError: an id or a length that the model does not have; names the sequence and the token.
        """
        return self._run(ids, type_ids, keep_hidden_states=False)[0]

    def hidden_states(self, ids: TokenIds, type_ids: TokenIds | None = None) -> Floats:
        """float32 [L+1, N, H]: the embeddings' output, then each layer's, of all tokens one sequence after another.

        Arguments and errors as `forward`.
        """
        return self._run(ids, type_ids, keep_hidden_states=True)[1]

    def close(self) -> None:
        """Free the model, as soon as calls of other threads have ended; later calls raise EngineError."""
        self._model = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, ids: TokenIds, type_ids: TokenIds | None, keep_hidden_states: bool) -> tuple[Floats, Floats]:
        model = self._model  # keeps it alive through this call whatever another thread closes
        if model is None:
            raise EngineError("the engine is closed")
        lengths = np.fromiter(map(len, ids), np.uint32, len(ids))
        flat_ids = _flatten(ids, "ids")
        flat_types = None
        if type_ids is not None:
            if [len(row) for row in type_ids] != lengths.tolist():
                raise EngineError("type_ids and ids differ in the number or the lengths of their sequences")
            flat_types = _flatten(type_ids, "type_ids")
        logits = np.empty((len(ids), self.config.num_labels), np.float32)
        states = (self.config.num_layers + 1) if keep_hidden_states else 0
        hidden = np.empty((states, len(flat_ids), self.config.hidden_size), np.float32)
        status = library().bp_forward(
            model.pointer,
            flat_ids.ctypes.data,
            None if flat_types is None else flat_types.ctypes.data,
            lengths.ctypes.data,
            len(ids),
            logits.ctypes.data,
            hidden.ctypes.data if keep_hidden_states else None,
            self._threads,
        )
        check(status)
        return logits, hidden


class _Model:
    """Owns a bp_model and whatever memory it refers to."""

    def __init__(self, config: EngineConfig) -> None:
        self._free = library().bp_model_free
        self.pointer = ctypes.c_void_p()
        self._kept: list[NDArray[Any]] = []  # the word embedding is used in place
        check(library().bp_model_create(ctypes.byref(config.to_native()), ctypes.byref(self.pointer)))

    def __del__(self) -> None:
        if self.pointer:
            self._free(self.pointer)

    def set(self, name: str, tensor: Floats | PackedTernary) -> None:
        if isinstance(tensor, PackedTernary):
            self._set_ternary(name, tensor)
            return
        data = _array(name, tensor, np.float32)
        if data.ndim not in (1, 2):
            raise EngineError(f"tensor {name!r}: it has {data.ndim} dimensions, expected 1 or 2")
        rows, cols = (1, *data.shape) if data.ndim == 1 else data.shape
        status = library().bp_model_set_float(self.pointer, name.encode(), data.ctypes.data, rows, cols)
        check(status)

    def _set_ternary(self, name: str, tensor: PackedTernary) -> None:
        packing = _choice(f"tensor {name!r}: packing", tensor.packing, _PACKINGS)
        codes, scale = _array(name, tensor.codes, np.uint8), _array(name, tensor.scale, np.float32)
        row_bytes = -(-tensor.cols // _CODES_PER_BYTE[tensor.packing])
        # The library cannot see where the array ends.
        if tensor.cols < 1 or codes.ndim != 2 or codes.shape[1] != row_bytes or scale.ndim != 1:
            raise EngineError(
                f"tensor {name!r}: codes {list(codes.shape)} and scale {list(scale.shape)}, expect [rows, {row_bytes}]"
                f" for {tensor.cols} columns in packing {tensor.packing!r}, and a vector"
            )
        rows, pointer = codes.shape[0], codes.ctypes.data
        status = library().bp_model_set_ternary(
            self.pointer, name.encode(), pointer, rows, tensor.cols, packing, scale.ctypes.data, scale.size
        )
        check(status)
        if name == "embeddings.word.weight":
            self._kept.append(codes)


def quantize_rows(
    x: Floats, symmetric: bool = False, clip: float | None = None
) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """The engine's activation quantizer, one range a row: codes uint8 [rows, cols], scale and offset float32 [rows].

    Args:
        x: float32 [rows, cols], cols ≥ 1.
    """
    x = _array("x", x, np.float32)
    if x.ndim != 2:
        raise EngineError(f"x has {x.ndim} dimensions, expected 2: [rows, cols]")
    codes = np.empty(x.shape, np.uint8)
    scale, offset = np.empty(len(x), np.float32), np.empty(len(x), np.float32)
    outputs = (codes.ctypes.data, scale.ctypes.data, offset.ctypes.data)
    check(library().bp_quantize_rows(x.ctypes.data, *x.shape, int(symmetric), clip or 0.0, *outputs))
    return codes, scale, offset


def describe_engine() -> dict[str, Any]:
    """``library``, ``isa``, ``available_isas``, ``threads``, ``error`` (why the engine does not run, or None).

    Raises nothing.
    """
    report: dict[str, Any] = dict.fromkeys(("library", "isa", "available_isas", "threads", "error"))
    try:
        report["library"] = str(library_path())
        report["available_isas"] = available_isas()
        report["isa"] = isa()
        report["threads"] = _threads(None)
    except EngineError as error:
        report["error"] = str(error)
    return report


def _threads(threads: int | None) -> int:
    source = "threads"
    if threads is None:
        text = os.environ.get("BITPRESS_THREADS")
        if not text:
            return min(hardware_threads(), MAX_THREADS)
        source, threads = "BITPRESS_THREADS", int(text) if text.isdecimal() else 0
        if threads == 0:
            raise EngineError(f"BITPRESS_THREADS is {text!r}, allowed are 1 to {MAX_THREADS}")
    if not 1 <= threads <= MAX_THREADS:
        raise EngineError(f"{source} is {threads}, allowed are 1 to {MAX_THREADS}")
    return threads


def _choice(what: str, found: str, allowed: Mapping[str, int]) -> int:
    if found not in allowed:
        raise EngineError(f"{what} is {found!r}, allowed are {', '.join(allowed)}")
    return allowed[found]


def _array(name: str, data: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """data, C-contiguous; EngineError for another dtype, which would be read as garbage."""
    if data.dtype != dtype:
        raise EngineError(f"tensor {name!r}: the array is {data.dtype}, expected {np.dtype(dtype)}")
    return np.ascontiguousarray(data)


def _flatten(sequences: TokenIds, name: str) -> NDArray[np.int32]:
    """All integers one after another."""
    values = list(chain.from_iterable(sequences))
    if not values:
        return np.empty(0, np.int32)
    flat = np.asarray(values)
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise EngineError(f"{name} must be sequences of integers, found {flat.dtype} among them")
    bounds = np.iinfo(np.int32)
    if flat.min() < bounds.min or flat.max() > bounds.max:
        raise EngineError(f"{name} run from {flat.min()} to {flat.max()}, which no vocabulary has")
    return flat.astype(np.int32)
