"""The native engine behind ctypes: a model from named tensors, batches of token ids in, logits out.

Shapes: V vocabulary, P positions, T token types, H hidden, L layers, I intermediate, C labels, n texts, N their tokens.
The C ABI and its promises are in ``native/include/bitpress.h``; ctypes releases the GIL during every call.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitpress.errors import EngineError
from bitpress.runtime import native
from bitpress.runtime.native import (
    array,
    available_isas,
    check,
    choice,
    hardware_threads,
    isa,
    library,
    library_path,
)
from bitpress.runtime.packed_tensors import PackedTensor, packed_tensor, to_native

if TYPE_CHECKING:
    from bitpress.artifact.reader import Artifact
    from bitpress.artifact.schema import ActivationSpec, ArtifactConfig

Floats = NDArray[np.float32]
TokenIds = Sequence[Sequence[int]]

__all__ = [
    "PROFILED_LINEARS",
    "Engine",
    "EngineConfig",
    "PackedTensor",
    "apply_function",
    "available_isas",
    "describe_engine",
    "hardware_threads",
    "isa",
    "library_path",
    "machine_limits",
    "quantize_rows",
]

MAX_THREADS = 256  # ThreadTeam::kMaxThreads

# The enums of bitpress.h. transformers computes gelu_new and gelu_pytorch_tanh by the same formula.
HIDDEN_ACTS = {"gelu": 0, "gelu_new": 1, "gelu_pytorch_tanh": 1, "relu": 2, "silu": 3, "swish": 3}
_HEADS = {"linear": 0, "relu": 1, "dense_relu": 2, "dense_gelu": 3, "tokens": 4, "mean": 5, "cls": 6, "max": 7}
FUNCTIONS = HIDDEN_ACTS | {"tanh": 4, "exp": 5}
_RANGES = {"fp32": 0, "token": 1, "static": 2, "binary": 3}
_ATTENTIONS = {"bool": 0, "all": 1, "softmax": 2}

# The operations of `Engine.profile` that multiply by weights, in the order of a pass, and the matrices of a layer that
# each multiplies by.
PROFILED_LINEARS = {
    "query_key_value": ("attention.query", "attention.key", "attention.value"),
    "attention_output": ("attention.output",),
    "ffn_up": ("ffn.intermediate",),
    "ffn_down": ("ffn.output",),
}


@dataclass(frozen=True)
class EngineConfig:
    """What the engine must know of a model besides its tensors.

    ``head_size``: columns of an attention head, or None for H / heads; ``embedding_size``: columns of the embeddings,
    or None for H, where no projection follows them. ``hidden_act`` is a transformers name; ``head``: what the
    classifier reads (`bitpress.artifact.ArtifactConfig.head`), where there is none with ``num_labels`` H;
    ``activation_range``: "fp32", "token" or "static" (codes of ``activation_bits``, 8 or 4), or "binary";
    ``activation_clip``: c of clamp(x, −c, c) before quantization, or None. ``attention``, with "binary": which keys a
    query attends to, "bool" (BiBERT: scores ≥ 0), "all" or "softmax" (BiT: probabilities of at least half their scale;
    then tensors are also the numbers of `bitpress.artifact.elastic_entries`).
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
    head: str = "linear"
    layer_norm_eps: float = 1e-12
    activation_range: str = "token"
    activation_bits: int = 8
    activation_symmetric: bool = False
    activation_clip: float | None = None
    attention: str = "bool"
    head_size: int | None = None
    embedding_size: int | None = None

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
            num_labels=config.answer_size,
            hidden_act=config.hidden_act,
            head=config.head,
            layer_norm_eps=config.layer_norm_eps,
            activation_range=activations.range if activations.scheme == "uniform" else activations.scheme,
            activation_bits=activations.bits,
            activation_symmetric=activations.symmetric,
            activation_clip=activations.clip,
            attention=activations.attention,
            head_size=config.head_size,
            embedding_size=config.embedding_size,
        )

    @property
    def attention_size(self) -> int:
        """A, the columns of all heads."""
        return self.num_heads * self._columns_of_a_head()

    def _columns_of_a_head(self) -> int:
        if self.head_size is not None:
            return self.head_size
        if self.num_heads < 1 or self.hidden_size % self.num_heads:
            raise EngineError(
                f"config: hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}, and there is "
                "no head_size"
            )
        return self.hidden_size // self.num_heads

    def to_native(self) -> native.Config:
        """bp_config; EngineError for a name or a number that has no native form."""
        act = choice("hidden_act", self.hidden_act, HIDDEN_ACTS)
        activation_range = choice("activation_range", self.activation_range, _RANGES)
        fields = ("vocab_size", "max_positions", "type_vocab_size", "hidden_size", "num_layers", "num_heads")
        sizes = {name: getattr(self, name) for name in (*fields, "intermediate_size", "num_labels")}
        sizes["embedding_size"] = self.hidden_size if self.embedding_size is None else self.embedding_size
        sizes["head_size"] = self._columns_of_a_head()
        sizes["activation_bits"] = self.activation_bits if self.activation_range in ("token", "static") else 0
        for name, size in sizes.items():
            if not 0 <= size < 2**32:  # ctypes would wrap around; the engine checks the rest
                raise EngineError(f"config: {name} is {size}, which is no unsigned 32-bit number")
        return native.Config(
            abi_version=native.ABI_VERSION,
            **sizes,
            hidden_act=act,
            head=choice("head", self.head, _HEADS),
            activation_range=activation_range,
            activation_symmetric=int(self.activation_symmetric),
            attention=choice("attention", self.attention, _ATTENTIONS),
            activation_clip=self.activation_clip or 0.0,
            layer_norm_eps=self.layer_norm_eps,
        )


class Engine:
    """A model in the engine. Thread-safe: any number of threads may call it at once.

    While one call uses the worker threads, further ones run on their own calling threads.

    Args:
        config: sizes and numerics.
        tensors: every tensor by its canonical name (docs/artifact.md), or pairs, of which each is dropped before the
            next is taken: float32 arrays, packed ones `PackedTensor`.
        ranges: (scale, offset) of every activation point; only with ``activation_range="static"``.
        threads: at most this many threads a call; default: the environment variable BITPRESS_THREADS, else every
            processor that this process may use.

    Raises:
        EngineError: the library cannot be used here, or refuses the config or a tensor, which it then names.
    """

    def __init__(
        self,
        config: EngineConfig,
        tensors: Mapping[str, Floats | PackedTensor] | Iterable[tuple[str, Floats | PackedTensor]],
        ranges: Mapping[str, tuple[float, float]] | None = None,
        threads: int | None = None,
    ) -> None:
        self.config = config
        self._isa = isa()
        self._threads = _threads(threads)
        model = _Model(config)
        for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
            model.set(name, tensor)
        for point, (scale, offset) in (ranges or {}).items():
            check(library().bp_model_set_range(model.pointer, point.encode(), scale, offset))
        check(library().bp_model_finish(model.pointer))
        self._model: _Model | None = model

    @classmethod
    def from_artifact(cls, artifact: Artifact, threads: int | None = None) -> Engine:
        """The model of a read artifact. A packed word embedding stays in the artifact's memory map."""

        def tensors() -> Iterator[tuple[str, Floats | PackedTensor]]:
            for name, spec in artifact.config.tensors.items():
                # Positions are added in fp32: their table is small, and every text reads the start of it.
                is_dense = spec.is_float or name == "embeddings.position.weight"
                yield name, artifact.dense(name) if is_dense else packed_tensor(artifact, name, spec)
                # The engine has its own form of it now, and of the word embedding looks up a few rows a text.
                artifact.release_pages()
            yield from artifact.elastic.items()

        return cls(EngineConfig.from_artifact(artifact.config), tensors(), artifact.ranges, threads)

    @property
    def isa(self) -> str:
        """Instruction set whose kernels run: "reference", "avx2", …"""
        return self._isa

    @property
    def threads(self) -> int:
        """Threads that a call may use."""
        return self._threads

    def forward(self, ids: TokenIds, type_ids: TokenIds | None = None) -> Floats:
        """Logits float32 [n, C]; with head "tokens" [N, C], of all tokens, one sequence after another; without a
        classifier vectors [n, H].

        Args:
            ids: n sequences of 1 to P token ids, special tokens included, without padding.
            type_ids: token types of the same lengths; None: all 0. A model of one type does not read them.

        Raises:
            EngineError: an id or a length that the model does not have; names the sequence and the token.
        """
        return self._run(ids, type_ids, keep_hidden_states=False)[0]

    def hidden_states(self, ids: TokenIds, type_ids: TokenIds | None = None) -> Floats:
        """float32 [L+1, N, H]: the embeddings' output, then each layer's, of all tokens one sequence after another.

        Arguments and errors as `forward`.
        """
        return self._run(ids, type_ids, keep_hidden_states=True)[1]

    def profile(self, ids: TokenIds, type_ids: TokenIds | None = None) -> dict[str, float]:
        """Seconds that a forward call spends in each of native.OPERATIONS, summed over its threads.

        "waiting" is what is left of duration times threads. Arguments and errors as `forward`.
        """
        batch = self._batch(ids, type_ids)
        logits = self._logits(batch)
        nanoseconds = np.zeros(len(native.OPERATIONS), np.uint64)
        check(library().bp_profile(*batch.arguments, logits.ctypes.data, self._threads, nanoseconds.ctypes.data))
        return {name: float(spent) * 1e-9 for name, spent in zip(native.OPERATIONS, nanoseconds, strict=True)}

    def panels(self, name: str) -> tuple[int, int]:
        """(all, fast): panels of 16 outputs of a packed linear weight, and how many of them the fast kernel multiplies.

        A panel with two neighbouring weights whose magnitudes add up to more than 128 takes a slower kernel; of weights
        in fp32 and of those of 1-bit activations there are (0, 0).

        Raises:
            EngineError: no linear weight has that name, or the engine is closed.
        """
        if self._model is None:
            raise EngineError("the engine is closed")
        counts = (ctypes.c_size_t(), ctypes.c_size_t())
        check(library().bp_model_panels(self._model.pointer, name.encode(), *map(ctypes.byref, counts)))
        return counts[0].value, counts[1].value

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
        batch = self._batch(ids, type_ids)
        logits = self._logits(batch)
        states = (self.config.num_layers + 1) if keep_hidden_states else 0
        hidden = np.empty((states, len(batch.ids), self.config.hidden_size), np.float32)
        status = library().bp_forward(
            *batch.arguments, logits.ctypes.data, hidden.ctypes.data if keep_hidden_states else None, self._threads
        )
        check(status)
        return logits, hidden

    def _logits(self, batch: _Batch) -> Floats:
        rows = len(batch.ids) if self.config.head == "tokens" else len(batch.lengths)
        return np.empty((rows, self.config.num_labels), np.float32)

    def _batch(self, ids: TokenIds, type_ids: TokenIds | None) -> _Batch:
        model = self._model
        if model is None:
            raise EngineError("the engine is closed")
        lengths = np.fromiter(map(len, ids), np.uint32, len(ids))
        flat_types = None
        if type_ids is not None:
            if [len(row) for row in type_ids] != lengths.tolist():
                raise EngineError("type_ids and ids differ in the number or the lengths of their sequences")
            # Tokenizers tell the texts of a pair apart for models that do not, too (DistilBERT has BERT's).
            flat_types = _flatten(type_ids, "type_ids") if self.config.type_vocab_size > 1 else None
        return _Batch(model, _flatten(ids, "ids"), flat_types, lengths)


@dataclass(frozen=True)
class _Batch:
    """One batch in native form. Keeps model and arrays alive through the call, whatever another thread closes."""

    model: _Model
    ids: NDArray[np.int32]
    type_ids: NDArray[np.int32] | None
    lengths: NDArray[np.uint32]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The first five arguments of bp_forward and bp_profile."""
        types = None if self.type_ids is None else self.type_ids.ctypes.data
        return self.model.pointer, self.ids.ctypes.data, types, self.lengths.ctypes.data, len(self.lengths)


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

    def set(self, name: str, tensor: Floats | PackedTensor) -> None:
        if isinstance(tensor, PackedTensor):
            packed, arrays = to_native(name, tensor)
            check(library().bp_model_set_packed(self.pointer, name.encode(), ctypes.byref(packed)))
            if name == "embeddings.word.weight":
                self._kept.append(arrays[0])  # the codes
            return
        data = array(name, tensor, np.float32)
        if data.ndim not in (1, 2):
            raise EngineError(f"tensor {name!r}: it has {data.ndim} dimensions, expected 1 or 2")
        rows, cols = (1, *data.shape) if data.ndim == 1 else data.shape
        status = library().bp_model_set_float(self.pointer, name.encode(), data.ctypes.data, rows, cols)
        check(status)


def quantize_rows(
    x: Floats, symmetric: bool = False, clip: float | None = None, bits: int = 8
) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """The engine's activation quantizer, one range a row: codes uint8 [rows, cols], scale and offset float32 [rows].

    Args:
        x: float32 [rows, cols], cols ≥ 1.
        bits: 8 or 4.
    """
    x = array("x", x, np.float32)
    if x.ndim != 2:
        raise EngineError(f"x has {x.ndim} dimensions, expected 2: [rows, cols]")
    codes = np.empty(x.shape, np.uint8)
    scale, offset = np.empty(len(x), np.float32), np.empty(len(x), np.float32)
    outputs = (codes.ctypes.data, scale.ctypes.data, offset.ctypes.data)
    check(library().bp_quantize_rows(x.ctypes.data, *x.shape, bits, int(symmetric), clip or 0.0, *outputs))
    return codes, scale, offset


def apply_function(name: str, x: Floats) -> None:
    """An elementwise function of the engine in place on float32 ``x`` (C-contiguous): a hidden_act, "tanh" or "exp"."""
    function = choice("function", name, FUNCTIONS)
    if x.dtype != np.float32 or not x.flags.c_contiguous:
        raise EngineError(f"x is {x.dtype}, contiguous: {x.flags.c_contiguous}; expected float32, contiguous")
    check(library().bp_apply(function, x.ctypes.data, x.size))


def machine_limits() -> tuple[float, float]:
    """What one thread can do at most: fp32 multiply-adds a second in registers, bytes a second copied in memory."""
    multiply_adds, copied_bytes = ctypes.c_double(), ctypes.c_double()
    check(library().bp_machine_limits(ctypes.byref(multiply_adds), ctypes.byref(copied_bytes)))
    return multiply_adds.value, copied_bytes.value


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
