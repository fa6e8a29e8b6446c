"""Tokenized examples as flat arrays, length-bucketed batches, and which batch belongs to which step.

Order is a pure function of (lengths, schedule, epoch, seed): a resumed run recomputes it and nothing is stored.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bitpress.errors import TrainingError
from bitpress.runtime.windows import WindowTable
from bitpress.train.schedule import Schedule, derive_seed

# Examples are sorted by length inside chunks of this many batches: with 64, padding is a few per cent on natural text,
# while an example still meets neighbours drawn at random from thousands.
BATCHES_PER_CHUNK = 64

UNLABELLED = -100  # torch's own ignore_index: such a token is no part of a loss


@dataclass(frozen=True)
class EncodedDataset:
    """N tokenized examples without padding, as flat arrays.

    input_ids, type_ids  int32 [sum of lengths]
    offsets              int64 [N + 1]; example i is the slice offsets[i] : offsets[i + 1]
    labels               int64 class ids, float32 targets [N] or float32 sets of labels [N, C], or None where the loss
                         needs none
    pad_id               the token that fills short rows; masked out, so its value never matters to the result
    words                int32 [sum of lengths], where words have labels: of a token that begins a word the word's
                         number in its example, -1 of others. Then labels are int64 [sum of lengths], UNLABELLED where
                         no word begins. None: examples have labels
    windows              what questions the examples are windows of; then labels are int64 [N, 2], an answer's first and
                         last token. None: examples are texts
    first_lengths        int64 [N], where an example is two texts on their own, one after the other: tokens of the first
                         one. None: an example is one sequence
    """

    input_ids: np.ndarray
    type_ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    pad_id: int = 0
    words: np.ndarray | None = None
    windows: WindowTable | None = None
    first_lengths: np.ndarray | None = None

    @classmethod
    def from_sequences(
        cls,
        input_ids: Sequence[Sequence[int]],
        type_ids: Sequence[Sequence[int]] | None,
        labels: np.ndarray | None,
        *,
        pad_id: int = 0,
        words: Sequence[Sequence[int]] | None = None,
        word_counts: np.ndarray | None = None,
    ) -> EncodedDataset:
        """From one list of token ids (special tokens included) an example; no ``type_ids`` means all 0.

        Args:
            words: of each token the word that it begins, or -1; then ``labels`` has one label a word, int64
                [``word_counts.sum()``], those of one example after those of another.

        Raises:
            TrainingError: the counts of ids, type ids and labels differ, or an example has no token at all.
        """
        lengths = np.array([len(row) for row in input_ids], dtype=np.int64)
        if labels is not None and words is None and len(labels) != len(lengths):
            raise TrainingError(f"{len(lengths)} encoded examples but {len(labels)} labels; give one label an example.")
        if len(lengths) and lengths.min() == 0:
            raise TrainingError(f"encoded example {int(lengths.argmin())} has no token; encode with special tokens.")
        if type_ids is not None and [len(row) for row in type_ids] != lengths.tolist():
            raise TrainingError("input_ids and type_ids differ in length; give one type id a token.")
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        flat_words = None
        if words is not None:
            assert word_counts is not None, "words come with their numbers"
            flat_words = _flatten(words, int(offsets[-1]))
            labels = None if labels is None else _token_labels(labels, flat_words, lengths, word_counts)
        return cls(
            input_ids=_flatten(input_ids, int(offsets[-1])),
            type_ids=np.zeros(int(offsets[-1]), np.int32) if type_ids is None else _flatten(type_ids, int(offsets[-1])),
            offsets=offsets,
            labels=labels,
            pad_id=pad_id,
            words=flat_words,
        )

    def in_pairs(self, labels: np.ndarray | None) -> EncodedDataset:
        """Of 2N examples N, each the two texts that were neighbours, with labels of their own."""
        return replace(self, offsets=self.offsets[::2], first_lengths=self.lengths[::2], labels=labels)

    def apart(self) -> EncodedDataset:
        """Every sequence an example, the two of a pair one after the other and without labels; where examples are no
        pairs, itself."""
        if self.first_lengths is None:
            return self
        offsets = np.empty(2 * len(self) + 1, np.int64)
        offsets[::2], offsets[1::2] = self.offsets, self.offsets[:-1] + self.first_lengths
        return replace(self, offsets=offsets, first_lengths=None, labels=None)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64 [N]."""
        return np.diff(self.offsets)

    def tokens(self, indices: np.ndarray) -> np.ndarray:
        """Positions in the flat arrays of all tokens of the examples ``indices``, one after another, int64."""
        lengths = self.lengths[indices]
        starts = np.cumsum(lengths) - lengths
        return np.repeat(self.offsets[indices] - starts, lengths) + np.arange(lengths.sum())

    def select(self, indices: np.ndarray) -> EncodedDataset:
        """The examples ``indices`` (int64 [n]), in that order."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths[indices])])
        tokens = self.tokens(indices)
        rows = indices if self.words is None else tokens
        labels = None if self.labels is None else self.labels[rows]
        words = None if self.words is None else self.words[tokens]
        firsts = None if self.first_lengths is None else self.first_lengths[indices]
        windows = None
        if self.windows is not None:
            windows = replace(
                self.windows, questions=self.windows.questions[indices], places=self.windows.places[tokens]
            )
        ids, types = self.input_ids[tokens], self.type_ids[tokens]
        return EncodedDataset(ids, types, offsets, labels, self.pad_id, words, windows, firsts)

    def digest(self) -> str:
        """sha256 over everything that training reads."""
        sha = hashlib.sha256(f"{self.pad_id}".encode())
        for array in (self.input_ids, self.type_ids, self.offsets, self.labels, self.words, self.first_lengths):
            if array is not None:
                sha.update(f"{array.dtype}{array.shape}".encode())
                sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()


def _flatten(rows: Sequence[Sequence[int]], total: int) -> np.ndarray:
    return np.fromiter((token for row in rows for token in row), dtype=np.int32, count=total)


def _token_labels(labels: np.ndarray, words: np.ndarray, lengths: np.ndarray, word_counts: np.ndarray) -> np.ndarray:
    """int64 [tokens]: the label of the word that a token begins, else UNLABELLED."""
    first_word = np.repeat(np.cumsum(word_counts) - word_counts, lengths)
    begins = words >= 0
    of_tokens = np.full(len(words), UNLABELLED, np.int64)
    of_tokens[begins] = labels[(first_word + words)[begins]]
    return of_tokens


@dataclass(frozen=True)
class Batch:
    """B examples padded to the longest, T tokens.

    input_ids, token_type_ids  int64 [B, T]
    attention_mask             bool [B, T], True at real tokens
    labels                     int64 or float32 [B], or float32 [B, C]; where words have labels int64 [B, T],
                               UNLABELLED where none begins; of windows int64 [B, 2], an answer's first and last token;
                               or None
    indices                    int64 [B] on the CPU: which examples of the dataset these are

    Of examples that are pairs (``is_paired``) there are 2B sequences, the two of a pair one after the other.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    labels: Tensor | None
    indices: Tensor
    is_paired: bool = False

    def __len__(self) -> int:
        return len(self.indices)


def collate(dataset: EncodedDataset, indices: np.ndarray, device: torch.device | str = "cpu") -> Batch:
    """The examples ``indices`` (int64 [B]) as one padded batch on ``device``."""
    if dataset.first_lengths is not None:
        texts = (2 * np.asarray(indices, np.int64)[:, None] + np.arange(2)).ravel()
        labels = None if dataset.labels is None else torch.from_numpy(dataset.labels[indices]).to(device)
        own = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        return replace(collate(dataset.apart(), texts, device), labels=labels, indices=own, is_paired=True)
    starts = dataset.offsets[indices]
    lengths = dataset.offsets[indices + 1] - starts
    columns = np.arange(int(lengths.max()))
    mask = columns < lengths[:, None]
    source = (starts[:, None] + columns)[mask]
    input_ids = np.full(mask.shape, dataset.pad_id, dtype=np.int64)
    input_ids[mask] = dataset.input_ids[source]
    type_ids = np.zeros(mask.shape, dtype=np.int64)
    type_ids[mask] = dataset.type_ids[source]
    labels = None
    if dataset.labels is not None and dataset.words is None:
        labels = torch.from_numpy(dataset.labels[indices]).to(device)
    elif dataset.labels is not None:
        of_tokens = np.full(mask.shape, UNLABELLED, dtype=np.int64)
        of_tokens[mask] = dataset.labels[source]
        labels = torch.from_numpy(of_tokens).to(device)
    return Batch(
        input_ids=torch.from_numpy(input_ids).to(device),
        attention_mask=torch.from_numpy(mask).to(device),
        token_type_ids=torch.from_numpy(type_ids).to(device),
        labels=labels,
        indices=torch.from_numpy(np.asarray(indices, dtype=np.int64)),
    )


def make_batches(lengths: np.ndarray, schedule: Schedule, epoch: int, seed: int) -> list[np.ndarray]:
    """Every example exactly once, in batches of similar lengths, the batches in random order.

    Shuffle; sort by length inside large chunks; cut each chunk by ``batch_tokens`` (examples × longest) or
    ``batch_size``; shuffle the batches.

    Args:
        lengths: tokens of each example, int64 [N].

    Returns:
        Arrays of example indices, int64.

    Raises:
        TrainingError: an example is longer than ``batch_tokens``.
    """
    if not len(lengths):
        return []
    longest = int(lengths.max())
    if schedule.batch_tokens is not None and longest > schedule.batch_tokens:
        raise TrainingError(
            f"batch_tokens is {schedule.batch_tokens} but the longest example has {longest} tokens; "
            f"set batch_tokens to at least {longest} or lower max_length."
        )
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches = []
    per_batch = schedule.batch_size or max(1, round(schedule.batch_tokens / float(lengths.mean())))  # type: ignore[operator]
    for start in range(0, len(order), per_batch * BATCHES_PER_CHUNK):
        chunk = order[start : start + per_batch * BATCHES_PER_CHUNK]
        # Longest first: the first example of a batch is then its width, so the cut is one division.
        chunk = chunk[np.argsort(-lengths[chunk], kind="stable")]
        position = 0
        while position < len(chunk):
            count = schedule.batch_size or schedule.batch_tokens // int(lengths[chunk[position]])  # type: ignore[operator]
            batches.append(chunk[position : position + count])
            position += count
    return [batches[i] for i in rng.permutation(len(batches))]


class Plan:
    """Which batches make up optimizer step s of a stage, for all of its epochs.

    The number of batches cut by tokens differs from epoch to epoch, so all epochs are cut once to count the steps (the
    learning rate needs the total) and each one again when it is reached.
    """

    def __init__(self, lengths: np.ndarray, schedule: Schedule, stage: str) -> None:
        self._lengths, self._schedule = lengths, schedule
        self._seed = derive_seed(schedule.seed, stage, "order")
        self._cached: tuple[int, list[np.ndarray]] = (-1, [])
        self._ends: list[int] = []
        total = 0
        for epoch in range(math.ceil(schedule.epochs)):
            steps = math.ceil(len(self._batches(epoch)) / schedule.accumulate)
            share = min(1.0, schedule.epochs - epoch)
            total += max(1, round(share * steps))
            self._ends.append(total)
        self.total = total if schedule.max_steps is None else min(total, schedule.max_steps)
        self.evaluate_every = schedule.evaluate_every or max(
            1, math.ceil(self._ends[0] / min(1.0, schedule.epochs) / 4)
        )

    def _batches(self, epoch: int) -> list[np.ndarray]:
        if self._cached[0] != epoch:
            self._cached = (epoch, make_batches(self._lengths, self._schedule, epoch, self._seed))
        return self._cached[1]

    def epoch(self, step: int) -> int:
        """The epoch (from 0) of step ``step`` (from 0)."""
        return next(epoch for epoch, end in enumerate(self._ends) if step < end)

    def micro_batches(self, step: int) -> list[np.ndarray]:
        """The ``accumulate`` batches of step ``step`` (fewer in the last step of an epoch)."""
        epoch = self.epoch(step)
        first = (step - (self._ends[epoch - 1] if epoch else 0)) * self._schedule.accumulate
        return self._batches(epoch)[first : first + self._schedule.accumulate]

    def is_evaluated(self, step: int) -> bool:
        """Whether the model is evaluated once ``step`` steps are done."""
        return step == self.total or step % self.evaluate_every == 0
