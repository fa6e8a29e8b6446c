"""Read an artifact: two files under fixed names, memory-mapped, every promise of docs/artifact.md checked.

Order of the checks: config.json, then the header of model.safetensors against itself, then against the config, then
the content of each tensor. Nothing is allocated in proportion to a number in the file; views into the memory map are
returned. No path, code or address is ever taken from content.
"""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact import stored
from bitpress.artifact.container import DTYPES, Entry, parse_header
from bitpress.artifact.elastic import check_elastic, elastic_entries
from bitpress.artifact.forms import FloatTensor, QuantizedTensor
from bitpress.artifact.outliers import Outliers
from bitpress.artifact.schema import ArtifactConfig, activation_points, expected_entries, parse_config
from bitpress.artifact.strict_json import DAMAGED, parse_object
from bitpress.errors import ArtifactError

CONFIG_FILE = "config.json"
TENSORS_FILE = "model.safetensors"
MAX_CONFIG_BYTES = 4 << 20  # 256 layers of tensor entries take 0.9 MB


@dataclass(frozen=True)
class Artifact:
    """A checked artifact.

    ``tensors``: read-only views into the memory map, by safetensors entry name (``NAME``, or ``NAME.codes``,
    ``NAME.scale``, …; ``POINT.range``). ``ranges``: (scale, offset) of every activation point, empty unless static.
    ``elastic``: those of ``tensors`` that `elastic_entries` names, empty unless activations are elastic.
    """

    path: Path
    config: ArtifactConfig
    tensors: dict[str, NDArray[Any]]
    ranges: dict[str, tuple[float, float]]
    elastic: dict[str, FloatTensor]
    memory_map: mmap.mmap

    def release_pages(self) -> None:
        """Let the system take back the memory that reading ``tensors`` has filled. They stay valid: what is read again
        comes from the system's file cache, or from the disk."""
        _release_pages(self.memory_map)

    def quantized(self, name: str) -> QuantizedTensor:
        """Unpacked codes and scales of a quantized tensor; ArtifactError for any other name."""
        spec = self.config.tensors.get(name)
        if spec is None or spec.is_float:
            raise ArtifactError(f"scheme is {spec.scheme!r}, which has no codes" if spec else "no such tensor", name)
        return stored.unpack(name, spec, self.tensors)

    def outliers(self, name: str) -> Outliers | None:
        """Those of a quantized tensor, without unpacking its codes; None where it has none."""
        return stored.unpack_outliers(name, self.tensors)

    def dense(self, name: str) -> NDArray[np.float32]:
        """The tensor as fp32 of its full shape: a view where it is stored so, else decoded (fp16: exactly)."""
        spec = self.config.tensors.get(name)
        if spec is None:
            raise ArtifactError("no such tensor", name)
        if not spec.is_float:
            return self.quantized(name).decode()
        return self.tensors[name].astype(np.float32, copy=False)


def read_artifact(path: str | Path) -> Artifact:
    """Open the artifact directory ``path`` and check all of it.

    Raises:
        ArtifactError: whatever is wrong, naming the file or the tensor and what was expected; no other exception.
    """
    directory = Path(path)
    config = read_config(directory)
    where = str(directory / TENSORS_FILE)
    data, size = _map_file(directory / TENSORS_FILE)
    entries = parse_header(data, size, where)
    _check_entries(entries, expected_entries(config))
    tensors = {name: _view(data, entry) for name, entry in entries.items()}
    for name, spec in config.tensors.items():
        stored.check(name, spec, tensors)
        _release_pages(data)  # never more than one tensor's pages at a time
    elastic: dict[str, FloatTensor] = {}
    if config.activations.is_elastic:
        check_elastic(config.model, tensors)
        elastic = {name: tensors[name] for name in elastic_entries(config.model)}
    return Artifact(directory, config, tensors, _ranges(config, tensors), elastic, data)


def read_config(path: str | Path) -> ArtifactConfig:
    """Read and check config.json of the artifact directory ``path`` alone.

    Raises:
        ArtifactError: not a directory, no config.json, or one that is not valid.
    """
    directory = Path(path)
    try:
        is_directory = directory.is_dir()
    except (OSError, ValueError):
        is_directory = False
    if not is_directory:
        raise ArtifactError(f"{directory}: not a directory; give the directory that `bitpress compress` wrote")
    file = directory / CONFIG_FILE
    return parse_config(parse_object(read_file(file, MAX_CONFIG_BYTES), str(file)), str(file))


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes; ArtifactError otherwise."""
    descriptor, size = _open(path)
    with open(descriptor, "rb") as file:
        if size > limit:
            raise ArtifactError(f"{path}: has {size} bytes; at most {limit} are allowed. {DAMAGED}")
        try:
            return file.read(size)
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error


def _open(path: Path) -> tuple[int, int]:
    """Descriptor and size of a regular file. O_NONBLOCK: opening a named pipe must not wait for a writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be opened ({error}); every artifact has this file") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ArtifactError(f"{path}: is not a regular file; every artifact has this file")
    return descriptor, status.st_size


def _map_file(path: Path) -> tuple[mmap.mmap, int]:
    descriptor, size = _open(path)
    try:
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), size
    except (OSError, ValueError, OverflowError) as error:  # ValueError: an empty file
        raise ArtifactError(f"{path}: cannot be memory-mapped ({error}). {DAMAGED}") from error
    finally:
        os.close(descriptor)


def _release_pages(data: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        data.madvise(mmap.MADV_DONTNEED)


def _view(data: mmap.mmap, entry: Entry) -> NDArray[Any]:
    # Cannot fail: parse_header proved begin ≤ end ≤ size, end − begin = bytes of shape, begin aligned.
    dtype = DTYPES[entry.dtype]
    count = (entry.end - entry.begin) // dtype.itemsize
    return np.frombuffer(data, dtype, count, entry.begin).reshape(entry.shape)


def _check_entries(entries: dict[str, Entry], expected: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    for name in entries:
        if name not in expected:
            raise ArtifactError("stands in model.safetensors but the config has no such tensor; remove it", name)
    for name, (dtype, shape) in expected.items():
        if name not in entries:
            raise ArtifactError(f"is missing from model.safetensors; {dtype} {list(shape)} is expected", name)
        entry = entries[name]
        if (entry.dtype, entry.shape) != (dtype, shape):
            raise ArtifactError(
                f"is {entry.dtype} {list(entry.shape)} in model.safetensors; the config gives {dtype} {list(shape)}",
                name,
            )


def _ranges(config: ArtifactConfig, tensors: dict[str, NDArray[Any]]) -> dict[str, tuple[float, float]]:
    """(scale, offset) of each point whose entry exists, which `_check_entries` made all or none."""
    ranges = {}
    for point, kind in activation_points(config.model).items():
        name = f"{point}.range"
        if name not in tensors:
            continue
        stored.check_finite(tensors[name], name)
        stored.check_scale(tensors[name][:1], name)
        scale, offset = (float(value) for value in tensors[name])
        if kind == "probabilities":
            required = 0.0  # a masked key has probability exactly 0 and keeps it only so
        elif config.activations.symmetric:
            required = -(2.0 ** (config.activations.bits - 1)) * scale  # the code in the middle is the value 0
        else:
            required = offset
        if offset != required:
            raise ArtifactError(f"offset is {offset}; a range of this kind has offset {required}", name)
        if abs(offset) > stored.MAX_OFFSET or scale > stored.MAX_SCALE:
            raise ArtifactError(f"range {scale}·code + {offset} leaves fp32; its ends must be finite", name)
        ranges[point] = (scale, offset)
    return ranges
