"""What an artifact holds, counted on disk, and a complete re-check of it: the JSON of ``bitpress inspect``."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bitpress.artifact import stored
from bitpress.artifact.accounting import (
    binary_accounting,
    binary_operations,
    gobo_accounting,
    operations,
    paper_accounting,
    qbert_accounting,
)
from bitpress.artifact.model_config import is_layer_matrix
from bitpress.artifact.reader import TENSORS_FILE, Artifact, read_artifact, read_file
from bitpress.artifact.schema import TensorSpec, task_document
from bitpress.artifact.strict_json import parse_object
from bitpress.artifact.writer import PROVENANCE_FILE
from bitpress.errors import ArtifactError

# In provenance.json: SHA-256 of model.safetensors. The only thing that tells a changed fp32 value from the one written.
WEIGHTS_DIGEST_KEY = "weights_sha256"
MAX_PROVENANCE_BYTES = 16 << 20
MAX_TOKENIZER_BYTES = 256 << 20
_ROWS = 1024  # of a matrix re-encoded at once: 3 MB of codes for 3,072 columns


def describe(path: str | Path) -> dict[str, Any]:
    """Scheme, bits, shape and bytes of every tensor, and totals.

    Returns:
        path, recipe, task, max_length, total_bytes (model.safetensors on disk), directory_bytes (all files),
        fp32_bytes (4 a parameter), ratio (fp32_bytes / total_bytes), parameters, schemes (tensors, parameters and
        bytes by scheme), tensors (name, scheme, bits, shape, bytes of all its entries, group, group_size, symmetric,
        packing, terms, outliers), activations, paper_accounting (label, mib, ratio), operations (label, tokens, giga),
        of layers with uniform weights qbert_accounting (as paper_accounting, and encoder_mib and encoder_ratio), of
        those with codebooks gobo_accounting (as paper_accounting, and outliers and share), and of binary
        activations binary_accounting (as paper_accounting) and binary_operations (label, tokens, fp32 and binary in
        10⁹, ratio). Scales and shifts of elastic activations are listed with the tensors and counted as the scheme
        "elastic", but are no parameters: no fp32 model has them.

    Raises:
        ArtifactError: the artifact is malformed.
    """
    artifact = read_artifact(path)
    config = artifact.config
    specs = config.tensors
    tensors = []
    schemes: dict[str, dict[str, int]] = defaultdict(lambda: {"tensors": 0, "parameters": 0, "bytes": 0})
    for name, spec in specs.items():
        size = sum(artifact.tensors[entry].nbytes for entry in stored.entries(name, spec))
        counts = schemes[_scheme_label(spec)]
        counts["tensors"] += 1
        counts["parameters"] += math.prod(spec.shape)
        counts["bytes"] += size
        tensors.append(_listed(name, spec, size))
    for name, array in artifact.elastic.items():
        schemes["elastic"]["tensors"] += 1
        schemes["elastic"]["bytes"] += array.nbytes
        tensors.append(_listed(name, TensorSpec("elastic", 32.0, array.shape), array.nbytes))
    parameters = sum(math.prod(spec.shape) for spec in specs.values())
    total = (artifact.path / TENSORS_FILE).stat().st_size
    sizes = (config.num_hidden_layers, config.hidden_size, config.attention_size, config.intermediate_size)
    described: dict[str, Any] = {
        "path": str(path),
        "recipe": config.recipe,
        "task": task_document(config.task) | {"labels": config.labels},
        "max_length": config.max_length,
        "total_bytes": total,
        "directory_bytes": sum(file.stat().st_size for file in artifact.path.iterdir() if file.is_file()),
        "fp32_bytes": 4 * parameters,
        "ratio": 4 * parameters / total,
        "parameters": parameters,
        "schemes": dict(schemes),
        "tensors": tensors,
        "activations": _activations(artifact),
        "paper_accounting": paper_accounting(specs),
        "operations": operations(*sizes),
    }
    if all(spec.scheme == "uniform" for name, spec in specs.items() if is_layer_matrix(name)):
        described["qbert_accounting"] = qbert_accounting(specs)
    if all(spec.scheme == "codebook" for name, spec in specs.items() if is_layer_matrix(name)):
        described["gobo_accounting"] = gobo_accounting(specs)
    if config.activations.scheme == "binary":
        described["binary_accounting"] = binary_accounting(specs)
        described["binary_operations"] = binary_operations(described["operations"])
    return described


def verify(path: str | Path) -> dict[str, Any]:
    """Read the artifact again and check more than a load does: every matrix re-encodes to its own bytes, and the
    weights file has the checksum that provenance.json records, if it records one.

    Returns:
        path, ok (True) and checks: a list of {"check": what holds, "count": on how many}.

    Raises:
        ArtifactError: the first thing that does not hold.
    """
    artifact = read_artifact(path)
    specs = artifact.config.tensors
    quantized = {name: spec for name, spec in specs.items() if not spec.is_float}
    for name, spec in quantized.items():
        _check_canonical(artifact, name, spec)
    tokenizer = Path(path) / "tokenizer.json"
    parse_object(read_file(tokenizer, MAX_TOKENIZER_BYTES), str(tokenizer))
    checks = {
        "bytes of model.safetensors that belong to exactly one entry": (artifact.path / TENSORS_FILE).stat().st_size,
        "entries with the dtype and shape that the config gives": len(artifact.tensors),
        "fp32 and fp16 tensors with finite values only": len(specs) - len(quantized),
        "quantized tensors with valid codes and zero padding": len(quantized),
        "quantized tensors whose decoded codes pack to the same bytes": len(quantized),
        "outliers that are finite, each in a place of its own": sum(spec.outliers or 0 for spec in quantized.values()),
        "scales that are finite and above 0": sum(artifact.tensors[f"{name}.scale"].size for name in quantized),
        "static activation ranges that are finite": len(artifact.ranges),
        "scales and shifts of elastic activations that are finite": len(artifact.elastic),
        "tokenizer.json that is strict JSON": 1,
    }
    if _matches_recorded_digest(artifact.path):
        checks["model.safetensors with the SHA-256 that provenance.json records"] = 1
    return {"path": str(path), "ok": True, "checks": [{"check": text, "count": n} for text, n in checks.items()]}


def _matches_recorded_digest(path: Path) -> bool:
    """False where provenance.json records no checksum; ArtifactError where the weights have another."""
    provenance = path / PROVENANCE_FILE
    if not provenance.is_file():
        return False
    recorded = parse_object(read_file(provenance, MAX_PROVENANCE_BYTES), str(provenance)).get(WEIGHTS_DIGEST_KEY)
    if recorded is None:
        return False
    with (path / TENSORS_FILE).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != recorded:
        raise ArtifactError(
            f"{path / TENSORS_FILE}: SHA-256 is {found}, {PROVENANCE_FILE} records {recorded!r:.80}. The file was "
            "changed since it was written: copy it again, or compress the model again"
        )
    return True


def _listed(name: str, spec: TensorSpec, size: int) -> dict[str, Any]:
    """A line of `describe`'s tensors."""
    return {
        "name": name,
        "scheme": spec.scheme,
        "bits": spec.bits,
        "shape": list(spec.shape),
        "bytes": size,
        "group": spec.group,
        "group_size": spec.group_size,
        "symmetric": spec.symmetric,
        "packing": spec.packing,
        "terms": spec.terms,
        "outliers": spec.outliers,
    }


def _activations(artifact: Artifact) -> dict[str, Any]:
    described = asdict(artifact.config.activations) | {"static_ranges": len(artifact.ranges)}
    if described["scheme"] == "binary":
        return described | {"elastic_numbers": sum(array.size for array in artifact.elastic.values())}
    del described["attention"]
    return described


def _scheme_label(spec: TensorSpec) -> str:
    """What `describe` counts together: "fp32", "ternary trits", "uniform 4 bits", …"""
    if spec.is_float:
        return spec.scheme
    return f"{spec.scheme} {spec.packing or f'{spec.bits:g} bits'}"


def _check_canonical(artifact: Artifact, name: str, spec: TensorSpec) -> None:
    packed = artifact.tensors[f"{name}.codes"]
    packed = packed.reshape(-1, packed.shape[-1])  # rows of all terms
    for start in range(0, len(packed), _ROWS):
        rows = packed[start : start + _ROWS]
        if not np.array_equal(stored.pack_codes(name, spec, stored.unpack_codes(spec, rows)), rows):
            raise ArtifactError(
                f"rows {start} to {start + len(rows) - 1} do not re-encode to the same bytes "
                f"({spec.bits:g} bits a code, padding zero)",
                name,
            )
