"""Other engines under the protocol of ``bitpress.bench.worker``: ``peer_worker.py ENGINE DIRECTORY --threads N …``.

Each gets the settings its documentation recommends for latency on a CPU (peer_models.py says how its files are made)
and the light tokenizer of bitpress, which imports neither torch nor transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before anything heavy: the worker's clock starts at its import.
from bitpress.bench.worker import Batch, LoadedModel, Predictor, in_batches_of_like_length, main

Loader = Callable[[Path, int], LoadedModel]


def load_onnxruntime(path: Path, threads: int) -> LoadedModel:
    """Every graph optimization, ``threads`` threads within an operation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return LoadedModel(
        lambda batch: session.run(None, padded(batch))[0],
        {"engine": f"ONNX Runtime {onnxruntime.__version__}", "isa": ""},
    )


def load_openvino(path: Path, threads: int) -> LoadedModel:
    """Latency hint (one stream), fp32 execution, one inference request."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # nothing goes online, no thread for it
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(path / "model.xml", "CPU", settings).create_infer_request()

    def forward(batch: Batch) -> Any:
        request.infer(padded(batch))
        return request.get_output_tensor(0).data.copy()

    return LoadedModel(forward, {"engine": f"OpenVINO {openvino.__version__.split('-')[0]}", "isa": ""})


def load_ctranslate2(path: Path, threads: int) -> LoadedModel:
    """int8 execution; the encoder returns the pooler's output, the classifier is one product in numpy."""
    for name in ("torch", "transformers", "huggingface_hub"):
        sys.modules[name] = None  # type: ignore[assignment]  # its converters would import them if they are there
    import ctranslate2
    import numpy as np

    encoder = ctranslate2.Encoder(str(path / "encoder"), compute_type="int8", inter_threads=1, intra_threads=threads)
    with np.load(path / "classifier.npz") as file:
        weight, bias = file["weight"].T.copy(), file["bias"]

    def forward(batch: Batch) -> Any:
        pooled = encoder.forward_batch(batch["ids"], token_type_ids=padded_lists(batch["type_ids"])).pooler_output
        return np.array(pooled) @ weight + bias

    return LoadedModel(forward, {"engine": f"CTranslate2 {ctranslate2.__version__}", "isa": ""})


LOADERS: dict[str, Loader] = {
    "onnxruntime": load_onnxruntime,
    "openvino": load_openvino,
    "ctranslate2": load_ctranslate2,
}


def padded_lists(sequences: list[list[int]]) -> list[list[int]]:
    """Zeros up to the longest sequence."""
    longest = max(map(len, sequences))
    return [sequence + [0] * (longest - len(sequence)) for sequence in sequences]


def padded(batch: Batch) -> dict[str, Any]:
    """The inputs of a BERT graph, int64 [batch, longest]."""
    import numpy as np

    return {
        "input_ids": np.array(padded_lists(batch["ids"]), dtype=np.int64),
        "attention_mask": np.array(padded_lists([[1] * len(ids) for ids in batch["ids"]]), dtype=np.int64),
        "token_type_ids": np.array(padded_lists(batch["type_ids"]), dtype=np.int64),
    }


def predictor_of(load: Loader) -> Callable[[Path, int], Predictor]:
    """Tokenizer and engine together: texts in, logits out, in padded batches sorted by length."""

    def predictor(path: Path, threads: int) -> Predictor:
        import json

        from bitpress.runtime.tokenization import Tokenizer

        tokenizer = Tokenizer.from_directory(path)
        max_length = json.loads((path / "tokenizer_config.json").read_text())["model_max_length"]

        def encode(texts: list[str]) -> Batch:
            encodings = tokenizer.encode(texts, max_length=max_length)
            return {"ids": [e.ids for e in encodings], "type_ids": [e.type_ids for e in encodings]}

        return in_batches_of_like_length(encode, load(path, threads).forward)

    return predictor


if __name__ == "__main__":
    loader = LOADERS[sys.argv[1]]
    sys.exit(main(sys.argv[2:], load=loader, predictor=predictor_of(loader)))
