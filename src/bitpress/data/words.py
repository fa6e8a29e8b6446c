"""The words of a text: what entities are made of where nobody says what the words are."""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import groupby

# Ideographs stand without spaces between words, so each is a word; the blocks are those of BERT's tokenizer.
_IDEOGRAPHS = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


def split_words(text: str) -> list[tuple[int, int]]:
    """[start, end) in characters of every word: a run of letters, marks and digits, or one punctuation mark, symbol or
    ideograph, as BERT's tokenizer splits before its pieces (Devlin et al. 2018). What shows nothing, such as the
    joiners of Hindi and Persian, may stand in a word but is none alone."""
    words: list[tuple[int, int]] = []
    position = 0
    for kind, characters in groupby(text, _kind):
        run = "".join(characters)
        if kind == "run" and not all(map(_is_invisible, run)):
            words.append((position, position + len(run)))
        elif kind == "single":
            words += [(i, i + 1) for i in range(position, position + len(run))]
        position += len(run)
    return words


@cache
def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] in "PS" or any(low <= ord(character) <= high for low, high in _IDEOGRAPHS):
        return "single"
    return "space" if category[0] == "Z" or character.isspace() else "run"


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character)[0] == "C"
