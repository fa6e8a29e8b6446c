"""Writes the artifacts of tests/data/artifact-v1, which must load for ever. Run once for a new version of the format:

    python tests/artifact/make_golden.py tests/data/artifact-v1

Numbers come from SHAKE-256 of the tensor's name, so config.json and model.safetensors are the same on every machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from artifact_samples import (
    hf_config,
    make_binary_config,
    make_binarybert_config,
    make_config,
    make_elastic,
    make_embedding_config,
    make_gobo_config,
    make_mixed_config,
    make_ranges,
    make_spans_config,
    make_tensors,
    make_tokens_config,
)
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bitpress.artifact import ActivationSpec, ArtifactConfig, TaskSpec, write_artifact

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
SUFFIXES = ["##a", "##e", "##i", "##n", "##r", "##s", "##t", "##ers"]
TEXT = ["the", "film", "that", "ling", "and", "is", "was", "not", "very", "good", "bad", "slow", "fast", *".,!?'"]
WORDS = SPECIAL + LETTERS + SUFFIXES + TEXT


def golden_configs() -> dict[str, ArtifactConfig]:
    """Between them the directories use every choice of version 1 but fp32 activations and attention to all keys."""
    return {
        "2bit": make_config("2bit", "matrix", ActivationSpec(clip=2.5)),
        "trits": make_config(
            "trits",
            "row",
            ActivationSpec(symmetric=True, range="static"),
            TaskSpec("regression", "pearson", True),
            hf_config(id2label={"0": "similarity"}, label2id={"similarity": 0}),
        ),
        "mixed": make_mixed_config(),
        "binary": make_binary_config(),
        "elastic": make_binary_config("softmax"),
        "binarybert": make_binarybert_config(),
        "embedding": make_embedding_config(ActivationSpec(clip=3.0)),
        "tokens": make_tokens_config(ActivationSpec(range="static")),
        "spans": make_spans_config(),
        "gobo": make_gobo_config(),
    }


def word_piece() -> bytes:
    """A small lower-case WordPiece tokenizer with BERT's template."""
    assert len(WORDS) <= 61  # the vocabulary of the model
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))],
    )
    return tokenizer.to_str(pretty=False).encode()


def write_golden(directory: Path) -> None:
    """Write all artifacts below ``directory``."""
    for name, config in golden_configs().items():
        write_artifact(
            directory / name,
            config,
            make_tensors(config),
            make_ranges(config),
            {"tokenizer.json": word_piece()},
            f"# Golden artifact, version 1, packing {name}\n\nHashed numbers, not a trained model.\n",
            {"made_by": "tests/artifact/make_golden.py", "recipe": config.recipe},
            make_elastic(config),
        )


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
