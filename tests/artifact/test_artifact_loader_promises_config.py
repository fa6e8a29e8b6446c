"""What the reader promises about a config.json that lies: one test a lie, named after it.

Oracle: the format as docs/artifact.md states it; each test breaks one sentence of it in a valid artifact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from artifact_samples import (
    QUERY,
    edit_config,
    edit_header,
    hf_config,
    join_container,
    make_config,
    make_embedding_config,
    make_spans_config,
    make_tokens_config,
    quantization,
    refused,
    split_container,
    write_sample,
)

from bitpress.artifact import TaskSpec, read_artifact
from bitpress.artifact.model_config import LIMITS, MAX_LABELS

# ---- config.json: the quantization part ------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [..., None, [], "bitpress", {}, {"quant_method": "gptq", "version": 1}])
def test_not_a_bitpress_config(artifact: Path, part: Any) -> None:
    edit_config(artifact, lambda d: d.pop("quantization_config") if part is ... else d.update(quantization_config=part))
    refused(artifact, "quant_method 'bitpress'")


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, True, "1", None, [1]])
def test_unknown_version(artifact: Path, version: Any) -> None:
    edit_config(artifact, lambda d: quantization(d).update(version=version, a_key_of_the_future=1))
    refused(artifact, "version is .*; this bitpress reads version 1")


@pytest.mark.parametrize("at", [(), ("activations",), ("task",), ("tensors", QUERY), ("tensors", "pooler.dense.bias")])
def test_unknown_key(artifact: Path, at: tuple[str, ...]) -> None:
    def add(document: dict[str, Any]) -> None:
        part = quantization(document)
        for key in at:
            part = part[key]
        part["surprise"] = 1

    edit_config(artifact, add)
    refused(artifact, "surprise")


@pytest.mark.parametrize("key", ["recipe", "activations", "max_length", "task", "tensors"])
def test_missing_key(artifact: Path, key: str) -> None:
    edit_config(artifact, lambda d: quantization(d).pop(key))
    refused(artifact, f"lacks the key '{key}'")


@pytest.mark.parametrize("key", ["recipe", "activations", "task", "tensors"])
@pytest.mark.parametrize("value", [None, 7, [], "", [{}], "../../etc\n"])
def test_part_of_another_type(artifact: Path, key: str, value: Any) -> None:
    edit_config(artifact, lambda d: quantization(d).update({key: value}))
    refused(artifact, key)


@pytest.mark.parametrize("scheme", ["int8", "bf16", "Ternary", "", None, 2, {}])
def test_unknown_scheme(artifact: Path, scheme: Any) -> None:
    edit_config(artifact, lambda d: quantization(d)["tensors"][QUERY].update(scheme=scheme))
    error = refused(artifact, "scheme is .*; version 1 has fp32, fp16, ternary, uniform, codebook, binary")
    assert error.tensor == QUERY


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("packing", "4bit", "packing is '4bit'; allowed are 2bit, trits"),
        ("packing", None, "packing is None"),
        ("packing", ["2bit"], "packing is"),
        ("group", "column", "group is 'column'; allowed are matrix, row"),
        ("group", {}, "group is {}"),
        ("bits", 1.6, "bits is 1.6; 2bit has 2"),
        ("bits", True, "bits is True"),
        ("bits", "2", "bits is '2'"),
    ],
)
def test_unknown_enum_value(artifact: Path, key: str, value: Any, match: str) -> None:
    edit_config(artifact, lambda d: quantization(d)["tensors"][QUERY].update({key: value}))
    assert refused(artifact, match).tensor == QUERY


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("scheme", "int8", "allowed are 'fp32', 'uniform' and 'binary'"),
        ("bits", 5, "bits is 5; allowed are 8 and 4"),
        ("bits", 8.0, "bits is 8.0"),
        ("bits", True, "bits is True"),
        ("symmetric", 0, "true or false"),
        ("range", "ema", "allowed are token, static"),
        ("range", "tensor", "would depend on the rest of its batch"),
        ("clip", 0, "clip is 0"),
        ("clip", -2.5, "clip is -2.5"),
        ("clip", 1e30, "at most 1e.06"),
        ("clip", True, "clip is True"),
    ],
)
def test_unknown_activation_quantizer(artifact: Path, key: str, value: Any, match: str) -> None:
    edit_config(artifact, lambda d: quantization(d)["activations"].update({key: value}))
    refused(artifact, match)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        (
            "kind",
            "tagging",
            "allowed are classification, regression, multilabel, token_classification, question_answering, embedding",
        ),
        ("kind", "regression", "the model has 3 labels; regression has exactly 1"),
        ("metric", "", "metric is ''"),
        ("pair", 1, "pair is 1"),
    ],
)
def test_unknown_task(artifact: Path, key: str, value: Any, match: str) -> None:
    edit_config(artifact, lambda d: quantization(d)["task"].update({key: value}))
    refused(artifact, match)


@pytest.mark.parametrize("max_length", [0, 1, 34, -1, 12.0, True, "32"])
def test_max_length_out_of_bounds(artifact: Path, max_length: Any) -> None:
    edit_config(artifact, lambda d: quantization(d).update(max_length=max_length))
    refused(artifact, "max_length is .*; an integer from 2 to 33")


@pytest.mark.parametrize("shape", [[22, 23], [23, 22], [484], [22.0, 22], [22, True], None, "22x22", [[22, 22]]])
def test_shape_disagrees_with_config(artifact: Path, shape: Any) -> None:
    edit_config(artifact, lambda d: quantization(d)["tensors"][QUERY].update(shape=shape))
    assert refused(artifact, r"shape is .*; the model's config gives \[22, 22\]").tensor == QUERY


def test_shape_in_file_disagrees_with_config(artifact: Path) -> None:
    def transpose(header: dict[str, Any]) -> None:
        header[f"{QUERY}.codes"]["shape"].reverse()

    edit_header(artifact, transpose)
    assert refused(artifact, r"is U8 \[6, 22\] .*; the config gives U8 \[22, 6\]").tensor == f"{QUERY}.codes"


def test_dtype_in_file_disagrees_with_config(artifact: Path) -> None:
    edit_header(artifact, lambda h: h["embeddings.norm.bias"].update(dtype="U8", shape=[88]))
    refused(artifact, r"tensor 'embeddings.norm.bias': is U8 \[88\] .*; the config gives F32 \[22\]")


def test_missing_tensor(artifact: Path) -> None:
    edit_config(artifact, lambda d: quantization(d)["tensors"].pop(QUERY))
    assert refused(artifact, "is missing from quantization_config.tensors").tensor == QUERY


def test_missing_tensor_in_file(artifact: Path) -> None:
    header, data = split_container(artifact)
    name, (begin, end) = max(((n, e["data_offsets"]) for n, e in header.items()), key=lambda item: item[1][1])
    del header[name]
    join_container(artifact, header, data[:begin])
    assert end == len(data)
    assert refused(artifact, "is missing from model.safetensors; U8 .* is expected").tensor == name


def test_unexpected_tensor(artifact: Path) -> None:
    entry = {"scheme": "fp32", "bits": 32, "shape": [22, 22]}
    edit_config(artifact, lambda d: quantization(d)["tensors"].update({"layers.2.attention.query.weight": entry}))
    refused(artifact, "tensor 'layers.2.attention.query.weight': stands in config.json")


def test_unexpected_tensor_in_file(artifact: Path) -> None:
    _, data = split_container(artifact)
    extra = {"dtype": "U8", "shape": [2], "data_offsets": [len(data), len(data) + 2]}
    edit_header(artifact, lambda h: h.update(payload=extra), extra=b"hi")
    assert refused(artifact, "stands in model.safetensors but").tensor == "payload"


# ---- config.json: the Hugging Face part ------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["albert", "BERT", None, 3, ["bert"]])
def test_other_model_type(artifact: Path, model_type: Any) -> None:
    edit_config(artifact, lambda d: d.update(model_type=model_type))
    refused(artifact, "model_type is .*; the engine runs bert, ")


@pytest.mark.parametrize("act", ["tanh", "GELU", None, 1, ["gelu"]])
def test_unsupported_hidden_act(artifact: Path, act: Any) -> None:
    edit_config(artifact, lambda d: d.update(hidden_act=act))
    refused(artifact, "hidden_act is .*; the engine runs gelu, gelu_new, relu, silu, swish")


@pytest.mark.parametrize("head", ["tanh", "hf", None, 1, ["relu"]])
def test_unsupported_head(artifact: Path, head: Any) -> None:
    edit_config(artifact, lambda d: d.update(head=head))
    refused(artifact, "head is .*; the engine runs linear, relu, dense_relu, dense_gelu, tokens")


def test_head_disagrees_with_task(artifact: Path, tmp_path: Path) -> None:
    task = {"kind": "token_classification"}
    edit_config(artifact, lambda d: quantization(d)["task"].update(task))
    refused(artifact, "kind is 'token_classification' but head is 'linear'; 'token_classification' goes with tokens")
    write_sample(tmp_path / "tokens", make_tokens_config())
    read_artifact(tmp_path / "tokens")
    edit_config(tmp_path / "tokens", lambda d: quantization(d)["task"].update(pair=True))
    refused(tmp_path / "tokens", "pair is true; token classification reads one text")
    edit_config(tmp_path / "tokens", lambda d: quantization(d)["task"].update(kind="classification", pair=False))
    refused(tmp_path / "tokens", "kind is 'classification' but head is 'tokens'")


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("doc_stride", 0, "doc_stride is 0; an integer from 1 to 65536 is expected"),
        ("max_query_length", True, "max_query_length is True; an integer from 1"),
        ("max_answer_length", 30.0, "max_answer_length is 30.0; an integer from 1"),
        ("no_answer_threshold", "0", "no_answer_threshold is '0'; null or a finite number is expected"),
        ("no_answer_threshold", False, "no_answer_threshold is False; null or a finite number is expected"),
        ("n_best", 20, "has the unknown key 'n_best'; allowed are"),
    ],
)
def test_spans_out_of_bounds(tmp_path: Path, key: str, value: Any, match: str) -> None:
    write_sample(tmp_path / "spans", make_spans_config())
    assert read_artifact(tmp_path / "spans").config == make_spans_config()
    edit_config(tmp_path / "spans", lambda d: quantization(d)["task"]["spans"].update({key: value}))
    refused(tmp_path / "spans", match)


def test_spans_disagree_with_task(artifact: Path, tmp_path: Path) -> None:
    edit_config(artifact, lambda d: quantization(d)["task"].update(spans={}))
    refused(artifact, "task has the unknown key 'spans'")
    for change, match in (
        ({"pair": False}, "pair is false; question answering reads a question and a context"),
        ({"spans": None}, "spans is NoneType; an object with"),
    ):
        write_sample(tmp_path / match[:5], make_spans_config())
        edit_config(tmp_path / match[:5], lambda d, change=change: quantization(d)["task"].update(change))
        refused(tmp_path / match[:5], match)
    write_sample(tmp_path / "tokens", make_tokens_config())
    spans = {"doc_stride": 1, "max_query_length": 1, "max_answer_length": 1, "no_answer_threshold": None}
    task = {"kind": "question_answering", "pair": True, "spans": spans}
    edit_config(tmp_path / "tokens", lambda d: quantization(d)["task"].update(task))
    refused(tmp_path / "tokens", "kind is 'question_answering' but the model has 3 labels, not two outputs")


def test_an_encoder_of_sentences(tmp_path: Path) -> None:
    write_sample(tmp_path / "a", make_embedding_config())
    assert read_artifact(tmp_path / "a").config.task.normalize
    assert read_artifact(tmp_path / "a").config.labels == []
    for change, match in (
        ({"pair": True}, "pair is true; embedding reads one text"),
        ({"normalize": 1}, "normalize is 1; true or false is expected"),
        ({"kind": "classification"}, r"task has the unknown key 'normalize'"),
    ):
        write_sample(tmp_path / "b", make_embedding_config())
        edit_config(tmp_path / "b", lambda d, change=change: quantization(d)["task"].update(change))
        refused(tmp_path / "b", match)
    edit_config(tmp_path / "a", lambda d: d.update(head="tokens"))
    refused(tmp_path / "a", "kind is 'embedding' but head is 'tokens'; 'embedding' goes with mean, cls, max")


def test_labels_that_go_together(tmp_path: Path) -> None:
    task = TaskSpec("multilabel", "micro_f1", False, threshold=0.3)
    config = make_config(task=task, model=hf_config(problem_type="multi_label_classification"))
    write_sample(tmp_path / "a", config)
    assert read_artifact(tmp_path / "a").config.task == task
    for change, match in (
        ({"threshold": 1}, "threshold is 1; a number between 0 and 1 is expected"),
        ({"threshold": "half"}, "threshold is 'half'; a number between 0 and 1"),
    ):
        edit_config(tmp_path / "a", lambda d, change=change: quantization(d)["task"].update(change))
        refused(tmp_path / "a", match)
    write_sample(tmp_path / "b", config)
    edit_config(tmp_path / "b", lambda d: d.pop("problem_type"))
    refused(tmp_path / "b", "kind is 'multilabel' but problem_type is None; make them agree")


def test_classifier_of_tokens_has_no_pooler(tmp_path: Path) -> None:
    write_sample(tmp_path / "tokens", make_tokens_config())
    pooler = {"scheme": "fp32", "bits": 32, "shape": [22]}
    edit_config(tmp_path / "tokens", lambda d: quantization(d)["tensors"].update({"pooler.dense.bias": pooler}))
    assert refused(tmp_path / "tokens", "a model of this config has no such tensor").tensor == "pooler.dense.bias"


@pytest.mark.parametrize("position", ["relative_key", "relative_key_query", None, 0])
def test_unsupported_position_embedding(artifact: Path, position: Any) -> None:
    edit_config(artifact, lambda d: d.update(position_embedding_type=position))
    refused(artifact, "position_embedding_type is .*; only 'absolute'")


@pytest.mark.parametrize("key", sorted(LIMITS))
@pytest.mark.parametrize("value", [0, -1, 2**62, 22.0, True, "22", None, [22], ...])
def test_size_out_of_bounds(artifact: Path, key: str, value: Any) -> None:
    edit_config(artifact, lambda d: d.pop(key) if value is ... else d.update({key: value}))
    refused(artifact, f"{key} is .*; an integer from 1 to {LIMITS[key]} is expected")


@pytest.mark.parametrize("key", sorted(LIMITS))
def test_largest_sizes_fail_without_allocation(artifact: Path, key: str) -> None:
    """Every size at its bound: refused by comparison with what is in the file, in no time."""
    edit_config(artifact, lambda d: d.update({key: LIMITS[key]}))
    refused(artifact, "multiple of num_attention_heads|the model's config gives|missing from quantization_config")


def test_heads_do_not_divide_hidden(artifact: Path) -> None:
    edit_config(artifact, lambda d: d.update(num_attention_heads=3))
    refused(artifact, "hidden_size 22 is not a multiple of num_attention_heads 3, and there is no attention_head_size")


@pytest.mark.parametrize("size", [0, -1, 2**14 + 1, 11.0, True, "11", None, [11]])
def test_attention_head_size_out_of_bounds(artifact: Path, size: Any) -> None:
    edit_config(artifact, lambda d: d.update(attention_head_size=size))
    refused(artifact, "attention_head_size is .*; an integer from 1 to 16384 is expected")


def test_attention_too_wide(artifact: Path) -> None:
    edit_config(artifact, lambda d: d.update(num_attention_heads=1024, attention_head_size=65))
    refused(artifact, "heads 1024 of attention_head_size 65 have 66560 columns; at most 65536 are allowed")


def test_attention_head_size_changes_the_shapes(artifact: Path) -> None:
    """The file has 2 heads of 11 columns: 11 is what is there, 7 is not."""
    edit_config(artifact, lambda d: d.update(attention_head_size=11))
    assert read_artifact(artifact).config.attention_size == 22
    edit_config(artifact, lambda d: d.update(attention_head_size=7))
    assert refused(artifact, r"shape is \[22, 22\]; the model's config gives \[14, 22\]").tensor == QUERY


@pytest.mark.parametrize("size", [0, -1, 2**14 + 1, 22.0, True, "22", None, [22]])
def test_embedding_size_out_of_bounds(artifact: Path, size: Any) -> None:
    edit_config(artifact, lambda d: d.update(embedding_size=size))
    refused(artifact, "embedding_size is .*; an integer from 1 to 16384 is expected")


def test_embedding_size_changes_the_shapes(artifact: Path) -> None:
    """The file has 22 columns: 22 is what is there, 7 is not."""
    edit_config(artifact, lambda d: d.update(embedding_size=22))
    assert read_artifact(artifact).config.embedding_size == 22
    edit_config(artifact, lambda d: d.update(embedding_size=7))
    missing = refused(artifact, "is missing from quantization_config.tensors").tensor
    assert missing == "embeddings.projection.weight"


@pytest.mark.parametrize("epsilon", [0, -1e-12, 2, "1e-12", None, True])
def test_layer_norm_eps_out_of_bounds(artifact: Path, epsilon: Any) -> None:
    edit_config(artifact, lambda d: d.update(layer_norm_eps=epsilon))
    refused(artifact, "layer_norm_eps")


@pytest.mark.parametrize("change", [{"is_decoder": True}, {"add_cross_attention": True}, {"pruned_heads": {"0": [1]}}])
def test_not_a_plain_encoder(artifact: Path, change: dict[str, Any]) -> None:
    edit_config(artifact, lambda d: d.update(change))
    refused(artifact, "only plain encoders")


@pytest.mark.parametrize("problem", ["multi_label_classification", 1, []])
def test_unsupported_problem_type(artifact: Path, problem: Any) -> None:
    edit_config(artifact, lambda d: d.update(problem_type=problem))
    refused(artifact, "problem_type is")


def test_problem_type_disagrees_with_task(artifact: Path) -> None:
    edit_config(artifact, lambda d: d.update(problem_type="regression"))
    refused(artifact, "kind is 'classification' but problem_type is 'regression'")


@pytest.mark.parametrize(
    ("id2label", "match"),
    [
        ({"0": "a", "1": "b", "3": "c"}, r"id2label\['2'\] is None; ids run from 0 to 2"),
        ({"0": "a", "01": "b", "2": "c"}, r"id2label\['1'\] is None"),
        ({"0": "a", "1": 5, "2": "c"}, r"id2label\['1'\] is 5"),
        ({"0": "a", "1": "b", "2": "x" * 2000}, "at most 1024 characters"),
        ({"0": "a", "1": "b", "2": "a"}, "names 'a' twice"),
        ({}, "1 to"),
        ([], "1 to"),
        ({str(i): str(i) for i in range(MAX_LABELS + 1)}, "1 to"),
    ],
)
def test_malformed_labels(artifact: Path, id2label: Any, match: str) -> None:
    edit_config(artifact, lambda d: d.update(id2label=id2label))
    refused(artifact, match)


def test_num_labels_disagrees_with_id2label(artifact: Path) -> None:
    edit_config(artifact, lambda d: d.update(num_labels=2))
    refused(artifact, "num_labels is 2 but id2label has 3 names")
