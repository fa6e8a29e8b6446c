"""What a masked language model puts in the place of a word, for many sentences at once.

Input as released with TinyBERT: the sentence with a word hidden, then the sentence as it is ([CLS] masked [SEP]
original [SEP]), so that the model sees what it replaces. Only hidden positions are decoded. Several words of a sentence
may be hidden in one input, far from each other: the second copy still has them all. That is several times as fast, and
differs from one at a time only in what a word's neighbours in the first copy look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bitpress.encoder import MaskedLanguageHead, SequenceClassifier
from bitpress.runtime.tokenization import Tokenizer

BATCH_TOKENS = 1024  # more no longer fit a core's cache: 4,096 take 1.3 times as long


@dataclass(frozen=True)
class _Input:
    ids: list[int]
    type_ids: list[int]
    hidden: list[tuple[int, int, int]]  # position in the input, sentence, word


class MaskedWords:
    """Candidates by a masked language model.

    Args:
        model, head: in eval mode.
        count: of the most likely tokens, how many are candidates; those that go on a word ("##…") and special tokens
            are then dropped.
        masks_per_input: words hidden at once; 1 is the published way.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        head: MaskedLanguageHead,
        tokenizer: Tokenizer,
        count: int = 15,
        masks_per_input: int = 4,
    ) -> None:
        self.model, self.head, self.tokenizer = model, head, tokenizer
        self.count, self.masks_per_input = count, masks_per_input
        self._mask, self._special = tokenizer.mask_and_special_ids()
        self._first, self._last = tokenizer.encode([""])[0].ids
        words = tokenizer.words_by_id()
        self._words = words
        self._dropped = torch.zeros(model.config.vocab_size, dtype=torch.bool)
        self._dropped[self._special] = True
        for token, word in words.items():
            self._dropped[token] |= word.startswith("##")

    @torch.inference_mode()
    def candidates(
        self, sentences: Sequence[Sequence[str]], positions: Sequence[Sequence[int]]
    ) -> list[dict[int, tuple[str, ...]]]:
        """Per sentence (its words) and position asked for: the candidates, most likely first. A word of several pieces,
        one beyond the model's positions, and one for which nothing is left, have none."""
        inputs = [
            one
            for number, (words, wanted) in enumerate(zip(sentences, positions, strict=True))
            for one in self._inputs(number, words, wanted)
        ]
        found: list[dict[int, tuple[str, ...]]] = [{} for _ in sentences]
        for batch in _by_length(inputs):
            logits = self._decode(batch)
            # More than are wanted: some of the most likely will be dropped, as published, without replacement.
            best = logits.topk(min(self.count, logits.shape[1]), dim=1).indices
            rows = [row for one in batch for row in one.hidden]
            for (_, sentence, word), tokens in zip(rows, best.tolist(), strict=True):
                kept = tuple(self._words[t] for t in tokens if not self._dropped[t] and t in self._words)
                if kept:
                    found[sentence][word] = kept
        return found

    def _inputs(self, number: int, words: Sequence[str], wanted: Sequence[int]) -> list[_Input]:
        pieces = self.tokenizer.pieces(words)
        starts = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype(int)
        ids = [token for piece in pieces for token in piece]
        most = self.model.config.max_position_embeddings
        single = [w for w in wanted if len(pieces[w]) == 1 and starts[w] + 2 <= most]
        if not single:
            return []
        groups = -(-len(single) // self.masks_per_input)
        type_ids = ([0] * (len(ids) + 2) + [1] * (len(ids) + 1))[:most]
        made = []
        for group in range(groups):
            hidden = single[group::groups]  # as far from each other as they can be
            masked = list(ids)
            for word in hidden:
                masked[starts[word]] = self._mask
            row = [self._first, *masked, self._last, *ids, self._last][:most]
            made.append(_Input(row, type_ids, [(int(starts[word]) + 1, number, word) for word in hidden]))
        return made

    def _decode(self, batch: Sequence[_Input]) -> Tensor:
        """Logits [hidden words of the batch, V], in order."""
        longest = max(len(one.ids) for one in batch)
        ids, types = (
            torch.zeros(len(batch), longest, dtype=torch.long),
            torch.zeros(len(batch), longest, dtype=torch.long),
        )
        mask = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, one in enumerate(batch):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
            types[row, : len(one.ids)] = torch.tensor(one.type_ids)
            mask[row, : len(one.ids)] = True
        hidden, _, _ = self.model.encode(ids, mask, types)
        rows = torch.tensor([row for row, one in enumerate(batch) for _ in one.hidden])
        columns = torch.tensor([position for one in batch for position, _, _ in one.hidden])
        return self.head(hidden[rows, columns], self.model.embeddings.word.weight)


def _by_length(inputs: Sequence[_Input]) -> list[list[_Input]]:
    """Batches of at most BATCH_TOKENS tokens, padding included, of inputs that are nearly equally long."""
    batches: list[list[_Input]] = []
    for one in sorted(inputs, key=lambda one: -len(one.ids)):
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0].ids) <= BATCH_TOKENS:
            batches[-1].append(one)
        else:
            batches.append([one])
    return batches
