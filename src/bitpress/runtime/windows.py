"""A question and its context as the encoder reads them: the whole question, and where the context is too long for one
text, overlapping windows of it (Devlin et al. 2018, run_squad.py). Training and inference share this module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitpress.artifact.schema import SpanSpec
from bitpress.runtime.tokenization import Tokenizer

Ints = NDArray[np.int32]

_QUESTION, _CONTEXT, _SPECIAL = 0, 1, -1
NOWHERE = (0, 0)  # first and last token of an answer that a window does not hold: the first one, [CLS]


@dataclass(frozen=True, slots=True)
class Window:
    """One window: T tokens without padding.

    ids, type_ids  [T]
    places         int32 [T, 2]: of a token of the context its [start, end) there in characters, -1 of every other
    question       number of the question
    is_cut         the end of the question was not read
    answer         first and last token of the answer, NOWHERE where the window does not hold all of it
    """

    ids: list[int]
    type_ids: list[int]
    places: Ints
    question: int
    is_cut: bool
    answer: tuple[int, int] = NOWHERE


def windows(
    tokenizer: Tokenizer,
    questions: Sequence[str],
    contexts: Sequence[str],
    max_length: int,
    spans: SpanSpec,
    answers: NDArray[np.int64] | None = None,
    first: int = 0,
) -> list[Window]:
    """The windows of every question, in order, at least one each, numbered from ``first`` on.

    A question keeps ``spans.max_query_length`` tokens, or half of what special tokens leave of ``max_length`` if that
    is less. A window of the context starts ``spans.doc_stride`` tokens after the one before it, or half a window if
    that is less, so that neighbours overlap.

    Args:
        answers: [start, end) of each answer in its context, in characters, int64 [N, 2], negative where there is none.

    Raises:
        ValueError: as :meth:`Tokenizer.encode`.
    """
    found = []
    for number, encoding in enumerate(tokenizer.encode_whole(questions, contexts)):
        answer = None if answers is None or answers[number, 0] < 0 else answers[number]
        found += _windows(encoding, max_length, spans, answer, first + number)
    return found


def _windows(
    encoding: Any, max_length: int, spans: SpanSpec, answer: NDArray[np.int64] | None, number: int
) -> list[Window]:
    kinds = np.array([_SPECIAL if kind is None else kind for kind in encoding.sequence_ids], np.int32)
    ids, types = np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.int32)
    places = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    places[kinds != _CONTEXT] = -1
    asked, context = np.flatnonzero(kinds == _QUESTION), np.flatnonzero(kinds == _CONTEXT)
    room = max_length - int((kinds == _SPECIAL).sum())
    if room < 2:
        raise ValueError(f"max_length {max_length} leaves no room for question and context beside special tokens")
    kept = min(len(asked), spans.max_query_length, room // 2)
    size = room - kept
    stride = min(spans.doc_stride, max(1, size // 2))
    always = np.concatenate([np.flatnonzero(kinds == _SPECIAL), asked[:kept]])
    found = []
    for start in range(0, max(1, len(context) - size + stride), stride):
        rows = np.sort(np.concatenate([always, context[start : start + size]]))
        held = NOWHERE if answer is None else _held(places, rows, context, answer)
        found.append(Window(ids[rows].tolist(), types[rows].tolist(), places[rows], number, kept < len(asked), held))
    return found


def _held(
    places: Ints, rows: NDArray[np.int64], context: NDArray[np.int64], answer: NDArray[np.int64]
) -> tuple[int, int]:
    """Where in the window ``rows`` the answer's tokens are: those of the context that share a character with it."""
    start, end = answer
    shares = context[(places[context, 0] < end) & (places[context, 1] > start)]
    if not len(shares):
        return NOWHERE
    first, last = np.searchsorted(rows, shares[[0, -1]])
    if last == len(rows) or rows[first] != shares[0] or rows[last] != shares[-1]:
        return NOWHERE
    return int(first), int(last)


@dataclass(frozen=True)
class WindowTable:
    """What belongs to the N windows of a dataset beside their tokens.

    questions  int64 [N]: the question that each is of, ascending
    places     int32 [sum of lengths, 2]: as :attr:`Window.places`, one window after another
    cut        questions whose end was not read
    unheld     questions whose answer no window holds: it is longer than they overlap, or the tokenizer drops all of it
    spans      how they were made, and what answers are looked for in them
    """

    questions: NDArray[np.int64]
    places: Ints
    spans: SpanSpec
    cut: int = 0
    unheld: int = 0
