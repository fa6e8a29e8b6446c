"""Refusals of the engine: the text names what was found and what is allowed."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_oracle as oracle
import numpy as np
import pytest

from bitpress.artifact import Outliers
from bitpress.errors import EngineError
from bitpress.runtime.engine import Engine, PackedTensor, apply_function, quantize_rows

QUERY = "layers.0.attention.query.weight"
WORD = "embeddings.word.weight"


def build(model: oracle.TinyModel, **changes: Any) -> Engine:
    """The engine of ``model`` with some tensors replaced, or left out where the value is None."""
    tensors = model.tensors() | changes
    return Engine(model.config, {name: t for name, t in tensors.items() if t is not None}, model.ranges)


def refuses(text: str) -> Any:
    return pytest.raises(EngineError, match=re.escape(text))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"vocab_size": 0}, "config: vocab_size is 0, allowed are 1 to "),
        ({"vocab_size": 2**32}, "config: vocab_size is 4294967296, which is no unsigned 32-bit number"),
        ({"num_layers": -1}, "config: num_layers is -1, which is no unsigned"),
        ({"num_layers": 5000}, "config: num_layers is 5000, allowed are 1 to 1024"),
        ({"max_positions": 1 << 16}, "config: max_positions is 65536, allowed are 1 to 32768"),
        ({"num_heads": 5}, "config: hidden_size 24 is not a multiple of num_heads 5, and there is no head_size"),
        ({"num_heads": 0}, "config: hidden_size 24 is not a multiple of num_heads 0"),
        ({"num_heads": 0, "head_size": 8}, "config: num_heads is 0, allowed are 1 to 1048576"),
        ({"head_size": 0}, "config: head_size is 0, allowed are 1 to 33024"),
        ({"head_size": -1}, "config: head_size is -1, which is no unsigned 32-bit number"),
        ({"num_heads": 1 << 10, "head_size": 1 << 11}, "num_heads * head_size is 2097152, allowed are 1 to 1048576"),
        (
            {"hidden_act": "mish"},
            "hidden_act is 'mish', allowed are gelu, gelu_new, gelu_pytorch_tanh, relu, silu, swish",
        ),
        ({"head": "mlp"}, "head is 'mlp', allowed are linear, relu"),
        ({"activation_range": "tensor"}, "activation_range is 'tensor', allowed are fp32, token, static"),
        (
            {"activation_bits": 5},
            "config: activation_bits is 5, allowed are 8 and 4 with uint8 codes and 0 with others",
        ),
        ({"activation_clip": -1.0}, "config: activation_clip is -1.0"),
        ({"activation_clip": float("nan")}, "config: activation_clip is nan"),
        ({"layer_norm_eps": 0.0}, "config: layer_norm_eps is 0.0"),
    ],
)
def test_config(change: dict[str, Any], text: str) -> None:
    with refuses(text):
        Engine(replace(oracle.tiny_model().config, **change), {})


@pytest.mark.parametrize(
    ("name", "tensor", "text"),
    [
        (
            "layers.2.ffn.norm.bias",
            np.zeros(24, np.float32),
            "'layers.2.ffn.norm.bias': unknown name; a model of 2 layers",
        ),
        ("x" * 300, np.zeros(1, np.float32), f"tensor '{'x' * 120}...': unknown name"),
        ("a\nb\x1b", np.zeros(1, np.float32), "tensor 'a?b?': unknown name"),
        ("classifier.bias", np.zeros(4, np.float32), "'classifier.bias': the shape is 1 x 4, expected 1 x 3"),
        (
            "classifier.weight",
            np.zeros((24, 3), np.float32),
            "'classifier.weight': the shape is 24 x 3, expected 3 x 24",
        ),
        ("classifier.weight", np.zeros((3, 24, 1), np.float32), "'classifier.weight': it has 3 dimensions"),
        ("classifier.weight", np.zeros((3, 24)), "'classifier.weight': the array is float64, expected float32"),
        ("classifier.bias", None, "the model is incomplete: tensor 'classifier.bias' (1 x 3) is missing"),
    ],
)
def test_fp32_tensor(name: str, tensor: Any, text: str) -> None:
    with refuses(text):
        build(oracle.tiny_model(), **{name: tensor})


def test_missing_tensors_are_counted() -> None:
    with refuses("tensor 'embeddings.word.weight' (53 x 24) is missing, and 1 more"):
        build(oracle.tiny_model(), **{QUERY: None, WORD: None})


def ternary(rows: int, cols: int, packing: str = "bits", **change: Any) -> PackedTensor:
    row_bytes = -(-cols // {"bits": 4, "trits": 5}.get(packing, 1))
    codes, scale = np.zeros((rows, row_bytes), np.uint8), np.ones(1, np.float32)
    return replace(PackedTensor("ternary", 2, codes, cols, scale, packing=packing), **change)


def uniform(rows: int, cols: int, bits: int = 4, **change: Any) -> PackedTensor:
    codes, one = np.zeros((rows, -(-cols * bits // 8)), np.uint8), np.ones(1, np.float32)
    return replace(PackedTensor("uniform", bits, codes, cols, one, one), **change)


def two_terms(rows: int, cols: int, **change: Any) -> PackedTensor:
    codes = np.zeros((2, rows, -(-cols // 8)), np.uint8)
    return replace(PackedTensor("binary", 1, codes, cols, np.ones(2, np.float32)), **change)


def codes_with(rows: int, width: int, row: int, column: int, byte: int) -> np.ndarray:
    codes = np.zeros((rows, width), np.uint8)
    codes[row, column] = byte
    return codes


@pytest.mark.parametrize(
    ("name", "tensor", "text"),
    [
        ("classifier.weight", ternary(3, 24), "'classifier.weight': given packed, must be fp32"),
        ("embeddings.position.weight", ternary(40, 24), "given packed, must be fp32"),
        ("classifier.bias", ternary(1, 3), "given packed, must be fp32"),
        (QUERY, ternary(24, 23), f"'{QUERY}': the shape is 24 x 23, expected 24 x 24"),
        (QUERY, ternary(24, 24, scale=np.ones(24, np.float32)), "it has 24 scales, expected 1"),
        (WORD, ternary(53, 24, scale=np.ones(24, np.float32), group_rows=1), "it has 24 scales, expected 53"),
        (WORD, ternary(53, 24, scale=np.ones(0, np.float32)), "it has 0 scales, expected 1"),
        (QUERY, ternary(24, 24, scale=np.zeros(1, np.float32)), "scale 0 is 0.0"),
        (QUERY, ternary(24, 24, scale=np.array([np.inf], np.float32)), "scale 0 is inf"),
        (QUERY, ternary(24, 24, scale=np.array([np.nan], np.float32)), "scale 0 is nan"),
        (QUERY, ternary(24, 24, scale=np.ones(1)), "the array is float64, expected float32"),
        (QUERY, ternary(24, 24, "octal"), "packing is 'octal', allowed are bits, trits"),
        (
            QUERY,
            ternary(24, 24, codes=np.zeros((24, 5), np.uint8)),
            "codes [24, 5], expected [rows, 6] for 24 ",
        ),
        (QUERY, ternary(24, 24, codes=np.zeros(144, np.uint8)), "codes [144], expected"),
        (QUERY, ternary(24, 24, codes=np.zeros((24, 6), np.int8)), "the array is int8, expected uint8"),
        # 10 in the first code, in the last one, and in the middle of the word embedding
        (
            QUERY,
            ternary(24, 24, codes=codes_with(24, 6, 0, 0, 0b10)),
            "row 0 holds bytes that are no 2-bit ternary codes",
        ),
        (QUERY, ternary(24, 24, codes=codes_with(24, 6, 23, 5, 0b10000000)), "row 23 holds bytes that are no 2-bit"),
        (WORD, ternary(53, 24, codes=codes_with(53, 6, 26, 3, 0b001000)), "row 26 holds bytes that are no 2-bit"),
        # 24 trits: four digits in the last byte, so at most 80
        (QUERY, ternary(24, 24, "trits", codes=codes_with(24, 5, 1, 4, 81)), "row 1 holds bytes that are no base-3"),
        (QUERY, ternary(24, 24, "trits", codes=codes_with(24, 5, 2, 0, 243)), "row 2 holds bytes that are no base-3"),
    ],
)
def test_ternary_tensor(name: str, tensor: PackedTensor, text: str) -> None:
    with refuses(text):
        build(oracle.tiny_model(), **{name: tensor})


ONES = np.ones(24, np.float32)


def codebook(rows: int = 24, **changes: Any) -> PackedTensor:
    return uniform(rows, 24, scheme="codebook", offset=None, table=np.ones(16, np.int8), **changes)


def outliers(
    columns: list[int], values: list[float] | None = None, count: int | None = None, rows: int = 24
) -> Outliers:
    """All in row 1."""
    counts = np.zeros(rows, np.uint16)
    counts[1] = len(columns) if count is None else count
    numbers = np.array([1.0] * len(columns) if values is None else values, np.float32)
    return Outliers(counts, np.array(columns, np.uint16), numbers)


@pytest.mark.parametrize(
    ("name", "tensor", "text"),
    [
        (QUERY, uniform(24, 24, scheme="octal"), "scheme is 'octal', allowed are ternary, uniform, codebook"),
        (QUERY, uniform(24, 24, 5), "bits is 5, allowed are 2, 3, 4 and 8 for uniform codes"),
        (QUERY, uniform(24, 24, 9), "codes [24, 27], expected [rows, 27] for 24 columns of 9 bits"),
        (QUERY, uniform(24, 24, 3, codes=np.zeros((24, 8), np.uint8)), "codes [24, 8], expected [rows, 9]"),
        (QUERY, uniform(24, 24, group_rows=0), "groups of 0 rows x None columns, allowed are 1 and above"),
        (QUERY, uniform(24, 24, group_rows=25), "groups of 25 rows x 24 columns, allowed are whole rows"),
        (QUERY, uniform(24, 24, group_rows=1, group_cols=8), "groups of 1 rows x 8 columns, allowed are whole rows"),
        (QUERY, uniform(24, 24, group_rows=5, scale=ONES[:4]), "it has 4 scales, expected 5"),
        (QUERY, uniform(24, 24, group_rows=1, scale=ONES), "it has 1 offsets, expected 24"),
        (QUERY, uniform(24, 24, offset=np.full(1, np.nan, np.float32)), "offset 0 is nan, must be finite"),
        (QUERY, uniform(24, 24, scale=-ONES[:1]), "scale 0 is -1.000000, must be finite and positive"),
        (QUERY, uniform(24, 24, offset=np.ones(1)), "the array is float64, expected float32"),
        (QUERY, uniform(24, 24, offset=None), "row 0 holds bytes that are no 4-bit symmetric codes"),
        (QUERY, uniform(24, 24, table=np.zeros(16, np.int8)), "it has 16 table entries, expected 0"),
        (
            QUERY,
            uniform(24, 24, codes=np.zeros((2, 24, 12), np.uint8)),
            "terms is 2, allowed is 1, and 2 for binary codes",
        ),
        (QUERY, two_terms(24, 24, codes=np.zeros((3, 24, 3), np.uint8)), "terms is 3, allowed is 1, and 2 for binary"),
        (QUERY, two_terms(24, 24, codes=np.zeros((2, 24, 4), np.uint8)), "codes [2, 24, 4], expected [rows, 3]"),
        (QUERY, two_terms(24, 24, codes=np.zeros((1, 2, 24, 3), np.uint8)), "codes [1, 2, 24, 3], expected [rows, 3]"),
        (QUERY, two_terms(23, 24), "the shape is 23 x 24, expected 24 x 24"),
        (QUERY, two_terms(24, 24, scale=ONES[:1]), "it has 1 scales, expected 2"),
        (QUERY, two_terms(24, 24, group_rows=1), "it has 2 scales, expected 48"),
        (QUERY, two_terms(24, 24, scale=-ONES[:2]), "scale 0 is -1.000000, must be finite and positive"),
        (QUERY, uniform(24, 24, scheme="codebook"), "only uniform codes have offsets"),
        (QUERY, uniform(24, 24, scheme="codebook", offset=None), "it has 0 table entries, expected 16"),
        (QUERY, uniform(24, 24, outliers=outliers([5])), "only codebook weights have outliers"),
        (QUERY, codebook(outliers=outliers([3, 2])), "outlier 1 is in column 2 of row 1, allowed are 4 to 23"),
        (QUERY, codebook(outliers=outliers([3, 3])), "outlier 1 is in column 3 of row 1, allowed are 4 to 23"),
        (QUERY, codebook(outliers=outliers([3, 24])), "outlier 1 is in column 24 of row 1, allowed are 4 to 23"),
        (QUERY, codebook(outliers=outliers([23, 65535])), "outlier 1 is in column 65535 of row 1, allowed are 24 to"),
        (QUERY, codebook(outliers=outliers([1, 2], count=3)), "it has 2 outliers, expected 3"),
        (QUERY, codebook(outliers=outliers([])), "outliers need counts, columns and values, or none of them"),
        (QUERY, codebook(outliers=outliers([1], [np.inf])), "outlier 0 is inf, must be finite"),
        (QUERY, codebook(outliers=outliers([1], [3e38])), "outlier 0 is above half of the largest float in size"),
        (QUERY, codebook(outliers=outliers([1], rows=23)), "outlier counts [23], columns [1] and values [1], expected"),
        (QUERY, codebook(outliers=outliers([1], [1, 2])), "outlier counts [24], columns [1] and values [2], expected"),
        (WORD, codebook(53, outliers=outliers([24], rows=53)), "outlier 0 is in column 24 of row 1, allowed are 0 to"),
    ],
)
def test_packed_tensor(name: str, tensor: PackedTensor, text: str) -> None:
    with refuses(text):
        build(oracle.tiny_model(), **{name: tensor})


def test_padding_bits_of_two_bit_rows() -> None:
    """22 columns: two codes in the last byte; the bits above them must be zero."""
    model = oracle.tiny_model(hidden=22, heads=2)
    build(model, **{QUERY: ternary(22, 22, codes=codes_with(22, 6, 0, 5, 0b1101))})
    with refuses("row 0 holds bytes that are no 2-bit"):
        build(model, **{QUERY: ternary(22, 22, codes=codes_with(22, 6, 0, 5, 0b11101))})


def test_largest_bytes_of_trits_are_valid() -> None:
    codes = np.full((24, 5), 242, np.uint8)
    codes[:, 4] = 80
    build(oracle.tiny_model(), **{QUERY: ternary(24, 24, "trits", codes=codes)})


def test_ternary_linear_in_an_fp32_model() -> None:
    with refuses(f"'{QUERY}': packed linear weights need uint8 activations"):
        build(oracle.tiny_model(activation_range="fp32"), **{QUERY: ternary(24, 24)})


@pytest.mark.parametrize(
    ("point", "found", "text"),
    [
        ("layers.9.ffn.input", (1.0, 0.0), "range 'layers.9.ffn.input': unknown activation point"),
        ("pooler.input", (0.0, 0.0), "range 'pooler.input': scale 0.0"),
        ("pooler.input", (float("inf"), 0.0), "range 'pooler.input': scale inf"),
        ("pooler.input", (1.0, float("nan")), "offset nan"),
        ("layers.1.attention.probabilities", None, "incomplete: range 'layers.1.attention.probabilities' is missing"),
    ],
)
def test_range(point: str, found: tuple[float, float] | None, text: str) -> None:
    model = oracle.tiny_model(activation_range="static")
    if found is None:
        del model.ranges[point]
    else:
        model.ranges[point] = found
    with refuses(text):
        model.engine()


def test_range_of_a_model_without_static_ranges() -> None:
    model = oracle.tiny_model()
    with refuses("range 'pooler.input': given to a model without static activation ranges"):
        Engine(model.config, model.tensors(), {"pooler.input": (1.0, 0.0)})


@pytest.mark.parametrize(
    ("ids", "types", "text"),
    [
        ([[1, 2], []], None, "sequence 1 has 0 tokens, allowed are 1 to 40"),
        ([[1], [1] * 41], None, "sequence 1 has 41 tokens, allowed are 1 to 40"),
        ([[1], [2, 53]], None, "sequence 1, token 1: id is 53, allowed are 0 to 52"),
        ([[-1]], None, "sequence 0, token 0: id is -1"),
        ([[1, 2]], [[0, 2]], "sequence 0, token 1: type id is 2, allowed are 0 to 1"),
        ([[1, 2]], [[0, -1]], "sequence 0, token 1: type id is -1"),
        ([[1, 2]], [[0]], "type_ids and ids differ in the number or the lengths"),
        ([[1, 2]], [[0, 0], [0]], "type_ids and ids differ in the number or the lengths"),
        ([[2**31]], None, "ids run from 2147483648 to 2147483648"),
        ([[1, 2**70]], None, "ids must be sequences of integers"),
        ([[1.5]], None, "ids must be sequences of integers, found float64 among them"),
        ([["1"]], None, "ids must be sequences of integers"),
        ([[None]], None, "ids must be sequences of integers"),
    ],
)
def test_batch(ids: Any, types: Any, text: str) -> None:
    with oracle.tiny_model().engine() as engine:
        with refuses(text):
            engine.forward(ids, types)
        assert engine.forward([[1, 2]]).shape == (1, 3)  # a refused call leaves the engine as it was


def test_closed_engine() -> None:
    engine = oracle.tiny_model().engine()
    engine.close()
    engine.close()
    with refuses("the engine is closed"):
        engine.forward([[1]])


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_threads(threads: int) -> None:
    with refuses(f"threads is {threads}, allowed are 1 to 256"):
        oracle.tiny_model().engine(threads)


def test_quantize_rows() -> None:
    with refuses("x has 1 dimensions"):
        quantize_rows(np.zeros(3, np.float32))
    with refuses("the array is float64"):
        quantize_rows(np.zeros((3, 3)))  # type: ignore[arg-type]
    with refuses("cols is 0"):
        quantize_rows(np.zeros((3, 0), np.float32))
    with refuses("clip is -1.0"):
        quantize_rows(np.zeros((3, 3), np.float32), clip=-1.0)
    with refuses("bits is 2, allowed are 8 and 4"):
        quantize_rows(np.zeros((3, 3), np.float32), bits=2)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "BITPRESS_LIBRARY names .*, which is not a file"),
        (lambda path: path.write_text("no library"), "cannot be loaded as the engine"),
        (lambda path: path.symlink_to(_some_library()), "cannot be loaded as the engine.*bp_abi_version"),
    ],
)
def test_library_that_is_no_engine(tmp_path: Path, make: Any, text: str) -> None:
    path = tmp_path / "libother.so"
    make(path)
    code = "from bitpress.runtime.engine import describe_engine; print(describe_engine()['error'])"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"BITPRESS_LIBRARY": str(path)}, capture_output=True, text=True, timeout=60
    )
    assert re.search(text, found.stdout), found


def _some_library() -> str:
    import _ctypes

    return str(_ctypes.__file__)


def test_apply_function() -> None:
    x = np.array([-1.0, 0.0, 1.0], np.float32)
    apply_function("exp", x)
    assert np.allclose(x, np.exp([-1.0, 0.0, 1.0]), rtol=1e-6)
    with pytest.raises(EngineError, match=r"function is 'sin', allowed are gelu, .*tanh, exp"):
        apply_function("sin", x)
    with pytest.raises(EngineError, match="x is float64, contiguous: True; expected float32, contiguous"):
        apply_function("exp", np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="contiguous: False"):
        apply_function("exp", np.zeros((3, 3), np.float32)[:, :2])
