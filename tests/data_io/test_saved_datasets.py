"""Directories of `datasets.save_to_disk` and hub names. Oracle: the same rows as a jsonl file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitpress.data import get_task, iter_texts, read_dataset
from bitpress.errors import DataError

datasets = pytest.importorskip("datasets")

ROWS = [
    {"idx": 0, "sentence": "a fine, quiet film", "label": 1},
    {"idx": 1, "sentence": "no\tjoy in it", "label": 0},
    {"idx": 2, "sentence": "ünder “glass”", "label": 1},
]
NAMES = ["bad", "good"]


def make(rows: list[dict[str, Any]], labels: Any = None) -> Any:
    features = datasets.Features(
        {
            "idx": datasets.Value("int32"),
            "sentence": datasets.Value("string"),
            "label": labels or datasets.ClassLabel(names=NAMES),
        }
    )
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make(ROWS).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_dataset_is_as_the_same_rows_in_a_file(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r | {"label": NAMES[r["label"]]}) + "\n" for r in ROWS))
    task = get_task("classification")
    found, expected = read_dataset(saved, task), read_dataset(tmp_path / "rows.jsonl", task)
    assert (found.texts, found.pairs, found.label_names) == (expected.texts, None, NAMES)
    assert expected.labels is not None
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert list(iter_texts(saved)) == expected.texts
    assert found.fingerprint == read_dataset(saved, task).fingerprint != expected.fingerprint
    make([*ROWS[:2], ROWS[2] | {"label": 0}]).save_to_disk(tmp_path / "other")
    assert read_dataset(tmp_path / "other", task).fingerprint != found.fingerprint


def test_values_of_a_regression(tmp_path: Path) -> None:
    make([row | {"label": row["idx"] / 2} for row in ROWS], datasets.Value("float32")).save_to_disk(tmp_path / "saved")
    found = read_dataset(tmp_path / "saved", get_task("regression"))
    np.testing.assert_array_equal(found.labels, np.array([0.0, 0.5, 1.0], np.float32))


def test_tagged_words_as_hub_datasets_store_them(tmp_path: Path) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
        }
    )
    rows = {"tokens": [["Ada", "Lovelace", "lived", "in", "London"]], "ner_tags": [[1, 2, 0, 0, 3]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    found = read_dataset(tmp_path / "saved", get_task("ner"))
    assert found.texts == ["Ada Lovelace lived in London"]
    assert [found.label_names[i] for i in found.labels] == ["B-PER", "I-PER", "O", "O", "B-LOC"]


def test_a_hub_name_goes_to_load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call reaches a hub; here its name is a directory of data files."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    (folder / "validation.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = read_dataset(f"hub:{folder}:train", get_task("classification"))
    assert (found.texts, found.label_names) == ([row["sentence"] for row in ROWS], ["0", "1"])
    assert (
        len(read_dataset(f"hub:{folder}:default:validation", get_task("classification"), label_names=["0", "1"])) == 1
    )
    with pytest.raises(DataError, match=r"hub:.*:exam: datasets.load_dataset cannot load it: .*exam"):
        read_dataset(f"hub:{folder}:exam", get_task("classification"))


def test_what_cannot_be_read_says_why(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task("classification")
    datasets.DatasetDict({"train": make(ROWS), "dev": make(ROWS)}).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match=r"both: holds the splits train, dev; name one of them, such as .*both/train"):
        read_dataset(tmp_path / "both", task)
    assert len(read_dataset(tmp_path / "both" / "train", task)) == 3
    with pytest.raises(DataError, match=r"not one that datasets.save_to_disk wrote \(no state.json\)"):
        read_dataset(tmp_path, task)
    with pytest.raises(DataError, match="not a hub name; write hub:NAME:SPLIT or hub:NAME:CONFIGURATION:SPLIT"):
        read_dataset("hub:glue", task)
    # The library saves an empty dataset as no file at all, which it cannot load.
    monkeypatch.setattr(datasets, "load_from_disk", lambda path: make([]))
    with pytest.raises(DataError, match="saved: the dataset has no rows"):
        read_dataset(saved, task)
    monkeypatch.undo()
    make([*ROWS, ROWS[0] | {"sentence": " "}]).save_to_disk(tmp_path / "blank")
    with pytest.raises(DataError, match=r"blank:4 \(column 'sentence'\)"):
        read_dataset(tmp_path / "blank", task)
    make([ROWS[0], ROWS[1] | {"label": -1}]).save_to_disk(tmp_path / "unlabelled")
    with pytest.raises(DataError, match=r"unlabelled:2 \(column 'label'\): unknown label '-1'; allowed: 'bad', 'good'"):
        read_dataset(tmp_path / "unlabelled", task, label_names=NAMES)
    next(saved.glob("*.arrow")).write_bytes(b"no arrow")
    with pytest.raises(DataError, match=r"saved: datasets\.load_from_disk cannot read it"):
        read_dataset(saved, task)


def test_without_the_library_the_error_names_the_extra(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"which is not installed; pip install 'bitpress\[datasets\]'"):
        read_dataset(saved, get_task("classification"))
