"""Words of raw text. Oracle: BERT's own pre-tokenizer, by the package tokenizers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import BertPreTokenizer

from bitpress.data.words import split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n", []),
        ("Ada Lovelace's U.S. visit", ["Ada", "Lovelace", "'", "s", "U", ".", "S", ".", "visit"]),
        ("snake_case 3.5€ x🎉y", ["snake", "_", "case", "3", ".", "5", "€", "x", "🎉", "y"]),
        ("中文 text", ["中", "文", "text"]),
        ("हिन्दी café cafe\u0301", ["हिन्दी", "café", "cafe\u0301"]),
        ("a\u200bb\u00a0c \u200b \u0001", ["a\u200bb", "c"]),
        ("می\u200cروم", ["می\u200cروم"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in split_words(text)] == words


@given(st.text(st.sampled_from("ab Zé9.,!?-_'\"$+\t\n"), max_size=30))
def test_as_bert_splits(text: str) -> None:
    expected = BertPreTokenizer().pre_tokenize_str(text)
    assert split_words(text) == [place for _, place in expected]
