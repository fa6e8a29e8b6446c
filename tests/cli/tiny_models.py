"""Tiny random models with a word-piece tokenizer of forty tokens: an artifact, and a Hugging Face checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bitpress.artifact import SpanSpec

WORDS = [
    *("good", "bad", "film", "book", "the", "a", "is", "was", "not", "very"),
    *("plot", "actor", "story", "end", "sad", "glad", "long", "short", "new", "old"),
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz"]
LABELS = ("negative", "positive")


def hf_config(
    regression: bool = False, labels: tuple[str, ...] = LABELS, tokens: bool = False, spans: bool = False
) -> dict[str, Any]:
    """A BERT of two layers, 24 columns and 40 positions."""
    config: dict[str, Any] = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 36,
        "vocab_size": len(VOCABULARY),
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    names = ("score",) if regression else ("O", "B-thing", "I-thing") if tokens else labels
    names = ("start", "end") if spans else names
    config["id2label"] = {str(i): name for i, name in enumerate(names)}
    config["label2id"] = {name: i for i, name in enumerate(names)}
    if tokens:
        config |= {"architectures": ["BertForTokenClassification"], "head": "tokens"}
    if spans:
        config |= {"architectures": ["BertForQuestionAnswering"], "head": "tokens"}
    return config | ({"problem_type": "regression"} if regression else {})


def tokenizer_json() -> bytes:
    """BERT's uncased tokenizer over ``VOCABULARY``, as tokenizer.json."""
    from tokenizers import BertWordPieceTokenizer

    vocabulary = {token: i for i, token in enumerate(VOCABULARY)}
    text: str = BertWordPieceTokenizer(vocab=vocabulary, lowercase=True).to_str()
    return text.encode()


def make_artifact(
    path: Path,
    *,
    pair: bool = False,
    regression: bool = False,
    tokens: bool = False,
    vectors: bool = False,
    label_sets: bool = False,
    spans: SpanSpec | None = None,
    seed: int = 0,
) -> Path:
    """An artifact with random ternary matrices, written without torch."""
    from bitpress.artifact import (
        ActivationSpec,
        ArtifactConfig,
        TaskSpec,
        TensorSpec,
        TernaryTensor,
        expected_tensors,
        write_artifact,
    )
    from bitpress.artifact.model_config import can_be_quantized

    rng = np.random.default_rng(seed)
    model = hf_config(regression, tokens=tokens, spans=spans is not None)
    if vectors:
        model = {key: value for key, value in model.items() if "label" not in key} | {"head": "mean"}
    if label_sets:
        model["problem_type"] = "multi_label_classification"
    specs: dict[str, TensorSpec] = {}
    tensors: dict[str, Any] = {}
    for name, shape in expected_tensors(model).items():
        if can_be_quantized(name):
            rows = name == "embeddings.word.weight"
            specs[name] = TensorSpec.ternary(shape, "2bit", "row" if rows else "matrix")
            scale = rng.uniform(0.1, 0.4, shape[0] if rows else 1).astype(np.float32)
            tensors[name] = TernaryTensor(rng.integers(-1, 2, shape).astype(np.int8), scale)
        else:
            specs[name] = TensorSpec.fp32(shape)
            tensors[name] = rng.normal(0, 0.5, shape).astype(np.float32)
    kind = ("regression", "pearson") if regression else ("classification", "accuracy")
    task = TaskSpec(*(("token_classification", "entity_f1") if tokens else kind), pair)
    if spans is not None:
        task = TaskSpec("question_answering", "f1", True, spans)
    if vectors:
        task = TaskSpec("embedding", "spearman", False, normalize=True)
    if label_sets:
        task = TaskSpec("multilabel", "micro_f1", False, threshold=0.55)
    config = ArtifactConfig(model, "ternarybert", ActivationSpec(), task, 32, specs)
    write_artifact(path, config, tensors, {}, {"tokenizer.json": tokenizer_json()}, "# tiny\n", {})
    return path


def make_checkpoint(path: Path, seed: int = 0) -> Path:
    """A random checkpoint as transformers saves it."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.BertConfig(**{k: v for k, v in hf_config().items() if k != "architectures"})
    transformers.BertForSequenceClassification(config).save_pretrained(path)
    (path / "tokenizer.json").write_bytes(tokenizer_json())
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **special}
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return path


def labelled_file(path: Path, rows: int = 12) -> Path:
    """A tsv of sentences whose label is whether they say good."""
    lines = ["sentence\tlabel"]
    for i in range(rows):
        word, label = ("good", "positive") if i % 2 else ("bad", "negative")
        lines.append(f"the {WORDS[i % len(WORDS)]} film is {word}\t{label}")
    path.write_text("\n".join(lines) + "\n")
    return path
