"""BERT's masked-language-model head (Devlin et al. 2018, arXiv 1810.04805): which token a hidden state is of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitpress.encoder.activations import ACTIVATIONS
from bitpress.encoder.config import EncoderConfig
from bitpress.errors import UnsupportedModelError
from bitpress.families import BERT

# As a Hugging Face BertForMaskedLM calls them.
_NAMES = {
    "transform.weight": "cls.predictions.transform.dense.weight",
    "transform.bias": "cls.predictions.transform.dense.bias",
    "norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "bias": "cls.predictions.bias",
}
PREFIX = "cls.predictions."


class MaskedLanguageHead(nn.Module):
    """logits = LayerNorm(act(W·h + b))·Eᵀ + bias, with E [V, H] the word embedding: the decoder is tied to it.

    Raises:
        UnsupportedModelError: the encoder is of another family, whose checkpoints have another head.
    """

    def __init__(self, config: EncoderConfig, seed: int = 0) -> None:
        super().__init__()
        if config.model_type != BERT.model_type:
            raise UnsupportedModelError(
                f"the encoder's model_type is {config.model_type!r}; bitpress has masked-language-model heads for "
                f"{BERT.model_type!r} only. Start from an encoder of that family"
            )
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.function = ACTIVATIONS[config.hidden_act]
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.transform.weight.normal_(0.0, config.initializer_range, generator=generator)
            self.transform.bias.zero_()

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """hidden [N, H], embedding [V, H] → [N, V]."""
        return F.linear(self.norm(self.function(self.transform(hidden))), embedding, self.bias)

    def tensors(self) -> dict[str, Tensor]:
        """By their names in a Hugging Face checkpoint."""
        return {_NAMES[name]: parameter.detach() for name, parameter in self.named_parameters()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: EncoderConfig) -> MaskedLanguageHead:
        """The inverse of :meth:`tensors`.

        Raises:
            UnsupportedModelError: a tensor is missing or of another shape.
        """
        head = cls(config)
        for name, parameter in head.named_parameters():
            stored = tensors.get(_NAMES[name])
            if stored is None or stored.shape != parameter.shape:
                found = "missing" if stored is None else f"{list(stored.shape)}"
                raise UnsupportedModelError(
                    f"masked-language-model head: tensor {_NAMES[name]!r} is {found}; {list(parameter.shape)} is "
                    "expected. Train one: bitpress pretrain ENCODER --task mlm --corpus … --out mlm/"
                )
            with torch.no_grad():
                parameter.copy_(stored)
        return head.eval()
