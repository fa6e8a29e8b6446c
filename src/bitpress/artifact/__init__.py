"""The artifact: a directory of packed weights that needs neither torch nor trust. Format: docs/artifact.md."""

from bitpress.artifact.accounting import (
    binary_accounting,
    binary_operations,
    gobo_accounting,
    operations,
    paper_accounting,
    qbert_accounting,
    tensor_bytes,
)
from bitpress.artifact.bitstring import bit_row_bytes, pack_bits, unpack_bits
from bitpress.artifact.codec import pack_ternary, row_bytes, unpack_ternary
from bitpress.artifact.elastic import elastic_entries
from bitpress.artifact.forms import (
    BinaryTensor,
    CodebookTensor,
    FloatTensor,
    HalfTensor,
    QuantizedTensor,
    StoredTensor,
    TernaryTensor,
    UniformTensor,
)
from bitpress.artifact.inspect import WEIGHTS_DIGEST_KEY, describe, verify
from bitpress.artifact.outliers import Outliers
from bitpress.artifact.reader import Artifact, read_artifact, read_config
from bitpress.artifact.schema import (
    ActivationSpec,
    ArtifactConfig,
    SpanSpec,
    TaskSpec,
    TensorSpec,
    activation_points,
    expected_tensors,
)
from bitpress.artifact.writer import check_destination, replace_file, write_artifact
from bitpress.errors import ArtifactError

__all__ = [
    "WEIGHTS_DIGEST_KEY",
    "ActivationSpec",
    "Artifact",
    "ArtifactConfig",
    "ArtifactError",
    "BinaryTensor",
    "CodebookTensor",
    "FloatTensor",
    "HalfTensor",
    "Outliers",
    "QuantizedTensor",
    "SpanSpec",
    "StoredTensor",
    "TaskSpec",
    "TensorSpec",
    "TernaryTensor",
    "UniformTensor",
    "activation_points",
    "binary_accounting",
    "binary_operations",
    "bit_row_bytes",
    "check_destination",
    "describe",
    "elastic_entries",
    "expected_tensors",
    "gobo_accounting",
    "operations",
    "pack_bits",
    "pack_ternary",
    "paper_accounting",
    "qbert_accounting",
    "read_artifact",
    "read_config",
    "replace_file",
    "row_bytes",
    "tensor_bytes",
    "unpack_bits",
    "unpack_ternary",
    "verify",
    "write_artifact",
]
