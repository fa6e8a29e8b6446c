"""Answers through the tokenizers of every family: byte-level BPE, whose pieces may be parts of a character, Unigram,
whose pieces hold the space before them, and WordPiece. Oracle: the answers that the logits were made of."""

from __future__ import annotations

import numpy as np
import pytest
from test_family_tokenizers import byte_bpe, unigram
from tokenizers import BertWordPieceTokenizer, normalizers
from tokenizers import Tokenizer as Backend

from bitpress.artifact import SpanSpec
from bitpress.runtime.answers import find_answers
from bitpress.runtime.tokenization import Tokenizer
from bitpress.runtime.windows import NOWHERE, windows

CONTEXT = (
    "  The lovely film,\twas a délight — naïve “café” 这部电影 👩‍👩‍👧 very\u00a0schön; the FILM ½ again and again. "
)
ANSWERS = [
    "The lovely film",
    "délight",
    "“café”",
    "这部电影",
    "👩‍👩‍👧 very",
    "schön; the FILM",
    "½",
    "again and again.",
]


def word_piece() -> Backend:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "again", "and", "was", *"这部电影—“”½.,;"]
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {token: i for i, token in enumerate([*pieces, *letters])}
    return Backend.from_str(BertWordPieceTokenizer(vocab=vocabulary, lowercase=True).to_str())


BACKENDS = {
    "byte-level BPE": byte_bpe,
    "unigram": lambda: unigram(normalizers.NFKC()),
    "wordpiece": word_piece,
}


@pytest.mark.parametrize("max_length", [24, 384])
@pytest.mark.parametrize("kind", BACKENDS)
def test_answers_come_back_with_their_own_characters(kind: str, max_length: int) -> None:
    tokenizer = Tokenizer(BACKENDS[kind]())
    starts = [CONTEXT.index(answer) for answer in ANSWERS]
    places = np.array([(start, start + len(answer)) for start, answer in zip(starts, ANSWERS, strict=True)])
    spans = SpanSpec(doc_stride=2, max_query_length=2)
    contexts = [CONTEXT] * len(ANSWERS)
    read = windows(tokenizer, ["the film"] * len(ANSWERS), contexts, max_length, spans, places)
    held = {window.question for window in read if window.answer != NOWHERE}
    assert all(len(window.ids) <= max_length for window in read)
    if max_length == 384:
        assert held == set(range(len(ANSWERS)))
    assert len(held) >= 4
    logits = []
    for window in read:
        rows = np.zeros((len(window.ids), 2), np.float32)
        if window.answer != NOWHERE:
            rows[window.answer[0], 0] = rows[window.answer[1], 1] = 9
        logits.append(rows)
    found = find_answers(
        np.concatenate(logits),
        np.array([len(window.ids) for window in read]),
        np.array([window.question for window in read]),
        np.concatenate([window.places for window in read]),
        contexts,
        30,
        may_abstain=False,
    )
    for number in held:
        assert (found[number].text, found[number].start) == (ANSWERS[number], starts[number])
