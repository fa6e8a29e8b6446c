"""Write an artifact: complete in a directory beside the destination, synced, read back, then renamed into place.

Same input, same bytes. A reader never sees half an artifact: a new destination appears by one rename; an existing
artifact is renamed away and replaced by the next system call (POSIX has no exchange of two directories), and is deleted
only after that. A process killed anywhere leaves at least one complete artifact, at the destination or beside it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact import stored
from bitpress.artifact.container import serialize
from bitpress.artifact.elastic import elastic_entries
from bitpress.artifact.forms import FloatTensor, StoredTensor
from bitpress.artifact.reader import CONFIG_FILE, MAX_CONFIG_BYTES, TENSORS_FILE, read_artifact, read_file
from bitpress.artifact.schema import ArtifactConfig, activation_points, config_document, parse_config
from bitpress.artifact.strict_json import dump_object, parse_object
from bitpress.errors import ArtifactError

CARD_FILE = "README.md"
PROVENANCE_FILE = "provenance.json"
TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"}
)
FILES = TOKENIZER_FILES | {CONFIG_FILE, TENSORS_FILE, CARD_FILE, PROVENANCE_FILE}


def write_artifact(
    out_dir: str | Path,
    config: ArtifactConfig,
    tensors: Mapping[str, StoredTensor],
    ranges: Mapping[str, tuple[float, float]],
    tokenizer_files: Mapping[str, bytes],
    card: str,
    provenance: Mapping[str, Any],
    elastic: Mapping[str, FloatTensor] | None = None,
) -> None:
    """Write the artifact directory ``out_dir``, replacing an artifact that is there. One writer a destination.

    Args:
        out_dir: a directory that does not exist, is empty or holds an artifact; its parent is made if need be.
        tensors: one value a name of ``config.tensors``: float32 or float16 of its shape where the scheme is fp32 or
            fp16, else codes and scales in the form of its scheme (forms.py).
        ranges: (scale, offset) of every activation point where ``config.activations.range`` is "static", else empty.
        tokenizer_files: contents by file name, out of ``TOKENIZER_FILES``.
        card: README.md. provenance: provenance.json.
        elastic: float32 arrays of the names and shapes of `elastic_entries` where ``config.activations.is_elastic``,
            else None or empty.

    Raises:
        ArtifactError: input that does not fit the config, or a destination that must not be replaced; the destination
            is then as it was.
        OSError: the disk is full or not writable.
    """
    if unknown := sorted(tokenizer_files.keys() - TOKENIZER_FILES):
        raise ArtifactError(f"tokenizer file {unknown[0]!r}; an artifact carries only {sorted(TOKENIZER_FILES)}")
    document = dump_object(config_document(config))
    parse_config(parse_object(document, CONFIG_FILE))
    entries = _entries(config, tensors, ranges, elastic or {})
    destination = check_destination(out_dir)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.bitpress-new")
    if temporary.exists():  # of a writer that was killed
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        _write(temporary / CONFIG_FILE, [document])
        _write(temporary / TENSORS_FILE, serialize(entries))
        for name, content in tokenizer_files.items():
            _write(temporary / name, [content])
        _write(temporary / CARD_FILE, [card.encode()])
        _write(temporary / PROVENANCE_FILE, [dump_object(dict(provenance))])
        _sync(temporary)
        read_artifact(temporary)  # what cannot be read is never put in place
        _replace(temporary, destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_destination(out_dir: str | Path) -> Path:
    """The real path of ``out_dir`` if `write_artifact` may write there; call it before hours of training.

    Raises:
        ArtifactError: a file, or a directory with anything in it that is not an artifact's.
    """
    destination = Path(os.path.realpath(out_dir))
    if not destination.exists():
        return destination
    if not destination.is_dir():
        raise ArtifactError(f"{destination}: is a file; give a directory that is new, empty or an artifact")
    found = sorted(os.listdir(destination))
    if not found:
        return destination
    try:
        document = parse_object(read_file(destination / CONFIG_FILE, MAX_CONFIG_BYTES), CONFIG_FILE)
        part = document.get("quantization_config")
        is_artifact = isinstance(part, dict) and part.get("quant_method") == "bitpress"
    except ArtifactError:
        is_artifact = False
    if not is_artifact:
        raise ArtifactError(
            f"{destination}: is neither empty nor a bitpress artifact (it holds {found[0]!r}); "
            "give another directory or empty this one"
        )
    if foreign := sorted(set(found) - FILES):
        raise ArtifactError(
            f"{destination}: holds {foreign[0]!r}, which is no part of an artifact and would be lost; move it away"
        )
    return destination


def replace_file(artifact: str | Path, name: str, content: bytes) -> None:
    """Replace README.md or provenance.json of an artifact atomically: the old content or the new, never a mixture.

    Raises:
        ArtifactError: another name; the other files belong together and are written by `write_artifact`.
    """
    if name not in (CARD_FILE, PROVENANCE_FILE):
        raise ArtifactError(f"{name!r} cannot be replaced alone; only {CARD_FILE} and {PROVENANCE_FILE} can")
    directory = Path(artifact)
    # Outside the artifact, on the same file system: a killed writer leaves no foreign file inside.
    real = Path(os.path.realpath(directory))
    temporary = real.with_name(f".{real.name}.{name}.bitpress-new")
    try:
        _write(temporary, [content])
        os.replace(temporary, real / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(real)


def _entries(
    config: ArtifactConfig,
    tensors: Mapping[str, StoredTensor],
    ranges: Mapping[str, tuple[float, float]],
    elastic: Mapping[str, FloatTensor],
) -> dict[str, NDArray[Any]]:
    """The arrays of model.safetensors by entry name; their content is checked when the file is read back."""
    _check_names(tensors, config.tensors, "tensor")
    static = config.activations.scheme != "fp32" and config.activations.range == "static"
    _check_names(ranges, activation_points(config.model) if static else {}, "activation range")
    shapes = elastic_entries(config.model) if config.activations.is_elastic else {}
    _check_names(elastic, shapes, "elastic number")
    for name, shape in shapes.items():
        if elastic[name].dtype != np.float32 or elastic[name].shape != shape:
            found = f"{elastic[name].dtype} {list(elastic[name].shape)}"
            raise ArtifactError(f"is {found}; the config gives float32 {list(shape)}", name)
    entries: dict[str, NDArray[Any]] = dict(elastic)
    for name, spec in config.tensors.items():
        entries |= stored.pack(name, spec, tensors[name])
    return entries | {f"{point}.range": np.array(pair, np.float32) for point, pair in ranges.items()}


def _check_names(given: Iterable[str], expected: Iterable[str], kind: str) -> None:
    given, expected = set(given), set(expected)
    if missing := sorted(expected - given):
        raise ArtifactError(f"this {kind} is missing; the config names {len(expected)} of them", missing[0])
    if unknown := sorted(given - expected):
        raise ArtifactError(f"the config names no such {kind}; it names {len(expected)} of them", unknown[0])


def _replace(temporary: Path, destination: Path) -> None:
    old = destination.with_name(f".{destination.name}.bitpress-old")
    if destination.exists() and os.listdir(destination):
        if old.exists():  # left by a killed writer; the destination is complete, so it is not needed
            shutil.rmtree(old)
        os.rename(destination, old)
    try:
        os.rename(temporary, destination)
    except OSError:
        if old.exists() and not destination.exists():
            os.rename(old, destination)
        raise
    _sync(destination.parent)
    if old.exists():
        shutil.rmtree(old)


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    with open(path, "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
