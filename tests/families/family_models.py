"""Tiny random checkpoints of every family, written by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

VOCABULARY = 61
POSITIONS = 20  # that a text can use
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": POSITIONS,
    # A large spread, so that scores, activations and differences between formulas are not all near 0.
    "initializer_range": 0.4,
}
_AFTER_PADDING = {"max_position_embeddings": POSITIONS + 2, "pad_token_id": 1}
# By a name of the case: the family's class name and what its configuration has.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {**_SIZES, "type_vocab_size": 2}),
    "distilbert": (
        "DistilBert",
        {
            "vocab_size": VOCABULARY,
            "dim": 24,
            "n_layers": 2,
            "n_heads": 3,
            "hidden_dim": 40,
            "max_position_embeddings": POSITIONS,
            "initializer_range": 0.4,
        },
    ),
    "electra": ("Electra", {**_SIZES, "type_vocab_size": 2, "embedding_size": 24}),
    "electra, narrow": ("Electra", {**_SIZES, "type_vocab_size": 2, "embedding_size": 15}),
    "roberta": ("Roberta", {**_SIZES, **_AFTER_PADDING, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "roberta with types": ("Roberta", {**_SIZES, **_AFTER_PADDING, "type_vocab_size": 2}),
    "camembert": ("Camembert", {**_SIZES, **_AFTER_PADDING, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", {**_SIZES, **_AFTER_PADDING, "type_vocab_size": 1}),
}


def make_checkpoint(
    case: str, directory: Path, seed: int = 0, kind: str = "SequenceClassification", **overrides: Any
) -> Any:
    """Write a random model of that kind to ``directory``; the transformers model, in eval mode."""
    name, values = CASES[case]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**{**values, **overrides})
    model = getattr(transformers, f"{name}For{kind}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases start at 0 and LayerNorm gains at 1: a swap would go unseen
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return model


def batch(
    rows: int = 3, length: int = 7, padded: bool = False, pad_id: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(input_ids, attention_mask, token_type_ids) of pairs of texts; no real token is the padding."""
    generator = torch.Generator().manual_seed(rows * 100 + length)
    ids = torch.randint(4, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        for row in range(rows):
            mask[row, max(1, length - 2 * row) :] = 0
    types = (torch.arange(length) >= length // 2).long().expand(rows, length) * mask
    return torch.where(mask > 0, ids, pad_id), mask, types


def transformers_logits(model: Any, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    """As the family's own tokenizer calls it: token types where the model tells them apart."""
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = types
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits


def span_logits(model: Any, *batch: torch.Tensor) -> torch.Tensor:
    """[B, T, 2] of a transformers model, with token types where it tells them apart."""
    ids, mask, types = batch
    typed = {"token_type_ids": types} if getattr(model.config, "type_vocab_size", 1) > 1 else {}
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, **typed)
    return torch.stack([output.start_logits, output.end_logits], -1)


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Vectors [B, H] of hidden states [B, T, H] and mask [B, T], each text on its own."""
    rows = [states[: int(real.sum())] for states, real in zip(hidden, mask, strict=True)]
    functions = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "max": lambda x: x.max(0).values}
    return torch.stack([functions[pooling](row) for row in rows])
