"""The artifact: a directory of packed weights that needs neither torch nor trust. Format: docs/artifact.md."""

from bitpress.artifact.codec import TernaryTensor, pack_ternary, row_bytes, unpack_ternary
from bitpress.artifact.inspect import WEIGHTS_DIGEST_KEY, describe, paper_accounting, verify
from bitpress.artifact.reader import Artifact, read_artifact, read_config
from bitpress.artifact.schema import (
    ActivationSpec,
    ArtifactConfig,
    TaskSpec,
    TensorSpec,
    activation_points,
    expected_tensors,
)
from bitpress.artifact.writer import FloatTensor, check_destination, replace_file, write_artifact
from bitpress.errors import ArtifactError

__all__ = [
    "WEIGHTS_DIGEST_KEY",
    "ActivationSpec",
    "Artifact",
    "ArtifactConfig",
    "ArtifactError",
    "FloatTensor",
    "TaskSpec",
    "TensorSpec",
    "TernaryTensor",
    "activation_points",
    "check_destination",
    "describe",
    "expected_tensors",
    "pack_ternary",
    "paper_accounting",
    "read_artifact",
    "read_config",
    "replace_file",
    "row_bytes",
    "unpack_ternary",
    "verify",
    "write_artifact",
]
