"""Files of tagged words and marked entities. Oracle: what docs/ner.md says each form means."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bitpress.data import Dataset, get_task, read_dataset
from bitpress.errors import DataError

NER = get_task("ner")


def read(path: Path, content: str, **options: Any) -> Dataset:
    path.write_text(content)
    return read_dataset(path, NER, **options)


def tags(data: Dataset) -> list[list[str]]:
    assert data.labels is not None
    names = iter(data.label_names[i] for i in data.labels)
    return [[next(names) for _ in range(count)] for count in data.word_counts]


def words(data: Dataset) -> list[list[str]]:
    assert data.words is not None
    return [[text[start:end] for start, end in places] for text, places in zip(data.texts, data.words, strict=True)]


def test_columns(tmp_path: Path) -> None:
    data = read(tmp_path / "d.conll", "Ada B-per\nLovelace I-per\n\n\nin O\nLondon B-loc\n")
    assert data.texts == ["Ada Lovelace", "in London"]
    assert words(data) == [["Ada", "Lovelace"], ["in", "London"]]
    assert data.label_names == ["O", "B-loc", "I-loc", "B-per", "I-per"]
    assert tags(data) == [["B-per", "I-per"], ["O", "B-loc"]]
    assert data.pairs is None
    assert len(data) == 2


def test_conll_2003_with_documents_four_columns_and_iob1(tmp_path: Path) -> None:
    content = (
        "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP I-MISC\nU.S. NNP I-NP B-MISC\n"
    )
    data = read(tmp_path / "eng.train", content)
    assert tags(data) == [["B-ORG", "O", "B-MISC", "B-MISC"]]
    assert words(data) == [["EU", "rejects", "German", "U.S."]]
    data = read(tmp_path / "eng.train", content, label_column="3")
    assert data.label_names == ["O", "B-NP", "I-NP", "B-VP", "I-VP"]
    assert tags(data) == [["B-NP", "B-VP", "B-NP", "I-NP"]]


def test_bioes_tabs_comments_and_spaces_in_words(tmp_path: Path) -> None:
    content = (
        "# id 17\n#\tO\nNew York\tS-loc\n\n# a comment\n# and another\nAda\tB-per\nKing\tI-per\nNoel\tE-per\n#\tO\n"
    )
    data = read(tmp_path / "d.txt", content)
    assert words(data) == [["#", "New York"], ["Ada", "King", "Noel", "#"]]
    assert tags(data) == [["O", "B-loc"], ["B-per", "I-per", "I-per", "O"]]


def test_windows_lines_and_gzip(tmp_path: Path) -> None:
    path = tmp_path / "d.conll.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfAda B-per\r\n\r\nLondon B-loc\r\n"))
    data = read_dataset(path, NER)
    assert words(data) == [["Ada"], ["London"]]


def test_words_of_another_column(tmp_path: Path) -> None:
    data = read(tmp_path / "d.conllu", "1\tAda\tB-per\n2\tlived\tO\n", text_column="2")
    assert words(data) == [["Ada", "lived"]]


def test_jsonl_of_words(tmp_path: Path) -> None:
    rows = [{"tokens": ["Ada", "lived"], "tags": ["I-per", "O"], "id": 1}, {"tokens": ["x"], "tags": ["O"], "id": 2}]
    data = read(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))
    assert words(data) == [["Ada", "lived"], ["x"]]
    assert tags(data) == [["B-per", "O"], ["O"]]
    renamed = [{"pieces": ["Ada"], "gold": ["B-per"]}]
    data = read(tmp_path / "d.jsonl", json.dumps(renamed[0]), text_column="pieces", label_column="gold")
    assert tags(data) == [["B-per"]]


def test_jsonl_of_characters(tmp_path: Path) -> None:
    text = "In London, Ada Lovelace' 中国 trip."
    marks = [
        {"start": 11, "end": 23, "label": "per"},
        {"start": 3, "end": 9, "label": "loc", "note": "any other key"},
        {"start": 24, "end": 28, "label": "loc"},  # with the spaces around it
    ]
    data = read(tmp_path / "d.jsonl", json.dumps({"text": text, "entities": marks}))
    assert words(data) == [["In", "London", ",", "Ada", "Lovelace", "'", "中", "国", "trip", "."]]
    assert tags(data) == [["O", "B-loc", "O", "B-per", "I-per", "O", "B-loc", "I-loc", "O", "O"]]
    assert data.texts == [text]


def test_a_models_tags_decide(tmp_path: Path) -> None:
    names = ["I-per", "B-per", "O"]
    data = read(tmp_path / "d.conll", "Ada B-per\nlived O\n", label_names=names)
    assert data.label_names == names
    assert data.labels is not None
    assert data.labels.tolist() == [1, 2]
    with pytest.raises(DataError, match=r"d.conll:2 \(column '2'\): unknown entity 'loc'; allowed: 'per'"):
        read(tmp_path / "d.conll", "Ada B-per\nLondon B-loc\n", label_names=names)


COLUMNS: dict[str, tuple[str, str]] = {
    "one column": ("Ada\n", r"d.conll:1: found one column, 'Ada'; expected a word and its tag"),
    "a row too short": ("a x O\nb O\n", r"d.conll:2: malformed row: found 2 columns, line 1 has 3; one word a line"),
    "a row that only looks like a comment": ("a O\n#b\n", r"d.conll:2: malformed row: found 1 columns"),
    "a space in a word": ("Ada O\nNew York B-loc\n", r"d.conll:2: malformed row: found 3 columns, line 1 has 2"),
    "no tag": ("Ada PER\n", r"d.conll:1 \(column '2'\): 'PER' is no tag; allowed: O, or one of B-, I-, E-, S-"),
    "an empty word": ("a\tO\n\tO\n", r"d.conll:2 \(column '1'\): the word is empty"),
    "comments alone": ("# nothing\n", r"d.conll:1: found no line with a word and its tag"),
    "an empty file": ("", r"d.conll:1: the file is empty"),
    "no entity": ("a O\n", r"d.conll: found no entity in 1 sentences, so there is nothing to learn; is the column"),
    "a broken IOB2": ("a B-x\nb O\nc I-x\n", r"d.conll:3 \(column '2'\): found tag 'I-x' behind 'O': in IOB2"),
    "a broken BIOES": ("a B-x\nb O\nc S-x\n", r"d.conll:1 \(column '2'\): found tag 'B-x', and behind it nothing"),
    "a NUL": ("a\0b O\n", r"d.conll:1 \(column '1'\): found a NUL character"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_that_are_refused(case: str, tmp_path: Path) -> None:
    content, message = COLUMNS[case]
    with pytest.raises(DataError, match=message):
        read(tmp_path / "d.conll", content)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    content = "Ada B-per\n"
    for option, value in (("text_column", "3"), ("label_column", "tag"), ("label_column", "0")):
        name = "--" + option.replace("_", "-")
        with pytest.raises(DataError, match=f"{name} is '{value}'; the columns of this file are numbered from 1 to 2"):
            read(tmp_path / "d.conll", content, **{option: value})
    with pytest.raises(DataError, match="one column cannot be both word and tag"):
        read(tmp_path / "d.conll", content, text_column="2")
    with pytest.raises(DataError, match="--pair-column is '2'; words are tagged in one text, leave it out"):
        read(tmp_path / "d.conll", content, pair_column="2")
    with pytest.raises(DataError, match="csv cannot hold tagged words; allowed: jsonl, or CoNLL columns"):
        read(tmp_path / "d.csv", content)


def marked(*entities: Any, text: str = "Ada Lovelace") -> str:
    return json.dumps({"text": text, "entities": list(entities)})


def entity(start: Any, end: Any, label: Any = "per") -> dict[str, Any]:
    return {"start": start, "end": end, "label": label}


JSONL: dict[str, tuple[str, str]] = {
    "no words": ('{"a": 1}', r"d.jsonl:1: no key with the words or the text was found among 'a'; call it 'tokens'"),
    "no tags": ('{"tokens": ["a"]}', r"no key with the tags was found among 'tokens'; call it 'tags', or name it with"),
    "no entities": ('{"text": "a"}', r"no key with the entities was found among 'text'; call it 'entities'"),
    "fewer tags": (
        '{"tokens": ["a", "b"], "tags": ["O"]}',
        r"\(column 'tags'\): found 2 words and 1 tags; expected as",
    ),
    "numbers": ('{"tokens": ["a"], "tags": [3]}', r"\(column 'tags'\): expected a list of tags, each a string"),
    "an empty word": ('{"tokens": [" "], "tags": ["O"]}', "no empty word"),
    "no tag": ('{"tokens": ["a"], "tags": ["x"]}', r"d.jsonl:1 \(column 'tags'\): 'x' is no tag"),
    "an empty text": (marked(text=" "), r"\(column 'text'\): expected text with a word in it, found ' '"),
    "an entity of another form": (
        marked([0, 3, "per"]),
        r"expected {\"start\": …, \"end\": …, \"label\": …} with char",
    ),
    "a boolean": (marked(entity(False, 3)), "expected {"),
    "behind the end": (
        marked(entity(4, 13)),
        r"entity 'per' is at 4 to 13; the text has 12 characters, counted from 0",
    ),
    "no word in it": (marked(entity(3, 4)), r"entity 'per' at 3 to 4 holds no word, only ' '"),
    "half a word": (marked(entity(0, 6)), r"at 0 to 6, 'Ada Lo', cuts the word 'Lovelace' at 4 to 12; let it begin"),
    "overlap": (
        marked(entity(0, 12), entity(4, 12, "x")),
        r"the entities 'per' and 'x' share a word; keep one of them",
    ),
}


@pytest.mark.parametrize("case", JSONL)
def test_jsonl_that_is_refused(case: str, tmp_path: Path) -> None:
    content, message = JSONL[case]
    with pytest.raises(DataError, match=message):
        read(tmp_path / "d.jsonl", content + "\n")
