"""Writing: what comes back is what went in; same input, same bytes; the destination changes whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_samples import (
    QUERY,
    TOKENIZER,
    hf_config,
    make_binary_config,
    make_binarybert_config,
    make_config,
    make_elastic,
    make_mixed_config,
    make_ranges,
    make_tensors,
    write_sample,
)

from bitpress.artifact import (
    ActivationSpec,
    ArtifactConfig,
    ArtifactError,
    BinaryTensor,
    CodebookTensor,
    TaskSpec,
    TensorSpec,
    TernaryTensor,
    UniformTensor,
    check_destination,
    expected_tensors,
    read_artifact,
    replace_file,
    write_artifact,
)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def write(path: Path, config: ArtifactConfig, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "tensors": make_tensors(config),
        "ranges": make_ranges(config),
        "elastic": make_elastic(config),
        "tokenizer_files": {},
        "card": "",
        "provenance": {},
    }
    write_artifact(path, config, **(arguments | changes))


@pytest.mark.parametrize("packing", ["2bit", "trits"])
@pytest.mark.parametrize("group", ["matrix", "row"])
@pytest.mark.parametrize(
    "activations", [ActivationSpec(clip=2.5), ActivationSpec(range="static"), ActivationSpec("fp32", 32)]
)
def test_round_trip(tmp_path: Path, packing: str, group: str, activations: ActivationSpec) -> None:
    """Oracle: the values written, decoded as scale·code in numpy."""
    config = write_sample(tmp_path / "model", packing=packing, group=group, activations=activations)
    artifact = read_artifact(tmp_path / "model")
    assert artifact.config == config
    assert artifact.ranges == make_ranges(config)
    for name, value in make_tensors(config).items():
        if isinstance(value, TernaryTensor):
            read = artifact.quantized(name)
            np.testing.assert_array_equal(read.codes, value.codes)
            np.testing.assert_array_equal(read.scale, value.scale)
            value = value.codes.astype(np.float32) * value.scale.reshape(-1, 1)
        dense = artifact.dense(name)
        assert dense.dtype == np.float32
        np.testing.assert_array_equal(dense, value)


def test_round_trip_of_every_scheme(tmp_path: Path) -> None:
    """Oracle: the values written, decoded one group at a time by the formulas of docs/artifact.md."""
    config = make_mixed_config()
    write_sample(tmp_path / "model", config)
    artifact = read_artifact(tmp_path / "model")
    assert artifact.config == config
    for name, value in make_tensors(config).items():
        spec = config.tensors[name]
        dense = artifact.dense(name)
        assert dense.dtype == np.float32
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(dense, value.astype(np.float32))
            continue
        read = artifact.quantized(name)
        assert type(read) is type(value)
        for field in dataclasses.fields(value):
            np.testing.assert_array_equal(getattr(read, field.name), getattr(value, field.name))
        np.testing.assert_array_equal(dense, slow_decode(value, spec))


def slow_decode(value: Any, spec: TensorSpec) -> np.ndarray:
    """Weight by weight; fp32 arithmetic of numpy scalars."""
    rows, cols = spec.shape
    dense = np.empty(spec.shape, np.float32)
    for r, c in np.ndindex(rows, cols):
        group: Any = {
            "matrix": 0,
            "row": r,
            "row_block": r // (spec.group_size or 1),
            "input": (r, c // (spec.group_size or 1)),
        }[spec.group or ""]
        level = np.float32(value.codes[r, c])
        if isinstance(value, CodebookTensor):
            level = np.float32(value.table[value.codes[r, c]])
        elif isinstance(value, UniformTensor) and value.offset is None:
            level -= np.float32(2 ** (spec.code_bits - 1))
        dense[r, c] = value.scale[group] * level
        if isinstance(value, UniformTensor) and value.offset is not None:
            dense[r, c] += value.offset[group]
    return dense


def test_tensors_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    write_sample(tmp_path / "model")
    artifact = read_artifact(tmp_path / "model")
    for array in artifact.tensors.values():
        assert not array.flags.owndata
        assert not array.flags.writeable
        assert array.flags.aligned
    assert artifact.dense("classifier.weight") is artifact.tensors["classifier.weight"]


def test_views_outlive_the_artifact_and_the_file(tmp_path: Path) -> None:
    config = write_sample(tmp_path / "model")
    view = read_artifact(tmp_path / "model").tensors["embeddings.position.weight"]
    write_sample(tmp_path / "model", packing="trits")  # another file takes the place; the mapped one lives on
    np.testing.assert_array_equal(view, make_tensors(config)["embeddings.position.weight"])


def test_unknown_names_are_errors(tmp_path: Path) -> None:
    write_sample(tmp_path / "model")
    artifact = read_artifact(tmp_path / "model")
    with pytest.raises(ArtifactError, match="tensor 'nothing': no such tensor"):
        artifact.dense("nothing")
    with pytest.raises(ArtifactError, match=r"tensor 'classifier.bias': scheme is 'fp32', which has no codes"):
        artifact.quantized("classifier.bias")


@pytest.mark.parametrize("labels", [1, 2, 7])
def test_regression_and_any_number_of_labels(tmp_path: Path, labels: int) -> None:
    """Oracle: transformers' rule for num_labels, with and without id2label."""
    task = TaskSpec("regression" if labels == 1 else "classification", "pearson", True)
    named = hf_config(id2label={i: f"label {i}" for i in range(labels)}, label2id=...)  # integer keys, as in Python
    write_sample(tmp_path / "named", model=named, task=task)
    assert read_artifact(tmp_path / "named").config.labels == [f"label {i}" for i in range(labels)]
    counted = hf_config(id2label=..., label2id=..., num_labels=labels)
    write_sample(tmp_path / "counted", model=counted, task=task)
    assert read_artifact(tmp_path / "counted").config.labels == [f"LABEL_{i}" for i in range(labels)]


def test_two_labels_where_the_config_names_none(tmp_path: Path) -> None:
    write_sample(tmp_path / "model", model=hf_config(id2label=..., label2id=...))
    assert read_artifact(tmp_path / "model").config.labels == ["LABEL_0", "LABEL_1"]


def test_labels_agree_with_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for changes in (
        {},
        {"id2label": ..., "label2id": ...},
        {"id2label": {str(i): f"l{i}" for i in range(12)}, "label2id": ...},
    ):
        model = hf_config(**changes)
        theirs = transformers.BertConfig.from_dict(model)
        ours = make_config(model=model)
        assert ours.labels == [theirs.id2label[i] for i in range(theirs.num_labels)]


def test_config_json_keeps_the_hugging_face_part(tmp_path: Path) -> None:
    model = hf_config(transformers_version="5.0.0", custom={"nested": [1, 2.5, None, "ü"]})
    write_sample(tmp_path / "model", model=model)
    document = json.loads((tmp_path / "model" / "config.json").read_text())
    assert document.pop("quantization_config")["quant_method"] == "bitpress"
    assert document == model


def test_same_input_same_bytes(tmp_path: Path) -> None:
    config = make_config()
    backwards = dict(reversed(make_tensors(config).items()))
    write_sample(tmp_path / "a")
    write_artifact(
        tmp_path / "b",
        config,
        backwards,
        {},
        {"tokenizer.json": TOKENIZER},
        "# sample\n",
        {"seed": 1, "recipe": "ternarybert"},
    )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_files_and_nothing_left_beside(tmp_path: Path) -> None:
    for _ in range(2):
        write_sample(tmp_path / "model")
        assert os.listdir(tmp_path) == ["model"]
        names = {"config.json", "model.safetensors", "tokenizer.json", "README.md", "provenance.json"}
        assert set(os.listdir(tmp_path / "model")) == names


def test_parent_directories_are_made(tmp_path: Path) -> None:
    write_sample(tmp_path / "a" / "b" / "model")
    read_artifact(tmp_path / "a" / "b" / "model")


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sample(Path("model"))
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    write_sample(Path("../model"))
    read_artifact(tmp_path / "model")


def test_link_to_an_artifact_keeps_being_a_link(tmp_path: Path) -> None:
    write_sample(tmp_path / "v1")
    (tmp_path / "latest").symlink_to("v1")
    write_sample(tmp_path / "latest", packing="trits")
    assert (tmp_path / "latest").is_symlink()
    assert read_artifact(tmp_path / "v1").config.tensors["pooler.dense.weight"].packing == "trits"


# ---- replacing -------------------------------------------------------------------------------------------------------


def test_empty_directory_and_old_artifact_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_sample(tmp_path / "model")
    (tmp_path / "model" / "vocab.txt").write_text("of the old artifact")
    write_sample(tmp_path / "model", packing="trits")
    assert read_artifact(tmp_path / "model").config.tensors["pooler.dense.weight"].packing == "trits"
    assert not (tmp_path / "model" / "vocab.txt").exists()


def test_damaged_artifact_is_replaced(tmp_path: Path) -> None:
    write_sample(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    write_sample(tmp_path / "model")
    read_artifact(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("thesis.tex", "years of work", r"neither empty nor a bitpress artifact \(it holds 'thesis.tex'\)"),
        ("config.json", '{"model_type": "bert"}', "neither empty nor a bitpress artifact"),
        ("config.json", "{", "neither empty nor a bitpress artifact"),
    ],
)
def test_other_directories_are_never_replaced(tmp_path: Path, name: str, content: str, match: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).write_text(content)
    with pytest.raises(ArtifactError, match=match):
        write_sample(tmp_path / "model")
    assert contents(tmp_path / "model") == {name: content.encode()}
    assert os.listdir(tmp_path) == ["model"]


def test_artifact_with_a_foreign_file_is_not_replaced(tmp_path: Path) -> None:
    write_sample(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"'notes.txt', which is no part of an artifact and would be lost"):
        check_destination(tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"notes.txt"):
        write_sample(tmp_path / "model", packing="trits")
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    with pytest.raises(ArtifactError, match="is a file"):
        write_sample(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "a file"


def write_and_die(path: Path, at: int) -> bool:
    """In a child process: write an artifact and die, running no handler, at its ``at``-th call that changes the disk.

    Returns whether it completed before that.
    """
    child = os.fork()
    if child == 0:
        try:
            calls = itertools.count()

            def dying(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*arguments: Any, **options: Any) -> Any:
                    if next(calls) == at:
                        os._exit(9)
                    return real(*arguments, **options)

                return call

            for name in ("mkdir", "fsync", "rename", "unlink", "rmdir"):
                setattr(os, name, dying(getattr(os, name)))
            write_sample(path, packing="trits")
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 0


@pytest.mark.parametrize("old", [True, False])
def test_killed_at_any_system_call(tmp_path: Path, old: bool) -> None:
    """A complete artifact is at the destination or beside it at every moment, and the next run finishes the job."""
    for at in itertools.count():
        home = tmp_path / str(at)
        home.mkdir()
        if old:
            write_sample(home / "model")
        completed = write_and_die(home / "model", at)
        if old:
            assert any(loads(path) for path in home.iterdir()), f"killed at call {at}: no complete artifact is left"
        if (home / "model").exists():
            assert loads(home / "model")
        write_sample(home / "model", packing="trits")
        assert os.listdir(home) == ["model"]
        if completed:
            break
    assert at >= 8  # mkdir, five files, two directories and a rename were each interrupted once


def test_failed_write_leaves_the_destination_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(tmp_path / "model")
    before = contents(tmp_path / "model")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_sample(tmp_path / "model", packing="trits")
    monkeypatch.undo()
    assert contents(tmp_path / "model") == before
    assert os.listdir(tmp_path) == ["model"]


def test_replace_file(tmp_path: Path) -> None:
    write_sample(tmp_path / "model")
    replace_file(tmp_path / "model", "README.md", b"# measured\n")
    assert (tmp_path / "model" / "README.md").read_bytes() == b"# measured\n"
    assert os.listdir(tmp_path) == ["model"]
    for name in ("config.json", "model.safetensors", "../README.md"):
        with pytest.raises(ArtifactError, match="cannot be replaced alone"):
            replace_file(tmp_path / "model", name, b"")


# ---- input that does not fit the config ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("classifier.bias", np.zeros(4, np.float32), r"is float32 \[4\]; the config gives float32 \[3\]"),
        ("classifier.bias", np.zeros(3, np.float64), "is float64"),
        ("classifier.bias", np.full(3, np.nan, np.float32), "only finite numbers"),
        ("classifier.weight", TernaryTensor(np.zeros((3, 22), np.int8), np.ones(1, np.float32)), "scheme is 'fp32'"),
        ("pooler.dense.weight", np.zeros((22, 22), np.float32), "needs a TernaryTensor"),
        ("pooler.dense.weight", TernaryTensor(np.zeros((22, 22), np.int8), np.ones(22, np.float32)), r"float32 \[1\]"),
        (
            "pooler.dense.weight",
            TernaryTensor(np.zeros((22, 21), np.int8), np.ones(1, np.float32)),
            r"codes \[22, 22\]",
        ),
        ("pooler.dense.weight", TernaryTensor(np.full((22, 22), 2, np.int8), np.ones(1, np.float32)), "−1, 0 and 1"),
        ("pooler.dense.weight", TernaryTensor(np.zeros((22, 22), np.int8), np.zeros(1, np.float32)), "above 0"),
    ],
)
def test_tensor_that_does_not_fit(tmp_path: Path, name: str, value: Any, match: str) -> None:
    config = make_config()
    with pytest.raises(ArtifactError, match=match):
        write(tmp_path / "model", config, tensors=make_tensors(config) | {name: value})
    assert os.listdir(tmp_path) == []


SIGNS = np.ones((22, 22), np.int8)
TERMS = np.ones((2, 14, 22), np.int8)
ONES = np.ones((22, 22), np.uint8)
SCALES = np.ones(22, np.float32)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("embeddings.position.weight", np.zeros((33, 22), np.float32), r"is float32 .*; the config gives float16"),
        (QUERY, np.zeros((22, 22), np.float32), "needs a UniformTensor"),
        (QUERY, TernaryTensor(np.zeros((22, 22), np.int8), SCALES), "is a TernaryTensor; the config's scheme is 'uni"),
        (
            QUERY,
            UniformTensor(ONES, SCALES, None, 4, "row"),
            r"\(4, 'row', None\); the config .* \(8, 'row', None",
        ),
        (QUERY, UniformTensor(ONES, SCALES, None, 8, "input", 32), r"\(8, 'input', 32\)"),
        (QUERY, UniformTensor(ONES, SCALES, SCALES, 8, "row"), "an offset, .*; the config gives .* no offset"),
        (QUERY, UniformTensor(ONES, SCALES[:1], None, 8, "row"), r"scale float32 \[1\], .* gives .* float32 \[22\]"),
        (QUERY, UniformTensor(0 * ONES, SCALES, None, 8, "row"), "is 0; symmetric codes of 8 bits run from 1 to 255"),
        (
            "layers.1.attention.value.weight",
            CodebookTensor(ONES, np.zeros(8, np.int8), SCALES),
            r"table int8 \[8\]; .*table int8 \[16\]",
        ),
        ("layers.1.attention.value.weight", CodebookTensor(16 * ONES, np.zeros(16, np.int8), SCALES), "4 bits hold"),
    ],
)
def test_quantized_tensor_that_does_not_fit(tmp_path: Path, name: str, value: Any, match: str) -> None:
    _check_does_not_fit(tmp_path, make_mixed_config(), name, value, match)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("layers.0.attention.key.weight", BinaryTensor(0 * SIGNS, SCALES), "codes other than −1 and"),
        ("layers.1.attention.key.weight", BinaryTensor(SIGNS, SCALES), "scale float32 .* gives .* scale float16"),
        ("layers.0.attention.key.weight", BinaryTensor(SIGNS, SCALES.astype(np.float16)), "gives .* scale float32"),
    ],
)
def test_binary_tensor_that_does_not_fit(tmp_path: Path, name: str, value: Any, match: str) -> None:
    _check_does_not_fit(tmp_path, make_binary_config(), name, value, match)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        (
            QUERY,
            BinaryTensor(SIGNS[:14], SCALES[:2]),
            r"codes \[14, 22\] .* gives codes \[2, 14, 22\] and scale float32",
        ),
        (QUERY, BinaryTensor(TERMS, SCALES[:1]), r"scale float32 \[1\]; .* scale float32 \[2\]"),
        (QUERY, BinaryTensor(0 * TERMS, SCALES[:2]), "codes other than −1 and"),
        ("layers.0.attention.key.weight", BinaryTensor(TERMS, SCALES[:14]), r"gives codes \[14, 22\]"),
    ],
)
def test_terms_that_do_not_fit(tmp_path: Path, name: str, value: Any, match: str) -> None:
    _check_does_not_fit(tmp_path, make_binarybert_config(), name, value, match)


def _check_does_not_fit(tmp_path: Path, config: ArtifactConfig, name: str, value: Any, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        write(tmp_path / "model", config, tensors=make_tensors(config) | {name: value})
    assert "4 bits hold" in match or caught.value.tensor == name
    assert os.listdir(tmp_path) == []


def test_tensors_and_ranges_that_are_missing_or_too_many(tmp_path: Path) -> None:
    config, static = make_config(), make_config(activations=ActivationSpec(range="static"))
    tensors = make_tensors(config)
    bias = tensors.pop("classifier.bias")
    with pytest.raises(ArtifactError, match=r"tensor 'classifier.bias': this tensor is missing"):
        write(tmp_path / "model", config, tensors=tensors)
    with pytest.raises(ArtifactError, match=r"tensor 'head.bias': the config names no such tensor"):
        write(tmp_path / "model", config, tensors=tensors | {"classifier.bias": bias, "head.bias": bias})
    with pytest.raises(ArtifactError, match="this activation range is missing"):
        write(tmp_path / "model", static, ranges={})
    with pytest.raises(ArtifactError, match="no such activation range"):
        write(tmp_path / "model", config, ranges=make_ranges(static))


@pytest.mark.parametrize("attention", ["bool", "all", "softmax"])
def test_round_trip_of_binary_activations(tmp_path: Path, attention: str) -> None:
    """Oracle: the config and the arrays written."""
    config = write_sample(tmp_path / "model", make_binary_config(attention))
    artifact = read_artifact(tmp_path / "model")
    assert artifact.config == config
    assert artifact.config.activations.attention == attention
    elastic = make_elastic(config)
    assert artifact.elastic.keys() == elastic.keys()
    assert all(np.array_equal(artifact.elastic[name], number) for name, number in elastic.items())


def test_elastic_numbers_that_are_missing_or_too_many_or_do_not_fit(tmp_path: Path) -> None:
    config = make_binary_config("softmax")
    elastic, name = make_elastic(config), "layers.0.ffn.output.input.shift"
    with pytest.raises(ArtifactError, match="this elastic number is missing; the config names 34 of them"):
        write(tmp_path / "model", config, elastic=None)
    with pytest.raises(ArtifactError, match="the config names no such elastic number"):
        write(tmp_path / "model", make_binary_config(), elastic=elastic)
    for bad in (elastic[name].astype(np.float64), elastic[name][:22]):
        with pytest.raises(ArtifactError, match=r"is float(32|64) .*; the config gives float32 \[37\]") as caught:
            write(tmp_path / "model", config, elastic=elastic | {name: bad})
        assert caught.value.tensor == name
    with pytest.raises(ArtifactError, match="only finite numbers are allowed"):
        write(tmp_path / "model", config, elastic=elastic | {name: elastic[name] * np.float32(np.nan)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("change", [{"hidden_act": "tanh"}, {"hidden_size": 0}, {"model_type": "albert"}])
def test_expected_tensors_of_a_model_that_cannot_be_run(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=next(iter(change))):
        expected_tensors(hf_config(**change))


def test_config_that_would_not_be_read_is_not_written(tmp_path: Path) -> None:
    config = make_config()
    with pytest.raises(ArtifactError, match="range is 'tensor'"):
        write(tmp_path / "model", dataclasses.replace(config, activations=ActivationSpec(range="tensor")))
    with pytest.raises(ArtifactError, match="model_type"):
        write(tmp_path / "model", dataclasses.replace(config, model=config.model | {"model_type": "albert"}))
    spec = dataclasses.replace(config.tensors["pooler.dense.weight"], packing="3bit")
    with pytest.raises(ArtifactError, match="packing is '3bit'"):
        write(tmp_path / "model", dataclasses.replace(config, tensors=config.tensors | {"pooler.dense.weight": spec}))
    with pytest.raises(ArtifactError, match="cannot be written as JSON"):
        write(tmp_path / "model", dataclasses.replace(config, model=config.model | {"dropout": float("nan")}))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["../tokenizer.json", "config.json", "run.py", "/tmp/x", ""])
def test_tokenizer_file_of_another_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="tokenizer file"):
        write(tmp_path / "model", make_config(), tokenizer_files={name: b""})
    assert os.listdir(tmp_path) == []


def loads(path: Path) -> bool:
    try:
        read_artifact(path)
    except ArtifactError:
        return False
    return True
