"""Texts to predict. Oracle: the literal lines that were written."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from pathlib import Path

import pytest

from bitpress.data import iter_texts
from bitpress.errors import DataError


def test_plain_text_yields_every_line_also_empty_ones(tmp_path: Path) -> None:
    content = "\ufefffirst, with comma\r\n\nthird\tline\u2028still third\nlast".encode()
    expected = ["first, with comma", "", "third\tline\u2028still third", "last"]
    for name, data in (("a.txt", content), ("a.txt.gz", gzip.compress(content)), ("no_suffix", content)):
        (tmp_path / name).write_bytes(data)
        assert list(iter_texts(tmp_path / name)) == expected
    assert list(iter_texts(io.BytesIO(content))) == expected
    assert list(iter_texts(io.BytesIO(b""))) == []


def test_lines_are_yielded_as_they_arrive() -> None:
    class Endless(io.RawIOBase):
        def __next__(self) -> bytes:
            return b"again\n"

    texts = iter_texts(Endless())  # type: ignore[arg-type]
    assert [next(texts) for _ in range(3)] == ["again"] * 3


def test_standard_input() -> None:
    code = "from bitpress.data import iter_texts; print(list(iter_texts('-')))"
    result = subprocess.run([sys.executable, "-c", code], input="a\nb é\n".encode(), capture_output=True, check=True)
    assert result.stdout.decode().strip() == "['a', 'b é']"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("d.csv", 'label,text\n1,"a, b"\n', ["a, b"]),
        ("d.tsv", 'sentence\n"a" b\nc\n', ['"a" b', "c"]),
        ("d.tsv", "question1\tquestion2\na\tb\n", [("a", "b")]),
        ("d.jsonl", '{"text": "a"}\n{"text": ""}\n', ["a", ""]),
        ("d.tsv", 'index\t#1 String\t#2 String\n0\ta\t" b\n', [("a", '" b')]),
    ],
)
def test_tables(tmp_path: Path, name: str, content: str, expected: list[object]) -> None:
    (tmp_path / name).write_text(content)
    assert list(iter_texts(tmp_path / name)) == expected


def test_columns_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("text,a,b\nt,x,y\n")
    assert list(iter_texts(path, text_column="a")) == ["x"]
    assert list(iter_texts(path, text_column="a", pair_column="b")) == [("x", "y")]
    assert list(iter_texts(path, pair_column="b")) == [("t", "y")]


@pytest.mark.parametrize(
    ("name", "content", "where", "message"),
    [
        ("a.txt", b"fine\ncaf\xe9\n", ":2", "not UTF-8"),
        ("a.txt", b"nul\0\n", ":1", "NUL"),
        ("a.txt.gz", gzip.compress(b"text")[:-4], "", "cannot be read"),
        ("d.csv", b"foo,bar\na,b\n", ":1", "--text-column"),
    ],
    # Content is no name: gzip's holds the time, and every process must collect the same tests.
    ids=["not-utf8", "nul", "cut-gzip", "no-text-column"],
)
def test_bad_input_names_file_and_line(tmp_path: Path, name: str, content: bytes, where: str, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(iter_texts(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}{where}")
    assert message in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        list(iter_texts(tmp_path / "absent.txt"))
