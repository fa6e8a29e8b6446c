"""Engine against the numpy encoder of engine_oracle.py."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_oracle as oracle
import numpy as np
import pytest

from bitpress.artifact import (
    ActivationSpec,
    ArtifactConfig,
    BinaryTensor,
    TaskSpec,
    TensorSpec,
    TernaryTensor,
    read_artifact,
    write_artifact,
)
from bitpress.errors import EngineError
from bitpress.runtime.engine import Engine, PackedTensor, quantize_rows
from bitpress.runtime.native import OPERATIONS

LENGTHS = [1, 5, 17, 40, 2]  # one token, and as many as the model has positions

# Values between quantizers are of magnitude 1 to 16 and pass about 100 roundings of 2^-24: 100 * 16 * 6e-8 = 1e-4 at
# worst, but roundings are independent, so their sum grows with the square root: 10 * 16 * 6e-8 = 1e-5; twice that.
ROUNDING = 2e-5
# A value within rounding error of the border between two codes may take either one. A step of one code is 1/255 of a
# range of about 4; it reaches the outputs through a row of weights, so 0.05 is ample, and a wrong formula is far off.
# With 4 bits a step is 17 times as large.
ONE_CODE = {8: 0.05, 4: 17 * 0.05}


def assert_equal_but_for_ties(found: np.ndarray, expected: np.ndarray, share: float = 0.95, bits: int = 8) -> None:
    """At least this share of the rows within rounding, the others within the effect of single codes.

    Where it is 95 %, seeds are such that no tie falls on a value state, which every token of its sequence sees.
    """
    error = np.abs(found - expected).max(1)
    assert error.max() < ONE_CODE[bits]
    assert np.mean(error < ROUNDING) >= share


def check_quantized(
    model: oracle.TinyModel, lengths: list[int], share: float = 0.95, threads: int | None = None
) -> None:
    """Each layer against the oracle's, both on the engine's own previous state, so that ties do not add up. Logits are
    computed from first tokens alone, where the last layer takes its short cut."""
    ids, types = oracle.random_batch(model, lengths)
    with model.engine(threads) as engine:
        states, logits = engine.hidden_states(ids, types), engine.forward(ids, types)
    np.testing.assert_allclose(states[0], oracle.embed(model, ids, types), atol=2e-6, rtol=0)
    bits = model.config.activation_bits
    for i in range(model.config.num_layers):
        expected = oracle.layer(model, i, states[i].astype(np.float64), lengths)
        assert_equal_but_for_ties(states[i + 1], expected, share, bits)
    assert_equal_but_for_ties(logits, oracle.classify(model, states[-1].astype(np.float64), lengths), share, bits)


@pytest.mark.parametrize("head", ["linear", "relu", "dense_relu", "dense_gelu"])
@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"])
def test_fp32_model(act: str, head: str) -> None:
    model = oracle.tiny_model(activation_range="fp32", hidden_act=act, head=head)
    ids, types = oracle.random_batch(model, LENGTHS)
    expected = oracle.hidden_states(model, ids, types)
    with model.engine() as engine:
        np.testing.assert_allclose(engine.hidden_states(ids, types), np.array(expected), atol=1e-5, rtol=0)
        logits = engine.forward(ids, types)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, oracle.classify(model, expected[-1], LENGTHS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("embedding_size", [1, 15, 16, 33])  # the hidden size is 24
def test_embeddings_of_another_width(embedding_size: int) -> None:
    model = oracle.tiny_model(activation_range="fp32", embedding_size=embedding_size)
    ids, types = oracle.random_batch(model, LENGTHS)
    expected = oracle.hidden_states(model, ids, types)
    with model.engine() as engine:
        np.testing.assert_allclose(engine.hidden_states(ids, types), np.array(expected), atol=1e-5, rtol=0)
    for form in (None, oracle.Form("uniform", 8), oracle.Form("binary", 1, group_rows=1)):
        check_quantized(oracle.tiny_model(3, embedding_size=embedding_size, word_form=form), LENGTHS)


def test_token_types_are_not_read_where_there_is_one() -> None:
    model = oracle.tiny_model()
    model.dense["embeddings.token_type.weight"] = model.dense["embeddings.token_type.weight"][:1]
    model.config = replace(model.config, type_vocab_size=1)
    ids, types = oracle.random_batch(model, LENGTHS)
    with model.engine() as engine:
        assert np.array_equal(engine.forward(ids, types), engine.forward(ids))


@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("activation_range", ["token", "static"])
@pytest.mark.parametrize("packing", ["2bit", "trits"])
def test_ternary_model(activation_range: str, symmetric: bool, clip: float | None, packing: str) -> None:
    model = oracle.tiny_model(
        3, packing=packing, activation_range=activation_range, activation_symmetric=symmetric, activation_clip=clip
    )
    check_quantized(model, LENGTHS)


@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("activation_range", ["token", "static"])
@pytest.mark.parametrize("form", [None, oracle.Form("uniform", 4, True, 1)], ids=["ternary", "int4"])
def test_four_bit_activations(
    form: oracle.Form | None, activation_range: str, symmetric: bool, clip: float | None
) -> None:
    model = oracle.tiny_model(
        3,
        form=form,
        activation_range=activation_range,
        activation_bits=4,
        activation_symmetric=symmetric,
        activation_clip=clip,
    )
    check_quantized(model, LENGTHS)


BINARY = [oracle.Form("binary", 1, group_rows=group, terms=terms) for group in (None, 1) for terms in (1, 2)]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("activation_range", ["token", "static"])
@pytest.mark.parametrize("form", BINARY, ids=str)
def test_binary_weights(form: oracle.Form, activation_range: str, symmetric: bool, bits: int) -> None:
    model = oracle.tiny_model(
        3,
        form=form,
        word_form=form,
        activation_range=activation_range,
        activation_bits=bits,
        activation_symmetric=symmetric,
    )
    check_quantized(model, LENGTHS, share=0.5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [{"hidden": 75, "heads": 3, "intermediate": 131}, {"heads": 2, "head_size": 17}])
def test_two_terms_of_odd_widths(sizes: dict[str, Any], threads: int) -> None:
    form = replace(BINARY[-1], terms=2)
    check_quantized(oracle.tiny_model(3, form=form, word_form=form, **sizes), MANY, share=0.5, threads=threads)


def test_binary_weights_among_others() -> None:
    """One layer of each kind: the inputs of query, key and value are quantized once for all three."""
    model = oracle.tiny_model(7, fp32_linears=("layers.0.attention.value", "layers.1.ffn.output"))
    rng = np.random.default_rng(8)
    forms = {"layers.0.attention.query": BINARY[1], "layers.1.ffn.intermediate": BINARY[0], "pooler.dense": BINARY[3]}
    for name, form in forms.items():
        codes, _ = model.codes.pop(f"{name}.weight")
        model.packed[f"{name}.weight"] = _, values = oracle.random_packed(rng, *codes.shape, form)
        model.dense[f"{name}.weight"] = values.astype(np.float32)
    check_quantized(model, LENGTHS, share=0.5)


@pytest.mark.parametrize("activation_bits", [8, 4])
def test_two_equal_scales_are_a_ternary_weight(activation_bits: int) -> None:
    """b1/2 + b2/2 is -1, 0 or 1. Oracle: the engine on ternary weights of scale 1, bit for bit; with these scales no
    float of either formula rounds before the same product."""
    ternary = oracle.tiny_model(3, activation_bits=activation_bits)
    binary = replace(ternary, codes={})
    for name, (codes, scale) in ternary.codes.items():
        ternary.codes[name] = codes, np.ones_like(scale)
        ternary.dense[name] = codes.astype(np.float32)
        # Both terms have the sign of the code; where it is 0, signs that differ.
        first = np.where(codes == 0, np.indices(codes.shape).sum(0) % 2, codes > 0)
        second = np.where(codes == 0, 1 - first, first)
        packed = np.packbits(np.stack([first, second]).astype(np.uint8), -1, "little")
        halves = np.full(2 * scale.size, 0.5, np.float32)
        rows = None if scale.size == 1 else 1
        binary.packed[name] = PackedTensor("binary", 1, packed, codes.shape[1], halves, group_rows=rows), codes
    ids, types = oracle.random_batch(ternary, LENGTHS)
    with ternary.engine() as engine, binary.engine() as other:
        assert np.array_equal(engine.forward(ids, types), other.forward(ids, types))
        assert np.array_equal(engine.hidden_states(ids, types), other.hidden_states(ids, types))


def test_two_terms_from_an_artifact_equal_those_from_tensors(tmp_path: Path) -> None:
    """Oracle: the engine on the tensors in memory."""
    model = oracle.tiny_model(10, form=BINARY[3], word_form=BINARY[3], activation_range="static", activation_bits=4)
    write_artifact(tmp_path / "artifact", artifact_config(model), artifact_tensors(model), model.ranges, {}, "", {})
    artifact = read_artifact(tmp_path / "artifact")
    for name in model.packed:
        assert np.array_equal(artifact.dense(name), model.dense[name])
    ids, types = oracle.random_batch(model, LENGTHS)
    assert np.array_equal(Engine.from_artifact(artifact).forward(ids, types), model.engine().forward(ids, types))


UNIFORM = [oracle.Form("uniform", bits, symmetric) for bits in (2, 3, 4, 8) for symmetric in (False, True)]
CODEBOOK = [oracle.Form("codebook", bits, outliers=outliers) for bits in (2, 3, 4) for outliers in (0, 2)]


@pytest.mark.parametrize("groups", [(None, None), (1, None), (5, None), (1, 32), (1, 64)])
@pytest.mark.parametrize("form", UNIFORM + CODEBOOK, ids=str)
def test_packed_linears(form: oracle.Form, groups: tuple[int | None, int | None]) -> None:
    """70 and 131 columns: the last group is short, whatever its length. A row has three times the values of the other
    models, so ties are common, on value states as well; a wrong formula shows in every row."""
    if form.scheme == "codebook" and groups not in ((None, None), (1, None)):
        pytest.skip("codebooks have one scale a matrix or a row")
    form = replace(form, group_rows=groups[0], group_cols=groups[1])
    model = oracle.tiny_model(3, form=form, hidden=70, heads=5, intermediate=131)
    check_quantized(model, [1, 5, 9, 2, 9, 9], share=0.5)


@pytest.mark.parametrize("groups", [(None, None), (1, None), (4, None), (1, 32)])
@pytest.mark.parametrize("form", UNIFORM + CODEBOOK, ids=str)
def test_packed_word_embedding(form: oracle.Form, groups: tuple[int | None, int | None]) -> None:
    if form.scheme == "codebook" and groups not in ((None, None), (1, None)):
        pytest.skip("codebooks have one scale a matrix or a row")
    form = replace(form, group_rows=groups[0], group_cols=groups[1])
    check_quantized(oracle.tiny_model(4, word_form=form, hidden=75), LENGTHS, share=0.5)


def test_ternary_linears_with_a_scale_a_row() -> None:
    model = oracle.tiny_model(5, linear="row")
    check_quantized(model, LENGTHS)


def test_panels_tell_how_many_are_fast() -> None:
    """24 outputs are two panels; 8-bit codes at both ends of their range are too large for the fast kernel, small ones
    are not."""
    form = oracle.Form("uniform", 8, symmetric=True)
    model = oracle.tiny_model(3, form=form, fp32_linears=("pooler.dense",))
    name = "layers.0.attention.query.weight"
    tensor, _ = model.packed[name]
    codes = np.full_like(tensor.codes, 128 + 64)
    codes[20, 2:4] = 255
    with Engine(model.config, model.tensors() | {name: replace(tensor, codes=codes)}) as engine:
        assert engine.panels(name) == (2, 1)
        assert engine.panels("pooler.dense.weight") == (0, 0)
        with pytest.raises(EngineError, match=r"'classifier\.weight': unknown name of a linear weight"):
            engine.panels("classifier.weight")


@pytest.mark.parametrize("word", ["row", "matrix", "fp32"])
@pytest.mark.parametrize("packing", ["2bit", "trits"])
def test_word_embedding(word: str, packing: str) -> None:
    check_quantized(oracle.tiny_model(4, word=word, packing=packing), LENGTHS)


@pytest.mark.parametrize(
    "sizes",
    [
        {
            "seed": 5,
            "hidden": 12,
            "heads": 12,
            "intermediate": 5,
        },  # head size 1; an intermediate below every block size
        {"seed": 5, "hidden": 64, "heads": 2, "intermediate": 64},  # whole blocks only; H = I
        {"seed": 12, "hidden": 78, "heads": 3, "intermediate": 81, "labels": 1},  # 26 a head, as TinyBERT's 312 / 12
        {"seed": 5, "hidden": 34, "heads": 1, "intermediate": 130, "layers": 1, "labels": 17},
    ],
)
@pytest.mark.parametrize("activation_range", ["token", "fp32"])
def test_shapes(sizes: dict[str, Any], activation_range: str) -> None:
    check_quantized(oracle.tiny_model(activation_range=activation_range, **sizes), LENGTHS)


# A < H and A > H: half of a teacher's heads, heads of one column, and A that pads to another stride than H or equals I.
ATTENTION: dict[str, dict[str, Any]] = {
    "3 heads of 13 in 78": {"hidden": 78, "heads": 3, "head_size": 13, "intermediate": 120},
    "3 heads of 1 in 24": {"heads": 3, "head_size": 1},
    "5 heads of 13 in 24": {"heads": 5, "head_size": 13},
    "1 head of 100 in 24": {"heads": 1, "head_size": 100},
    "4 heads of 32 in 40": {"hidden": 40, "heads": 4, "head_size": 32, "intermediate": 128},
    "1 head of 7 in 70": {"hidden": 70, "heads": 1, "head_size": 7},
}
# 25 rows are spread step by step; 130 are split into blocks, of which each thread takes one through all steps.
FEW, MANY = [1, 5, 17, 2], [40, 33, 1, 40, 16]


@pytest.mark.parametrize("lengths", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("form", ["fp32", "ternary", "int8"])
@pytest.mark.parametrize("sizes", ATTENTION.values(), ids=ATTENTION)
def test_attention_of_another_width(sizes: dict[str, Any], form: str, threads: int, lengths: list[int]) -> None:
    range_ = "fp32" if form == "fp32" else "token"
    packed = oracle.Form("uniform", 8, symmetric=True, group_rows=1) if form == "int8" else None
    model = oracle.tiny_model(13, form=packed, activation_range=range_, **sizes)
    check_quantized(model, lengths, share=0.5, threads=threads)


@pytest.mark.parametrize("tokens", [127, 128, 129, 512])
def test_long_sequences(tokens: int) -> None:
    model = oracle.tiny_model(6, positions=512, hidden=16, heads=2, intermediate=20, layers=1)
    check_quantized(model, [tokens, 3])


@pytest.mark.parametrize(
    "fp32_linears",
    [
        ("layers.0.attention.query",),
        ("layers.0.attention.key", "layers.0.attention.value", "layers.1.ffn.output", "pooler.dense"),
        tuple(oracle.linear_names(2)),
    ],
)
def test_fp32_linears_among_ternary_ones_take_unquantized_inputs(fp32_linears: tuple[str, ...]) -> None:
    for activation_range in ("token", "static"):
        model = oracle.tiny_model(7, activation_range=activation_range, fp32_linears=fp32_linears)
        check_quantized(model, LENGTHS)


def test_static_ranges_of_unused_points_are_not_needed() -> None:
    model = oracle.tiny_model(7, activation_range="static", fp32_linears=("pooler.dense", "layers.1.ffn.output"))
    del model.ranges["pooler.input"], model.ranges["layers.1.ffn.activation"]
    check_quantized(model, LENGTHS)


def test_type_ids_default_to_zero() -> None:
    model = oracle.tiny_model()
    ids, _ = oracle.random_batch(model, LENGTHS)
    with model.engine() as engine:
        assert np.array_equal(engine.forward(ids), engine.forward(ids, [[0] * n for n in LENGTHS]))


def test_no_texts() -> None:
    with oracle.tiny_model().engine() as engine:
        assert engine.forward([]).shape == (0, 3)
        assert engine.hidden_states([], []).shape == (3, 0, 24)


def test_constant_rows_have_no_range() -> None:
    """LayerNorm weight 0: all hidden states of a row are its bias, here one number, so every range is zero."""
    model = oracle.tiny_model(8, activation_clip=None)
    for name in ("embeddings.norm", "layers.0.attention.norm", "layers.0.ffn.norm", "layers.1.ffn.norm"):
        model.dense[f"{name}.weight"][:] = 0
        model.dense[f"{name}.bias"][:] = 0.25 if name == "embeddings.norm" else 0
    check_quantized(model, LENGTHS)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("clip", [None, 0.75])
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 31), (2, 64), (7, 129)])
def test_quantize_rows_is_the_formula_bit_for_bit(
    shape: tuple[int, int], symmetric: bool, clip: float | None, bits: int
) -> None:
    x = np.random.default_rng(9).standard_normal(shape).astype(np.float32)
    x[1:2] = 0  # a row without range
    found = quantize_rows(x, symmetric, clip, bits)
    if shape[0] == 0:
        assert [part.shape for part in found] == [(0, 5), (0,), (0,)]
        return
    model = oracle.tiny_model(activation_bits=bits, activation_symmetric=symmetric, activation_clip=clip)
    codes, scale, offset = oracle.quantize(model, "any", x)
    assert np.array_equal(found[0], codes)
    assert np.array_equal(found[1], scale[:, 0])
    assert np.array_equal(found[2], offset[:, 0])


@pytest.mark.parametrize(
    ("head_size", "bits", "embedding_size"), [(8, 8, None), (5, 8, 17), (8, 4, None)]
)  # 3 heads; the hidden size is 24
@pytest.mark.parametrize("activation_range", ["fp32", "token", "static"])
@pytest.mark.parametrize("packing", ["2bit", "trits"])
def test_from_artifact_equals_from_tensors(
    tmp_path: Path, packing: str, activation_range: str, head_size: int, bits: int, embedding_size: int | None
) -> None:
    """Oracle: the engine on the tensors in memory. The word embedding is read from the memory map after all Python
    references to it are gone."""
    model = oracle.tiny_model(
        10,
        packing=packing,
        activation_range=activation_range,
        head_size=head_size,
        activation_bits=bits,
        embedding_size=embedding_size,
    )
    write_artifact(tmp_path / "artifact", artifact_config(model), artifact_tensors(model), model.ranges, {}, "", {})
    ids, types = oracle.random_batch(model, LENGTHS)
    engine = Engine.from_artifact(read_artifact(tmp_path / "artifact"))
    gc.collect()
    assert np.array_equal(engine.forward(ids, types), model.engine().forward(ids, types))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_loading_keeps_no_second_copy_of_the_weights(tmp_path: Path) -> None:
    """The file's pages are given back as the engine takes its own form of each tensor; a pass then reads a few rows of
    the word embedding. Checking reads all of them, so without that the whole file would be resident."""
    model = oracle.tiny_model(10, hidden=256, heads=4, intermediate=1024)
    write_artifact(tmp_path / "artifact", artifact_config(model), artifact_tensors(model), model.ranges, {}, "", {})
    file = tmp_path / "artifact" / "model.safetensors"
    engine = Engine.from_artifact(read_artifact(tmp_path / "artifact"))
    engine.forward([[1, 2, 3]])
    assert resident_bytes(file) < 0.2 * file.stat().st_size


def resident_bytes(file: Path) -> int:
    """Memory of this process that is mapped from ``file``."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    found = 0
    for line in lines:
        if line.endswith(str(file)):
            found += next(int(part.split()[1]) * 1024 for part in lines if part.startswith("Rss:"))
    return found


def test_fp16_tensors_run_as_the_fp32_numbers_they_are(tmp_path: Path) -> None:
    """Oracle: the engine on the same numbers in fp32."""
    model = oracle.tiny_model(11)
    config, tensors = artifact_config(model), artifact_tensors(model)
    for name in model.dense.keys() - model.codes.keys():
        halves = model.dense[name].astype(np.float16)
        tensors[name], config.tensors[name] = halves, TensorSpec.fp16(halves.shape)
        model.dense[name] = halves.astype(np.float32)
    write_artifact(tmp_path / "artifact", config, tensors, model.ranges, {}, "", {})
    ids, types = oracle.random_batch(model, LENGTHS)
    found = Engine.from_artifact(read_artifact(tmp_path / "artifact")).forward(ids, types)
    assert np.array_equal(found, model.engine().forward(ids, types))


def artifact_tensors(model: oracle.TinyModel) -> dict[str, Any]:
    """Of a model of ternary and binary tensors."""
    ternary = {name: TernaryTensor(codes, scale) for name, (codes, scale) in model.codes.items()}
    return model.dense | ternary | {name: binary_tensor(tensor) for name, (tensor, _) in model.packed.items()}


def binary_tensor(tensor: PackedTensor) -> BinaryTensor:
    bits = np.unpackbits(tensor.codes, -1, tensor.cols, "little")
    return BinaryTensor(bits.astype(np.int8) * np.int8(2) - np.int8(1), tensor.scale.reshape(*bits.shape[:-2], -1))


def artifact_config(model: oracle.TinyModel) -> ArtifactConfig:
    c = model.config
    hf = {
        "model_type": "bert",
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_positions,
        "type_vocab_size": c.type_vocab_size,
        "hidden_size": c.hidden_size,
        "embedding_size": c.embedding_size or c.hidden_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "attention_head_size": oracle.head_size(model),
        "intermediate_size": c.intermediate_size,
        "hidden_act": c.hidden_act,
        "head": c.head,
        "layer_norm_eps": c.layer_norm_eps,
        "id2label": {str(i): f"label {i}" for i in range(c.num_labels)},
    }
    tensors = {name: TensorSpec.fp32(array.shape) for name, array in model.dense.items()}
    for name, (codes, scale) in model.codes.items():
        tensors[name] = TensorSpec.ternary(codes.shape, model.packing, "row" if scale.size > 1 else "matrix")
    for name, (tensor, _) in model.packed.items():
        group, terms = "row" if tensor.group_rows == 1 else "matrix", tensor.codes.ndim - 1
        tensors[name] = TensorSpec.binary(tensors[name].shape, group, terms=terms)
    if c.activation_range in ("fp32", "binary"):
        bits = 1 if c.activation_range == "binary" else 32
        activations = ActivationSpec(c.activation_range, bits, attention=c.attention)
    else:
        activations = ActivationSpec(
            "uniform", c.activation_bits, c.activation_symmetric, c.activation_range, c.activation_clip
        )
    return ArtifactConfig(hf, "test", activations, TaskSpec("classification", "accuracy", False), 40, tensors)


@pytest.mark.parametrize("threads", [1, 2])
def test_profile_accounts_for_all_of_the_time(threads: int) -> None:
    model = oracle.tiny_model()
    ids, types = oracle.random_batch(model, [30] * 8)
    with model.engine(threads=threads) as engine:
        engine.forward(ids, types)
        start = time.perf_counter()
        spent = engine.profile(ids, types)
        seconds = time.perf_counter() - start
    assert set(spent) == set(OPERATIONS)
    assert all(spent[name] > 0 for name in set(OPERATIONS) - {"waiting"})
    assert 0 < sum(spent.values()) <= threads * seconds
