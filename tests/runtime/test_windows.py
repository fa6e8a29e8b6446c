"""Questions and windows of their contexts. Oracles: tokens and places by hand, and `transformers`' own windows, whose
stride says how much two of them share."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

from bitpress.artifact import SpanSpec
from bitpress.runtime.tokenization import Tokenizer
from bitpress.runtime.windows import NOWHERE, Window, windows

CLS, SEP = 0, 1
WORDS = ["[CLS]", "[SEP]", "[UNK]", "who", "where", "ada", "london", "in", ",", "x", "y"]


def tokenizer(pair: str = "[CLS] $A [SEP] $B:1 [SEP]:1") -> Tokenizer:
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return Tokenizer(backend)


def read(question: str, context: str, length: int, answer: tuple[int, int] | None = None, **spans: Any) -> list[Window]:
    answers = None if answer is None else np.array([answer])
    return windows(tokenizer(), [question], [context], length, SpanSpec(**spans), answers)


def test_a_context_that_fits_is_one_window() -> None:
    (window,) = read("Who", "Ada, in  London", 20, answer=(9, 15))
    assert [WORDS[i] for i in window.ids] == ["[CLS]", "who", "[SEP]", "ada", ",", "in", "london", "[SEP]"]
    assert window.type_ids == [0, 0, 0, 1, 1, 1, 1, 1]
    assert window.places.tolist() == [*[[-1, -1]] * 3, [0, 3], [3, 4], [5, 7], [9, 15], [-1, -1]]
    assert window.answer == (6, 6)
    assert not window.is_cut


def test_a_long_context_is_read_in_overlapping_windows() -> None:
    context = "x y x y x y ada y x y x y"
    found = read("who", context, 4 + 6, answer=(12, 15), doc_stride=3)
    assert [window.places[3:-1, 0].tolist() for window in found] == [
        [0, 2, 4, 6, 8, 10],
        [6, 8, 10, 12, 16, 18],
        [12, 16, 18, 20, 22, 24],
    ]
    assert [window.answer for window in found] == [NOWHERE, (6, 6), (3, 3)]
    assert all(window.ids[:3] == [0, 3, 1] and window.ids[-1] == SEP for window in found)
    assert [window.type_ids for window in found] == [[0, 0, 0, *[1] * 7]] * 3


def test_a_stride_is_at_most_half_a_window() -> None:
    found = read("who", "x " * 12, 4 + 6, doc_stride=128)
    assert [len(window.ids) for window in found] == [10, 10, 10]
    assert [int(window.places[3, 0]) for window in found] == [0, 6, 12]


@pytest.mark.parametrize(("length", "limit", "kept"), [(20, 3, 3), (20, 64, 8), (9, 64, 3), (40, 64, 12)])
def test_long_questions_are_cut_and_said_to_be(length: int, limit: int, kept: int) -> None:
    found = read("who " * 12, "ada in london", length, max_query_length=limit)
    assert found[0].is_cut == (kept < 12)
    assert all(window.ids.count(3) == kept for window in found)
    assert {int(place) for window in found for place in window.places[:, 0]} == {-1, 0, 4, 7}


def test_an_answer_is_held_whole_or_not_at_all() -> None:
    context = "x y ada in london x y"
    for window in read("who", context, 8, answer=(4, 17), doc_stride=1):
        texts = [context[start:end] for start, end in window.places if start >= 0]
        first, last = window.answer
        if {"ada", "in", "london"} <= set(texts):
            assert (context[slice(*window.places[first])], context[slice(*window.places[last])]) == ("ada", "london")
        else:
            assert window.answer == NOWHERE
    assert [w.answer for w in read("who", "ada in", 20, answer=(1, 2))] == [(3, 3)]  # a part of a word is the word
    assert [w.answer for w in read("who", "ada in", 20, answer=(3, 4))] == [NOWHERE]  # only a space
    assert [w.answer for w in read("who", "ada in", 20, answer=(-1, -1))] == [NOWHERE]


def test_numbers_and_empty_contexts() -> None:
    found = windows(tokenizer(), ["who", "where"], ["", "x " * 9], 8, SpanSpec(), first=5)
    assert [window.question for window in found] == [5, 6, 6, 6, 6]
    assert found[0].ids == [CLS, 3, SEP, SEP]
    assert windows(tokenizer(), [], [], 8, SpanSpec()) == []


def test_a_length_without_room() -> None:
    with pytest.raises(ValueError, match="max_length 4 leaves no room for question and context beside special tokens"):
        read("who", "ada", 4)
    assert len(read("who", "ada", 5)) == 1


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 30), st.integers(0, 40), st.integers(5, 30), st.integers(1, 12), st.integers(1, 12))
def test_every_token_of_the_context_is_read(asked: int, given_: int, length: int, stride: int, limit: int) -> None:
    question, context = " ".join(["who"] * asked), " ".join("xy"[i % 2] for i in range(given_))
    found = read(question, context, length, doc_stride=stride, max_query_length=limit)
    starts = [place[:, 0][place[:, 0] >= 0].tolist() for place in (window.places for window in found)]
    assert sorted({start for window in starts for start in window}) == list(range(0, 2 * given_, 2))
    assert all(len(window.ids) <= length for window in found)
    assert all(later[0] > earlier[0] and later[-1] > earlier[-1] for earlier, later in pairwise(starts))
    assert all(window == list(range(window[0], window[-1] + 1, 2)) for window in starts if window)


@pytest.mark.parametrize(
    "pair", ["[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS] $A [SEP] [SEP] $B [SEP]"], ids=["bert", "roberta"]
)
def test_against_transformers(pair: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = tokenizer(pair)
    (tmp_path / "tokenizer.json").write_text(ours._backend.to_str())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    question, context = "who , where", "Ada in London, x y Ada x in y London ,y x"
    length, shared = 14, 4
    size = length - 3 - (3 if pair.count("[SEP]") == 2 else 4)
    expected = theirs(
        question,
        context,
        max_length=length,
        truncation="only_second",
        stride=shared,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    found = windows(ours, [question], [context], length, SpanSpec(doc_stride=size - shared))
    assert [window.ids for window in found] == expected["input_ids"]
    # Without ":1" the later windows get types of their own from `tokenizers`; the first one has the template's.
    types = expected["token_type_ids"] if ":1" in pair else [expected["token_type_ids"][0]] * len(found)
    assert [window.type_ids for window in found] == [row[: len(w.ids)] for row, w in zip(types, found, strict=True)]
    for number, window in enumerate(found):
        offsets = [
            list(place) if kind == 1 else [-1, -1]
            for place, kind in zip(expected["offset_mapping"][number], expected.sequence_ids(number), strict=True)
        ]
        assert window.places.tolist() == offsets
