"""Training a masked-language-model head on raw text (Devlin et al. 2018, arXiv 1810.04805, §3.1), which no package of
pretrained encoders ships and ``augment`` needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitpress.encoder import MaskedLanguageHead, SequenceClassifier, head_parameters, save_encoder
from bitpress.train import Batch, EncodedDataset, collate

# Of the tokens that are to be predicted: hidden behind [MASK], replaced by another token; the rest stay as they are.
HIDDEN, REPLACED = 0.8, 0.1


class MaskedLanguageModel(nn.Module):
    """An encoder with a masked-language-model head; its own pooler and classifier are not used."""

    def __init__(self, body: SequenceClassifier, head: MaskedLanguageHead) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None, chosen: Tensor
    ) -> Tensor:
        """input_ids int64 [B, T], chosen bool [B, T] → logits [chosen.sum(), V], row by row."""
        hidden, _, _ = self.body.encode(input_ids, attention_mask, token_type_ids)
        return self.head(hidden[chosen], self.body.embeddings.word.weight)


class MaskedLanguage:
    """The objective of ``pretrain --task mlm``: the tokens behind a mask, by cross-entropy.

    Args:
        encoder: what the head reads; its weights stay as they are unless ``train_body``.
        mask_id: the id of [MASK]; ``special``: ids that are never predicted.
        share: of tokens that are.
    """

    metric = "masked_accuracy"

    def __init__(
        self,
        encoder: SequenceClassifier,
        mask_id: int,
        special: list[int],
        share: float = 0.15,
        train_body: bool = False,
        seed: int = 0,
    ) -> None:
        self.model = MaskedLanguageModel(encoder, MaskedLanguageHead(encoder.config, seed))
        self.mask_id, self.special, self.share, self.train_body = mask_id, torch.tensor(special), share, train_body
        if not train_body:
            encoder.requires_grad_(False)
        for parameter in head_parameters(encoder):
            parameter.requires_grad_(False)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy over the chosen tokens of a batch, and the share of them that is right; draws from torch's
        generator. As :func:`bitpress.train.run_stage` takes it."""
        if not self.train_body:
            self.model.body.eval()  # dropout would blur what the head is to read
        ids, chosen = self._masked(batch)
        logits = model(ids, batch.attention_mask, batch.token_type_ids, chosen)
        targets = batch.input_ids[chosen]
        right = (logits.detach().argmax(dim=-1) == targets).float().mean()
        return F.cross_entropy(logits, targets), {"accuracy": right}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, held_out: EncodedDataset) -> dict[str, float]:
        """Loss and accuracy on the held-out sequences, with the same masks each time."""
        totals = np.zeros(3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for indices in np.array_split(np.arange(len(held_out)), -(-len(held_out) // 32)):
                batch = collate(held_out, indices, next(model.parameters()).device)
                ids, chosen = self._masked(batch)
                logits = model(ids, batch.attention_mask, batch.token_type_ids, chosen)
                targets = batch.input_ids[chosen]
                right = int((logits.argmax(dim=-1) == targets).sum())
                totals += (len(targets), float(F.cross_entropy(logits, targets, reduction="sum")), right)
        return {"masked_loss": totals[1] / totals[0], self.metric: totals[2] / totals[0]}

    def write(self, out: str | Path, encoder: str | Path) -> None:
        """The encoder with its head as a Hugging Face BertForMaskedLM names it."""
        save_encoder(self.model.body, out, tokenizer_from=encoder, extra=self.model.head.tensors())

    def describe(self) -> dict[str, Any]:
        """What was made."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return {"model": "masked-language-model head", "parameters": sum(p.numel() for p in trained)}

    def _masked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(input ids as the model gets them, which are to be predicted [B, T]). Drawn on the CPU, so that every device
        masks the same tokens."""
        ids, device = batch.input_ids, batch.input_ids.device
        ordinary = batch.attention_mask & ~torch.isin(ids, self.special.to(device))
        draw = torch.rand(ids.shape).to(device)
        chosen = ordinary & (draw < self.share)
        if not bool(chosen.any()):  # a batch of a few tokens: at least one
            chosen.view(-1)[int((draw + ~ordinary).argmin())] = True
        kind = torch.rand(ids.shape).to(device)
        masked = torch.where(chosen & (kind < HIDDEN), self.mask_id, ids)
        others = torch.randint(self.model.body.config.vocab_size, ids.shape).to(device)
        return torch.where(chosen & (kind >= HIDDEN) & (kind < HIDDEN + REPLACED), others, masked), chosen
