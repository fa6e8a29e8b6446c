"""Where a run lies beside its output, and which outputs are refused. Oracle: paths written out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitpress.errors import TrainingError
from bitpress.recipes.finetune import finetune
from bitpress.recipes.run_directory import RunDirectory


@pytest.mark.parametrize("out", ["small", "small/", "./small", "sub dir/../small/."])
def test_the_run_lies_beside_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub dir").mkdir()
    RunDirectory(out, {}).begin()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.run", "sub dir"]


@pytest.mark.parametrize("out", [".", "../here", "../here/sub/.."])
def test_the_current_directory_can_be_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    RunDirectory(out, {}).begin()
    assert [path.name for path in tmp_path.glob("*.run")] == ["here.run"]
    assert not list(here.iterdir())


def test_an_output_that_cannot_be_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no directory around it"):
        RunDirectory("/", {})
    for name in ("small", "small.run"):
        (tmp_path / name).write_text("precious")
        with pytest.raises(TrainingError, match=rf"{name} is a file where a directory"):
            RunDirectory(tmp_path / "small", {})
        (tmp_path / name).unlink()


def test_train_and_dev_of_another_form(tiny: Any, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("sentence1\tsentence2\tlabel\na film\tthe plot\tpositive\nthe plot\ta film\tnegative\n")
    with pytest.raises(TrainingError, match="one has pairs of texts, the other single texts"):
        finetune(tiny.encoder, train=tiny.train, dev=pairs, out=tmp_path / "out", quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.tsv"]
