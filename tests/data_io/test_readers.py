"""Reading labelled files. Oracles: the literal rows that were written, csv.writer for quoting."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitpress.data import Dataset, get_task, read_dataset
from bitpress.errors import DataError

CLASSIFICATION = get_task("classification")
REGRESSION = get_task("regression")
ROWS = [("a film that lingers", "pos"), ('he said "no"', "neg"), ("comma, and 'quote", "pos")]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def as_csv(rows: list[tuple[str, ...]], delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


def render(kind: str, rows: list[tuple[str, str]]) -> str:
    if kind == "csv":
        return as_csv([("text", "label"), *rows])
    if kind == "tsv":
        return "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


def test_originals_of_an_augmented_file(tmp_path: Path) -> None:
    lines = [
        {"text": "a b", "label": i % 2, "source_row": i, "variant": variant} for i in range(2) for variant in range(3)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    originals = read_dataset(write(tmp_path, "d.jsonl", content), CLASSIFICATION).originals
    assert originals is not None
    assert originals.tolist() == [True, False, False] * 2
    without = content.replace('"source_row"', '"row"')
    assert read_dataset(write(tmp_path, "e.jsonl", without), CLASSIFICATION).originals is None


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_formats_hold_the_same_rows(tmp_path: Path, kind: str, packed: str, line_end: str, mark: str) -> None:
    content = mark + render(kind, ROWS).replace("\r\n", "\n").replace("\n", line_end)
    data = read_dataset(write(tmp_path, f"d.{kind}{packed}", content), CLASSIFICATION)
    assert data.texts == [text for text, _ in ROWS]
    assert data.pairs is None
    assert data.label_names == ["neg", "pos"]
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [1, 0, 1]
    assert data.fingerprint == hashlib.sha256(content.encode()).hexdigest()


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r")).filter(lambda t: t.strip()),
            st.sampled_from(["a", "b"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_csv_round_trip_of_any_text(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = write(tmp_path_factory.mktemp("csv"), "d.csv", as_csv([("text", "label"), *rows]))
    data = read_dataset(path, CLASSIFICATION, label_names=["a", "b"])
    assert data.texts == [text for text, _ in rows]


def test_tsv_texts_keep_odd_line_separators_and_quotes(tmp_path: Path) -> None:
    texts = ['" opens a quote', "line\u2028separator", "next\x85line \x0c feed", 'ends "so"', '"whole"']
    path = write(tmp_path, "d.tsv", "text\tlabel\n" + "".join(f"{t}\t{i % 2}\n" for i, t in enumerate(texts)))
    assert read_dataset(path, CLASSIFICATION).texts == texts


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tsv_that_a_csv_writer_quoted_is_unquoted(tmp_path: Path, quoting: int) -> None:
    texts = ['he said "no"', "tab\tinside", "two\nlines", "plain"]
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([("text", "label"), *((text, i % 2) for i, text in enumerate(texts))])
    assert read_dataset(write(tmp_path, "d.tsv", out.getvalue()), CLASSIFICATION).texts == texts


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "2"], ["2", "9", "10"]),
        (["b", "a", "10"], ["10", "a", "b"]),
        (["-1", "1", "0"], ["-1", "0", "1"]),
    ],
)
def test_label_names_are_sorted_as_numbers_or_as_text(tmp_path: Path, labels: list[str], names: list[str]) -> None:
    data = read_dataset(
        write(tmp_path, "d.csv", as_csv([("text", "label"), *(("x", v) for v in labels)])), CLASSIFICATION
    )
    assert data.label_names == names
    assert data.labels is not None
    assert [names[i] for i in data.labels] == labels


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["negative", "positive"], ["0", "1"], [0, 1]),  # indices, as in GLUE
        (["negative", "positive"], ["POSITIVE", "Negative"], [1, 0]),
        (["LABEL_0", "LABEL_1"], ["1", "0"], [1, 0]),
        (["1", "0"], ["1", "0"], [0, 1]),  # names win over indices
        (["b", "a"], ["a", "b"], [1, 0]),  # a model's order is kept
    ],
)
def test_labels_follow_the_models_names(
    tmp_path: Path, names: list[str], labels: list[str], expected: list[int]
) -> None:
    path = write(tmp_path, "d.csv", as_csv([("text", "label"), *(("x", label) for label in labels)]))
    data = read_dataset(path, CLASSIFICATION, label_names=names)
    assert data.labels is not None
    assert data.labels.tolist() == expected
    assert data.label_names == names


def test_task_names_serve_a_model_whose_labels_are_only_numbered(tmp_path: Path) -> None:
    path = write(tmp_path, "d.tsv", "sentence1\tsentence2\tlabel\na\tb\tnot_entailment\nc\td\tentailment\n")
    data = read_dataset(path, get_task("glue/rte"), label_names=["LABEL_0", "LABEL_1"])
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]


def test_json_labels_may_be_numbers_or_booleans(tmp_path: Path) -> None:
    lines = [{"text": "a", "label": 1}, {"text": "b", "label": 0.0}, {"label": 1, "text": "c", "extra": None}]
    path = write(tmp_path, "d.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert read_dataset(path, CLASSIFICATION).label_names == ["0", "1"]
    path = write(tmp_path, "b.jsonl", '{"text": "a", "label": true}\n{"text": "b", "label": false}\n')
    assert read_dataset(path, CLASSIFICATION).label_names == ["false", "true"]


@pytest.mark.parametrize(
    ("header", "text", "pair", "label"),
    [
        (("id", "review", "class"), "review", None, "class"),
        (("Label", "Text"), "Text", None, "Label"),
        (("premise", "hypothesis", "label"), "premise", "hypothesis", "label"),
        (("question", "sentence", "label"), "question", "sentence", "label"),
        (("sentence2", "sentence1", "score"), "sentence1", "sentence2", "score"),
        (("title", "text", "category"), "text", None, "category"),
    ],
)
def test_columns_are_found_by_common_names(
    tmp_path: Path, header: tuple[str, ...], text: str, pair: str | None, label: str
) -> None:
    rows = [tuple(f"{name} {i}" for name in header) for i in range(2)]
    data = read_dataset(write(tmp_path, "d.csv", as_csv([header, *rows])), CLASSIFICATION)
    assert data.texts == [f"{text} 0", f"{text} 1"]
    assert data.pairs == (None if pair is None else [f"{pair} 0", f"{pair} 1"])
    assert data.label_names == [f"{label} 0", f"{label} 1"]


def test_columns_as_asked_win(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", "text,a,b,label,kind\nt,a1,b1,0,x\nt,a2,b2,0,y\n")
    data = read_dataset(path, CLASSIFICATION, text_column="a", pair_column="b", label_column="kind")
    assert (data.texts, data.pairs, data.label_names) == (["a1", "a2"], ["b1", "b2"], ["x", "y"])
    assert read_dataset(path, CLASSIFICATION, pair_column="b", label_column="kind").texts == ["t", "t"]


def test_labels_that_are_not_required_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", "text,label\na,-1\nb,-1\n")
    data = read_dataset(path, CLASSIFICATION, label_names=["x", "y"], require_labels=False)
    assert data == Dataset(["a", "b"], None, None, ["x", "y"], str(path), data.fingerprint)


def test_regression_targets_are_float32(tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path, "d.csv", "text,score\na,1.5\nb,-2e-3\n"), REGRESSION)
    assert data.labels is not None
    assert data.labels.dtype == np.float32
    np.testing.assert_array_equal(data.labels, np.array([1.5, -2e-3], np.float32))
    assert data.label_names == []


MRPC = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe said "yes\t" So she said .\n0\t7\t9\ta\tb\n'
STSB = "\t".join(["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"])


@pytest.mark.parametrize(
    ("task", "content", "texts", "pairs", "labels"),
    [
        ("sst2", "sentence\tlabel\na b \t1\nc\t0\n", ["a b ", "c"], None, [1, 0]),
        ("cola", 'gj04\t1\t\tGood .\ngj04\t0\t*\tBad "so .\n', ["Good .", 'Bad "so .'], None, [1, 0]),
        ("mrpc", MRPC, ['He said "yes', "a"], ['" So she said .', "b"], [1, 0]),
        (
            "rte",
            "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\tc\td\tnot_entailment\n",
            "ac",
            "bd",
            [0, 1],
        ),
        ("stsb", f"{STSB}\tscore\n0\tg\tf\t2012\t1\tn\tn\ta\tb\t4.750\n", ["a"], ["b"], [4.75]),
        ("stsb", "g\tf\t2012\t1\t2.5\ta\tb\ng\tf\t2012\t1\t5\tc\td\tnone\tnone\n", "ac", "bd", [2.5, 5.0]),
    ],
)
def test_glue_layouts(
    tmp_path: Path, task: str, content: str, texts: list[str], pairs: list[str] | None, labels: list[float]
) -> None:
    data = read_dataset(write(tmp_path, "d.tsv", content), get_task(f"glue/{task}"))
    assert data.texts == list(texts)
    assert data.pairs == (None if pairs is None else list(pairs))
    assert data.labels is not None
    assert data.labels.tolist() == labels


@pytest.mark.parametrize("task", ["sst2", "cola"])
def test_glue_test_layout_has_a_header_and_no_labels(tmp_path: Path, task: str) -> None:
    path = write(tmp_path, "test.tsv", "index\tsentence\n0\tuneasy mishmash .\n")
    data = read_dataset(path, get_task(f"glue/{task}"), require_labels=False)
    assert (data.texts, data.labels) == (["uneasy mishmash ."], None)
    with pytest.raises(DataError, match=r"test\.tsv:1 \(column 'label'\): no column with the label"):
        read_dataset(path, get_task(f"glue/{task}"))


def test_glue_task_reads_the_layout_of_hugging_face_exports(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", '{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}\n')
    data = read_dataset(path, get_task("glue/mrpc"))
    assert (data.texts, data.pairs, data.label_names) == (["a"], ["b"], ["not_equivalent", "equivalent"])


BAD_FILES = [
    # name, content, line, column, part of the message
    ("d.csv", "", 1, None, "the file is empty"),
    ("d.jsonl", "\n \n", 1, None, "the file is empty"),
    ("d.csv", "text,label\n", 1, None, "a header but no rows"),
    ("d.tsv", "text\tlabel\na\t0\n\nb\n", 4, None, "found 1 fields, the header (line 1) has 2"),
    ("d.csv", 'text,label\n"two\nlines",0\nb,1,c\n', 4, None, "found 3 fields"),
    ("d.csv", 'text,label\na,0\n"b" c,1\n', 3, None, "not a valid row"),
    ("d.csv", 'text,label\na,0\n"never closed,1\nc,0\n', 3, None, "not a valid row"),
    ("d.csv", 'text,label\n"two\nlines",0\n ,1\n', 4, "text", "the text is empty"),
    ("d.csv", "text,label\na,0\nb,\n", 3, "label", "the label is empty"),
    ("d.csv", "text,label\na,0\nb,0\n", 1, "label", "one class only, '0'"),
    ("d.csv", "body_text,label\na,0\n", 1, None, "no column with the text was found among 'body_text', 'label'"),
    ("d.csv", "a fine film,1\na bad one,0\n", 1, None, "add one if that line is already data"),
    ("d.csv", "text;label\na;0\n", 1, None, "by commas in .csv"),
    ("d.csv", "text,answer\na,0\n", 1, None, "name it with --label-column"),
    ("d.csv", "text,text,label\na,b,0\n", 1, "text", "stands 2 times"),
    ("d.tsv", b"text\tlabel\na\t0\n\xff\xfe caf\xe9\t1\n", 3, "text", "not UTF-8"),
    ("d.tsv", b"text\tlabel\na\t0\nb\x00c\t1\n", 3, "text", "a NUL character"),
    ("d.tsv", "text\tlabel\na\t0\n".encode("utf-16"), 1, None, "UTF-16"),
    ("d.jsonl", '{"text": "a", "label": 0}\n{"text": "b"\n', 2, None, "not valid JSON"),
    ("d.jsonl", '[{"text": "a", "label": 0}]\n', 1, None, "one JSON object a line"),
    ("d.jsonl", '{"text": "a", "label": 0}\n{"text": "b"}\n', 2, "label", "lacks this field"),
    ("d.jsonl", '{"text": "a", "label": 0}\n{"text": 3, "label": 1}\n', 2, "text", "expected text, found 3"),
    ("d.jsonl", '{"text": "a", "label": null}\n', 1, "label", "found None"),
    ("d.jsonl", '{"text": "a\\ud800", "label": 0}\n', 1, "text", "not UTF-8"),
    ("d.jsonl", '{"text": "a\\u0000", "label": 0}\n', 1, "text", "a NUL character"),
    ("d.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}\n", 1, None, "not usable JSON"),
    ("d.jsonl", "[" * 100_000 + "\n", 1, None, "JSON"),
    ("d.xlsx", "text,label\n", None, None, "unknown kind of file; allowed: .csv"),
    ("d.csv.gz", None, None, None, "gzip, but damaged"),
]


@pytest.mark.parametrize(("name", "content", "line", "column", "message"), BAD_FILES)
def test_bad_files_name_file_line_and_column(
    tmp_path: Path, name: str, content: str | bytes | None, line: int | None, column: str | None, message: str
) -> None:
    path = tmp_path / name
    if content is None:
        path.write_bytes(gzip.compress(b"text,label\na,0\n")[:-9])
    else:
        write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_dataset(path, CLASSIFICATION)
    error = caught.value
    assert message in str(error)
    assert (str(error.path), error.line, error.column) == (str(path), line, column)
    assert str(error).startswith(str(path))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read_dataset(tmp_path / "none.csv", CLASSIFICATION)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv: is a directory, but not one that"):
        read_dataset(tmp_path / "folder.csv", CLASSIFICATION)


def test_missing_column_as_asked_lists_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", "text,label\na,0\n")
    with pytest.raises(DataError, match=r"column 'body'\): missing column; found 'text', 'label'; .*--text-column"):
        read_dataset(path, CLASSIFICATION, text_column="body")
    with pytest.raises(DataError, match=r"column 'sentence1'\): missing column"):
        read_dataset(path, get_task("glue/rte"))
    with pytest.raises(DataError, match="both text and label"):
        read_dataset(path, CLASSIFICATION, label_column="text")


def test_unknown_label_names_the_row_and_the_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, "dev.csv", 'text,label\n"a\nb",neg\nc,meh\n')
    with pytest.raises(DataError, match=r"dev\.csv:4 \(column 'label'\): unknown label 'meh'; allowed: 'neg', 'pos'"):
        read_dataset(path, CLASSIFICATION, label_names=["neg", "pos"])
    path = write(tmp_path, "dev.csv", "text,label\na,2\n")
    with pytest.raises(DataError, match=r"unknown label '2'; allowed: 'neg', 'pos', or by index 0 to 1"):
        read_dataset(path, CLASSIFICATION, label_names=["neg", "pos"])
    # Indices must be consistent, too: the second row is no index of two classes.
    path = write(tmp_path, "dev.csv", "text,label\na,1\nb,2\n")
    with pytest.raises(DataError, match=r"dev\.csv:3 .*unknown label '2'; allowed: '0', '1'"):
        read_dataset(path, CLASSIFICATION, label_names=["neg", "pos"])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e39", "", "high"])
def test_targets_that_are_not_finite_numbers(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "d.csv", f"text,score\na,1\nb,{value}\n")
    with pytest.raises(DataError, match=r"d\.csv:3 \(column 'score'\): expected a finite number, found"):
        read_dataset(path, REGRESSION)


def test_a_text_column_taken_for_labels_is_recognized(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", as_csv([("label", "text"), *((f"text {i}", "x") for i in range(1001))]))
    with pytest.raises(DataError, match=r"found 1001 different labels .*--label-column"):
        read_dataset(path, CLASSIFICATION)
    path = write(tmp_path, "d.csv", as_csv([("label", "text"), ("short", "x"), ("long " * 50, "y")]))
    with pytest.raises(DataError, match=r"d\.csv:3 \(column 'label'\): found a label of 249 characters"):
        read_dataset(path, CLASSIFICATION)


@given(content=st.binary(max_size=200), name=st.sampled_from(["f.csv", "f.tsv", "f.jsonl", "f.csv.gz"]))
def test_any_bytes_are_read_or_refused_with_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    for task in (CLASSIFICATION, get_task("glue/cola")):
        with contextlib.suppress(DataError):
            data = read_dataset(path, task, require_labels=False)
            assert len(data) > 0
            assert b"\0" not in "".join(data.texts).encode()  # encode() refuses lone surrogates
