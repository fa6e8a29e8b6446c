"""What the reader promises about hostile or damaged files and their content: one test a lie, named after it.

Oracle: the format as docs/artifact.md states it; each test breaks one sentence of it in a valid artifact.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_samples import (
    QUERY,
    edit_config,
    edit_entry,
    edit_header,
    join_container,
    make_config,
    make_mixed_config,
    quantization,
    refused,
    split_container,
    write_sample,
)

from bitpress.artifact import ActivationSpec, activation_points, read_artifact
from bitpress.artifact.container import MAX_HEADER_BYTES
from bitpress.artifact.reader import MAX_CONFIG_BYTES

STATIC = ActivationSpec(range="static")
STATIC_SYMMETRIC = ActivationSpec(symmetric=True, range="static")
STATIC_SYMMETRIC_4_BITS = ActivationSpec(bits=4, symmetric=True, range="static")


# ---- files -----------------------------------------------------------------------------------------------------------


def test_not_a_directory(artifact: Path) -> None:
    refused(artifact / "nothing", "not a directory; give the directory that `bitpress compress` wrote")
    refused(artifact / "config.json", "not a directory")
    refused(Path("a\0b"), "not a directory")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    refused(artifact, f"{name}: cannot be opened")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_empty_file(artifact: Path, name: str) -> None:
    (artifact / name).write_bytes(b"")
    refused(artifact, name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_file_is_a_directory_or_a_pipe(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    (artifact / name).mkdir()
    refused(artifact, f"{name}: is not a regular file")
    (artifact / name).rmdir()
    os.mkfifo(artifact / name)  # a plain open() would wait for a writer for ever
    refused(artifact, f"{name}: is not a regular file")


def test_symlink(artifact: Path) -> None:
    """Links are the file system's, not the content's: the Hugging Face cache is made of them."""
    (artifact / "model.safetensors").rename(artifact.parent / "blob")
    (artifact / "model.safetensors").symlink_to("../blob")
    read_artifact(artifact)
    (artifact.parent / "blob").unlink()
    refused(artifact, "model.safetensors: cannot be opened")


def test_no_path_no_code_no_network_taken_from_content(artifact: Path) -> None:
    """Oracle: Python's audit events. Reading opens two files of fixed names and nothing else happens."""
    edit_config(artifact, lambda d: d.update(_name_or_path="/etc/passwd", auto_map={"AutoModel": "evil.py--Evil"}))
    events: list[tuple[str, Any]] = []
    on = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if on[0] and event.split(".")[0] in {
            "open",
            "socket",
            "import",
            "exec",
            "compile",
            "subprocess",
            "os",
            "pickle",
        }:
            events.append((event, arguments[0] if arguments else None))

    sys.addaudithook(hook)  # cannot be removed, so it is switched off
    try:
        read_artifact(artifact)
    finally:
        on[0] = False
    opened = {str(what) for event, what in events if event == "open" and not isinstance(what, int)}
    assert opened == {str(artifact / "config.json"), str(artifact / "model.safetensors")}
    assert {event for event, _ in events} == {"open"}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "embeddings.norm.weight\0"])
def test_tensor_named_like_a_path(artifact: Path, name: str) -> None:
    edit_header(artifact, lambda h: h.update({name: h.pop("embeddings.norm.weight")}))
    assert refused(artifact, "no such tensor").tensor == name


# ---- the container ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "match"),
    [
        (1, "has 1 bytes; a header length of 8 bytes is expected first"),
        (7, "has 7 bytes; a header length"),
        (8, "the file has 0 after its start"),
    ],
)
def test_file_too_short(artifact: Path, size: int, match: str) -> None:
    content = (artifact / "model.safetensors").read_bytes()
    (artifact / "model.safetensors").write_bytes(content[:size])
    refused(artifact, match)


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 8, 2**63, 2**64 - 1])
def test_header_too_large(artifact: Path, length: int) -> None:
    content = (artifact / "model.safetensors").read_bytes()
    (artifact / "model.safetensors").write_bytes(length.to_bytes(8, "little") + content[8:])
    refused(artifact, f"header of {length} bytes; at most {MAX_HEADER_BYTES} are allowed")


def test_header_longer_than_the_file(artifact: Path) -> None:
    content = (artifact / "model.safetensors").read_bytes()
    (artifact / "model.safetensors").write_bytes((1 << 20).to_bytes(8, "little") + content[8:])
    refused(artifact, "header of 1048576 bytes; the file has ")


def test_header_not_padded_to_eight(artifact: Path) -> None:
    header, data = split_container(artifact)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + 4)
    (artifact / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    refused(artifact, "a multiple of 8 is expected")


@pytest.mark.parametrize(
    "header", [b" {}     ", b"[]      ", b"{}}     ", b"{       ", b'{"a":1} ', b'{"\xff":{}}', b""]
)
def test_header_is_no_json_object_of_tensors(artifact: Path, header: bytes) -> None:
    join_container(artifact, header, b"")
    refused(artifact, "header")


def test_metadata_in_header(artifact: Path) -> None:
    edit_header(artifact, lambda h: h.update(__metadata__={"format": "pt"}))
    assert refused(artifact, "dtype, shape and data_offsets are expected").tensor == "__metadata__"


def test_unknown_key_in_tensor_entry(artifact: Path) -> None:
    edit_header(artifact, lambda h: h["embeddings.norm.bias"].update(path="/etc/passwd"))
    refused(artifact, "tensor 'embeddings.norm.bias': header entry holds")


def test_name_too_long(artifact: Path) -> None:
    edit_header(artifact, lambda h: h.update({"x" * 100_000: h.pop("embeddings.norm.bias")}))
    assert len(str(refused(artifact, "name of 100000 characters; at most 200"))) < 300


@pytest.mark.parametrize("dtype", ["F64", "BF16", "I16", "f32", "", None, 32, ["F32"]])
def test_unknown_dtype(artifact: Path, dtype: Any) -> None:
    edit_header(artifact, lambda h: h["embeddings.norm.bias"].update(dtype=dtype))
    refused(artifact, r"tensor 'embeddings.norm.bias': dtype is .*; allowed are \['F16', 'F32', 'I8', 'U16', 'U8'\]")


@pytest.mark.parametrize("shape", [[-22], [2**33], [22.0], [True], ["22"], None, 22, [22, 1, 1, 1], [[22]]])
def test_malformed_shape(artifact: Path, shape: Any) -> None:
    edit_header(artifact, lambda h: h["embeddings.norm.bias"].update(shape=shape))
    refused(artifact, "tensor 'embeddings.norm.bias': shape is")


@pytest.mark.parametrize("shape", [[2**32, 2**32], [2**31, 2**31], [2**32, 2**30 + 1]])
def test_dimension_overflow(artifact: Path, shape: list[int]) -> None:
    """Products that wrap to 0 or to something small in 32 or 64 bits."""
    edit_header(artifact, lambda h: h["embeddings.norm.bias"].update(shape=shape, data_offsets=[0, 0]))
    refused(artifact, "tensor 'embeddings.norm.bias': data_offsets span 0 bytes")


@pytest.mark.parametrize("offsets", [[-4, 84], [0, 2**64], [0], [0, 88, 88], [0.0, 88], [False, 88], None, "0,88"])
def test_malformed_offsets(artifact: Path, offsets: Any) -> None:
    edit_header(artifact, lambda h: h["embeddings.norm.bias"].update(data_offsets=offsets))
    refused(artifact, "tensor 'embeddings.norm.bias': data_offsets are")


def test_offsets_run_backwards(artifact: Path) -> None:
    edit_header(artifact, lambda h: h["embeddings.norm.bias"]["data_offsets"].reverse())
    refused(artifact, "tensor 'embeddings.norm.bias': data_offsets span -88 bytes; F32 .22. takes 88")


def test_offsets_beyond_the_file(artifact: Path) -> None:
    _, data = split_container(artifact)
    edit_header(artifact, lambda h: h["embeddings.norm.bias"].update(data_offsets=[len(data), len(data) + 88]))
    refused(artifact, "tensor 'embeddings.norm.bias': data_offsets are")


def test_byte_count_disagrees_with_shape(artifact: Path) -> None:
    edit_header(artifact, lambda h: h["embeddings.norm.bias"].update(shape=[21]))
    refused(artifact, r"tensor 'embeddings.norm.bias': data_offsets span 88 bytes; F32 \[21\] takes 84")


def test_overlapping_byte_ranges(artifact: Path) -> None:
    edit_header(
        artifact, lambda h: h["embeddings.norm.weight"].update(data_offsets=h["embeddings.norm.bias"]["data_offsets"])
    )
    refused(artifact, "inside the tensor before it")


def test_gap_between_tensors(artifact: Path) -> None:
    def shift_last(header: dict[str, Any]) -> None:
        last = max(header.values(), key=lambda entry: entry["data_offsets"][1])
        last["data_offsets"] = [offset + 3 for offset in last["data_offsets"]]

    edit_header(artifact, shift_last, extra=b"abc")
    refused(artifact, "3 bytes before it belong to no tensor")


def test_gap_before_the_first_tensor(artifact: Path) -> None:
    header, data = split_container(artifact)
    for entry in header.values():
        entry["data_offsets"] = [offset + 4 for offset in entry["data_offsets"]]
    join_container(artifact, header, b"evil" + data)
    refused(artifact, "4 bytes before it belong to no tensor")


@pytest.mark.parametrize("extra", [b"\0", b"PK\x03\x04 a zip behind the tensors"])
def test_trailing_bytes(artifact: Path, extra: bytes) -> None:
    edit_header(artifact, lambda h: None, extra=extra)
    refused(artifact, f"{len(extra)} bytes after the last tensor; the file must end there")


def test_misaligned_fp32(artifact: Path) -> None:
    header, data = split_container(artifact)
    codes = header["pooler.dense.weight.codes"]
    begin, end = codes["data_offsets"]
    assert end == len(data)
    for entry in header.values():  # the last tensor moves to the front and one byte of it is cut away
        entry["data_offsets"] = [offset + end - begin - 1 for offset in entry["data_offsets"]]
    codes.update(shape=[end - begin - 1, 1], data_offsets=[0, end - begin - 1])
    join_container(artifact, header, data[begin : end - 1] + data[:begin])
    refused(artifact, "F32 must start on a multiple of 4")


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_duplicate_key(artifact: Path) -> None:
    file = artifact / "config.json"
    file.write_text(file.read_text().replace('"vocab_size":', '"vocab_size": 1, "vocab_size":', 1))
    refused(artifact, "config.json: not strict JSON: duplicate key 'vocab_size'")


def test_duplicate_key_in_header(artifact: Path) -> None:
    header, data = split_container(artifact)
    text = json.dumps(header)
    first = next(iter(header))
    join_container(artifact, (text[:-1] + f', "{first}": {json.dumps(header[first])}}}').encode(), data)
    refused(artifact, f"header: not strict JSON: duplicate key '{first}'")


def test_duplicate_key_spelled_with_an_escape(artifact: Path) -> None:
    file = artifact / "config.json"
    file.write_text(file.read_text().replace('"vocab_size":', '"\\u0076ocab_size": 1, "vocab_size":', 1))
    refused(artifact, "duplicate key 'vocab_size'")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_nan_in_json(artifact: Path, number: str) -> None:
    file = artifact / "config.json"
    file.write_text(file.read_text().replace('"initializer_range": 0.02', f'"initializer_range": {number}'))
    refused(artifact, "only finite numbers are allowed")


@pytest.mark.parametrize("digits", [21, 5000])
def test_integer_of_many_digits(artifact: Path, digits: int) -> None:
    file = artifact / "config.json"
    file.write_text(file.read_text().replace('"vocab_size": 61', f'"vocab_size": {"9" * digits}'))
    refused(artifact, "at most 20 are allowed")


@pytest.mark.parametrize("depth", [100, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deeply_nested_json(artifact: Path, depth: int, opening: str, closing: str) -> None:
    nested = opening * depth + "0" + closing * depth
    (artifact / "config.json").write_text(f'{{"a": {nested}}}')
    refused(artifact, "config.json: nested .* levels deep; at most 32")


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deeply_nested_header(artifact: Path, depth: int) -> None:
    join_container(artifact, b'{"a": ' + b"[" * depth + b"]" * depth + b"}", b"")
    refused(artifact, "header: nested .* levels deep; at most 32")


def test_brackets_in_strings_are_no_nesting(artifact: Path) -> None:
    edit_config(artifact, lambda d: d.update(note="[" * 1000 + '\\"{' * 1000))
    read_artifact(artifact)


def test_quotes_without_end_take_linear_time(artifact: Path) -> None:
    """A scan that starts again at every quote would take hours for four megabytes."""
    (artifact / "config.json").write_bytes(b'"' + b'\\"' * (2 << 20))
    refused(artifact, "config.json")
    (artifact / "config.json").write_bytes(b'"' * ((4 << 20) - 1))
    refused(artifact, "not strict JSON")


def test_invalid_utf8(artifact: Path) -> None:
    file = artifact / "config.json"
    file.write_bytes(file.read_bytes().replace(b"neutral", b"neutr\xffl"))
    refused(artifact, "config.json: not strict JSON")


def test_lone_surrogate(artifact: Path) -> None:
    file = artifact / "config.json"
    file.write_text(file.read_text().replace('"neutral"', '"\\ud800"'))
    refused(artifact, "config.json: not strict JSON: .*surrogate")


def test_config_too_large(artifact: Path) -> None:
    with open(artifact / "config.json", "ab") as file:
        file.truncate(MAX_CONFIG_BYTES + 1)
    refused(artifact, f"config.json: has {MAX_CONFIG_BYTES + 1} bytes; at most {MAX_CONFIG_BYTES}")


@pytest.mark.parametrize("content", [b"[]", b"null", b"3", b'"config"'])
def test_config_is_no_object(artifact: Path, content: bytes) -> None:
    (artifact / "config.json").write_bytes(content)
    refused(artifact, "an object is expected")


# ---- content ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["embeddings.position.weight", "classifier.bias"])
def test_non_finite_fp32(artifact: Path, name: str, value: float) -> None:
    edit_entry(artifact, name, lambda a: a.__setitem__(-1, value))
    assert refused(artifact, f"is {value}; only finite numbers are allowed").tensor == name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["embeddings.word.weight", QUERY])
def test_scale_not_finite(artifact: Path, name: str, value: float) -> None:
    edit_entry(artifact, f"{name}.scale", lambda a: a.__setitem__(-1, value))
    assert refused(artifact, f"is {value}; scales must be finite and above 0").tensor == f"{name}.scale"


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0])
@pytest.mark.parametrize("name", ["embeddings.word.weight", QUERY])
def test_scale_not_positive(artifact: Path, name: str, value: float) -> None:
    edit_entry(artifact, f"{name}.scale", lambda a: a.__setitem__(0, value))
    assert refused(artifact, "scales must be finite and above 0").tensor == f"{name}.scale"


@pytest.mark.parametrize("packing", ["2bit", "trits"])
@pytest.mark.parametrize("name", ["embeddings.word.weight", "layers.1.ffn.output.weight"])
def test_padding_bits_set(tmp_path: Path, packing: str, name: str) -> None:
    config = write_sample(tmp_path / "model", packing=packing)
    per_byte = 4 if packing == "2bit" else 5
    used = config.tensors[name].shape[1] % per_byte
    assert used  # 22 and 37 columns: the last byte has padding
    first_unused = 4**used if packing == "2bit" else 3**used
    edit_entry(tmp_path / "model", f"{name}.codes", lambda a: a.__setitem__(-1, first_unused))
    assert refused(tmp_path / "model", "whose padding is not zero").tensor == name


@pytest.mark.parametrize("at", range(4))
def test_invalid_two_bit_code(artifact: Path, at: int) -> None:
    edit_entry(artifact, f"{QUERY}.codes", lambda a: a.__setitem__(6, 0b10 << 2 * at))
    assert refused(artifact, "row 1, byte 0 of the codes is .*10 is no code").tensor == QUERY


@pytest.mark.parametrize("byte", [243, 255])
def test_trit_byte_too_large(tmp_path: Path, byte: int) -> None:
    write_sample(tmp_path / "model", packing="trits")
    edit_entry(tmp_path / "model", f"{QUERY}.codes", lambda a: a.__setitem__(5, byte))
    assert refused(tmp_path / "model", "row 1, byte 0 .* at most 242").tensor == QUERY


# ---- static ranges ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activations", [STATIC, STATIC_SYMMETRIC])
def test_static_ranges_are_read(tmp_path: Path, activations: ActivationSpec) -> None:
    config = write_sample(tmp_path / "model", activations=activations)
    assert list(read_artifact(tmp_path / "model").ranges) == list(activation_points(config.model))


def test_static_range_missing(tmp_path: Path) -> None:
    write_sample(tmp_path / "model", activations=STATIC)
    edit_config(tmp_path / "model", lambda d: d.update(num_hidden_layers=2))
    header, data = split_container(tmp_path / "model")
    begin, end = header.pop("pooler.input.range")["data_offsets"]
    for entry in header.values():
        entry["data_offsets"] = [o - (end - begin) if o >= end else o for o in entry["data_offsets"]]
    join_container(tmp_path / "model", header, data[:begin] + data[end:])
    assert refused(tmp_path / "model", "is missing from model.safetensors").tensor == "pooler.input.range"


def test_static_range_where_ranges_are_dynamic(tmp_path: Path) -> None:
    write_sample(tmp_path / "model", activations=STATIC)
    edit_config(tmp_path / "model", lambda d: quantization(d)["activations"].update(range="token"))
    assert str(refused(tmp_path / "model", "the config has no such tensor").tensor).endswith(".range")


@pytest.mark.parametrize("pair", [(0, 0), (-1, 0), (np.nan, 0), (np.inf, 0), (1, np.nan), (1, -np.inf), (1, 3e38)])
def test_static_range_not_finite_or_scale_not_positive(tmp_path: Path, pair: tuple[float, float]) -> None:
    write_sample(tmp_path / "model", activations=STATIC)
    edit_entry(tmp_path / "model", "pooler.input.range", lambda a: a.__setitem__(slice(None), pair))
    assert refused(tmp_path / "model", "finite").tensor == "pooler.input.range"


def test_static_range_of_probabilities_does_not_start_at_zero(tmp_path: Path) -> None:
    write_sample(tmp_path / "model", activations=STATIC)
    name = "layers.1.attention.probabilities.range"
    edit_entry(tmp_path / "model", name, lambda a: a.__setitem__(1, 0.01))
    assert refused(tmp_path / "model", "has offset 0.0").tensor == name


@pytest.mark.parametrize(("activations", "centred"), [(STATIC_SYMMETRIC, -64.0), (STATIC_SYMMETRIC_4_BITS, -4.0)])
def test_static_symmetric_range_is_not_centred(tmp_path: Path, activations: ActivationSpec, centred: float) -> None:
    write_sample(tmp_path / "model", activations=activations)
    edit_entry(tmp_path / "model", "pooler.input.range", lambda a: a.__setitem__(slice(None), (0.5, centred + 0.5)))
    assert refused(tmp_path / "model", f"has offset {centred}").tensor == "pooler.input.range"


def test_every_variant_of_a_valid_artifact_loads(tmp_path: Path) -> None:
    """The tests above mean something only if what they start from is accepted."""
    variants: list[dict[str, Any]] = [
        {"packing": packing, "group": group, "activations": activations}
        for packing in ("2bit", "trits")
        for group in ("matrix", "row")
        for activations in (
            ActivationSpec(),
            STATIC,
            STATIC_SYMMETRIC,
            STATIC_SYMMETRIC_4_BITS,
            ActivationSpec("fp32", 32),
            ActivationSpec(clip=2.5),
        )
    ]
    for variant in variants:
        write_sample(tmp_path / "model", **variant)
        read = read_artifact(tmp_path / "model").config
        written = make_config(**variant)
        assert (read.activations, read.tensors) == (written.activations, written.tensors)
    write_sample(tmp_path / "model", make_mixed_config(STATIC))
    assert read_artifact(tmp_path / "model").config == make_mixed_config(STATIC)
