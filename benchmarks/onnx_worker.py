"""ONNX Runtime under the protocol of ``bitpress.bench.worker``, on a directory with model.onnx and config.json."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

import onnx_peer
from bitpress.bench.worker import Batch, LoadedModel, main


def load_onnx(path: Path, threads: int) -> LoadedModel:
    """A session on all its optimizations; batches must not be ragged."""
    session = onnx_peer.session(path / "model.onnx", threads)

    def forward(batch: Batch) -> np.ndarray:
        return session.run(None, onnx_peer.feed(np.array(batch["ids"], dtype=np.int64)))[0]

    return LoadedModel(forward, {"engine": f"ONNX Runtime {onnxruntime.__version__} {path.name}", "isa": ""})


if __name__ == "__main__":
    sys.exit(main(load=load_onnx))
