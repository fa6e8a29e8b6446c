"""Variants of sentences and word vectors. Oracles: tables of candidates, and slow loops."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from bitpress.augment import Sentence, Variation, WordVectors, replaceable, stop_words, variants
from bitpress.errors import DataError

SENTENCE = Sentence(("the", "film", "is", "fun"), {1: ("movie", "plot"), 3: ("dull", "fun", "good")})


def test_only_words_with_candidates_change_and_nothing_comes_twice() -> None:
    found = variants(SENTENCE, Variation(200, 0.5), np.random.default_rng(0))
    possible = {f"the {a} is {b}" for a in ("film", "movie", "plot") for b in ("fun", "dull", "good")}
    assert set(found) == possible - {"the film is fun"}
    assert len(found) == len(set(found))


def test_how_many_and_how_often() -> None:
    rng = np.random.default_rng(1)
    assert variants(SENTENCE, Variation(50, 0.0), rng) == []
    assert variants(SENTENCE, Variation(0, 0.5), rng) == []
    assert len(variants(SENTENCE, Variation(3, 0.9), rng)) <= 3
    words = tuple(f"w{i}" for i in range(2000))
    long = Sentence(words, dict.fromkeys(range(2000), ("x",)))
    (one,) = variants(long, Variation(1, 0.4), rng)
    assert one.split().count("x") == pytest.approx(800, abs=90)
    assert variants(SENTENCE, Variation(9), np.random.default_rng(5)) == variants(
        SENTENCE, Variation(9), np.random.default_rng(5)
    )


def test_what_may_be_replaced(tmp_path: Path) -> None:
    words = ["The", "film", "isn", "'", "t", "2nd", "rate", "фильм", "电影", "."]
    assert replaceable(words, stop_words("english")) == [1, 6, 7, 8]
    assert replaceable(words, stop_words("none")) == [0, 1, 2, 4, 6, 7, 8]
    (tmp_path / "stop.txt").write_text("Film\nфильм\n", encoding="utf-8")
    assert replaceable(words, stop_words(tmp_path / "stop.txt")) == [0, 2, 4, 6, 8]
    with pytest.raises(DataError, match="stop words are 'english', 'none' or a text file"):
        stop_words(tmp_path / "nothing.txt")


def test_values_that_are_not_allowed() -> None:
    with pytest.raises(DataError, match="copies is -1"):
        Variation(-1)
    with pytest.raises(DataError, match=r"probability is 1\.5"):
        Variation(3, 1.5)


def vectors() -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(2)
    return [f"word{i}" for i in range(700)], rng.standard_normal((700, 8)).astype(np.float32)


def test_neighbours_are_the_nearest_by_angle() -> None:
    words, rows = vectors()
    table = WordVectors(words, rows * np.linspace(0.1, 9, 700)[:, None])
    found = table.neighbours([*words, "absent", "WORD3"], 15)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for i in (0, 3, 511, 512, 699):
        order = sorted((j for j in range(700) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
        assert found[i] == tuple(words[j] for j in order[:15])
    assert found[700] == ()
    assert found[701] == found[3]
    assert WordVectors(["one"], np.ones((1, 2))).neighbours(["one"], 5) == [()]


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "npz", "word2vec"])
def test_files_of_vectors(tmp_path: Path, kind: str) -> None:
    words, rows = vectors()
    path = tmp_path / f"vectors.{'txt' if kind == 'word2vec' else kind}"
    if kind == "npz":
        np.savez(path, words=np.array(words), vectors=rows.astype(np.float16))
    else:
        lines = [f"{word} {' '.join(f'{x:.6f}' for x in row)}" for word, row in zip(words, rows, strict=True)]
        text = "\n".join([*(["700 8"] if kind == "word2vec" else []), *lines, lines[0]]) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    table = WordVectors.from_file(path)
    assert table.words == words
    assert table.neighbours(["word5"], 3) == WordVectors(words, rows).neighbours(["word5"], 3)
    assert WordVectors.from_file(path, most=10).words == words[:10]


def test_files_of_other_forms(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text("good 1 2 3\nbad 1 2\n")
    with pytest.raises(DataError, match=r"v\.txt:2: found 'bad 1 2'; a word and 3 numbers"):
        WordVectors.from_file(path)
    path.write_text("good 1 x 3\n")
    with pytest.raises(DataError, match=r"v\.txt:1: found"):
        WordVectors.from_file(path)
    path.write_text("")
    with pytest.raises(DataError, match="has no vectors"):
        WordVectors.from_file(path)
    np.savez(tmp_path / "v.npz", words=np.array(["a"]))
    with pytest.raises(DataError, match="expected arrays 'words' and 'vectors'"):
        WordVectors.from_file(tmp_path / "v.npz")
    with pytest.raises(DataError, match="no such file"):
        WordVectors.from_file(tmp_path / "none.txt")
