"""The bundled sentiment set. Oracle: the promises that its README makes, and the source distribution's ratings."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import pytest

from bitpress.data import bundled, get_task, read_dataset

FOLDER = bundled.sentiment()[0].parent


def rows(path: Path) -> list[list[str]]:
    lines = gzip.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n")
    assert lines[0] == "sentence\tlabel\tdomain"
    return [line.split("\t") for line in lines[1:]]


def key(sentence: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", sentence.casefold()))


def test_reads_as_a_plain_classification_file() -> None:
    for path, size in zip(bundled.sentiment(), (7773, 1265), strict=True):
        data = read_dataset(path, get_task("classification"))
        assert len(data) == size
        assert data.label_names == list(bundled.SENTIMENT_LABELS)
        assert data.texts == [sentence for sentence, _, _ in rows(path)]
        assert data.labels is not None
        assert 0.5 < data.labels.mean() < 0.6
        assert f"{size:,}" in (FOLDER / "README.md").read_text()


def test_no_text_occurs_twice_within_or_across_the_split() -> None:
    keys = [key(sentence) for path in bundled.sentiment() for sentence, _, _ in rows(path)]
    assert "" not in keys
    assert len(set(keys)) == len(keys)


def test_domains_and_size() -> None:
    for path in bundled.sentiment():
        assert {domain for _, _, domain in rows(path)} == {"amazon", "tweets", "nyt"}
        assert path.read_bytes()[4:8] == b"\0\0\0\0", "a time stamp would make the file irreproducible"
    assert sum(path.stat().st_size for path in bundled.sentiment()) < 700_000
    assert "MIT" in (FOLDER / "LICENSE").read_text()


def test_every_row_is_a_rating_and_none_is_a_movie_review() -> None:
    root = Path(os.environ.get("BITPRESS_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    ratings = root / "vader" / "all_scores.tsv"
    if not ratings.is_file():
        pytest.skip(f"{ratings} is absent; set BITPRESS_DATA")
    source = [line.split("\t") for line in ratings.read_text(encoding="utf-8").removesuffix("\n").split("\n")[1:]]
    scores: dict[tuple[str, str], set[float]] = {}
    for domain, score, sentence in source:
        scores.setdefault((domain, sentence), set()).add(float(score))
    movies = {key(sentence) for domain, _, sentence in source if domain == "movie"}
    for path in bundled.sentiment():
        for sentence, label, domain in rows(path):
            assert any(abs(s) >= 0.5 and (s > 0) == (label == "positive") for s in scores[domain, sentence])
            assert key(sentence) not in movies
    sst2 = root / "SST-2" / "dev.tsv"
    if sst2.is_file():
        dev = {key(text) for text in read_dataset(sst2, get_task("glue/sst2")).texts}
        assert not dev & {key(sentence) for path in bundled.sentiment() for sentence, _, _ in rows(path)}
