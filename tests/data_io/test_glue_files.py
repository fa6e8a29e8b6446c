"""The published GLUE files themselves. Oracle: row counts and majority shares of the data's own documentation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitpress.data import get_task, majority_baseline, read_dataset

ROOT = Path(os.environ.get("BITPRESS_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"{ROOT} is absent; set BITPRESS_DATA")


@pytest.mark.parametrize(
    ("task", "file", "n", "majority"),
    [
        ("glue/sst2", "SST-2/train.tsv", 67349, None),
        ("glue/sst2", "SST-2/dev.tsv", 872, 0.509),
        ("glue/cola", "CoLA/train.tsv", 8551, 0.0),
        ("glue/cola", "CoLA/dev.tsv", 1043, 0.0),
        ("glue/mrpc", "MRPC/train.tsv", 3668, None),
        ("glue/mrpc", "MRPC/dev.tsv", 408, 0.812),  # F1 of 68.4 % positives
        ("glue/mrpc", "MRPC/msr_paraphrase_test.txt", 1725, None),
        ("glue/rte", "RTE/train.tsv", 2490, None),
        ("glue/rte", "RTE/dev.tsv", 277, 0.527),
        ("glue/stsb", "STS-B/train.tsv", 5749, 0.0),
        ("glue/stsb", "STS-B/dev.tsv", 1500, 0.0),
        ("glue/stsb", "STS-B/sts-test-labelled.tsv", 1379, 0.0),
        ("classification", "banking77/train.tsv", 10003, None),
    ],
)
def test_labelled(task: str, file: str, n: int, majority: float | None) -> None:
    data = read_dataset(ROOT / file, get_task(task))
    assert len(data) == n
    assert data.labels is not None
    if majority is not None:
        assert majority_baseline(get_task(task), data.labels) == pytest.approx(majority, abs=5e-4)


@pytest.mark.parametrize(
    ("task", "file", "n"),
    [
        ("glue/sst2", "SST-2/test.tsv", 1821),
        ("glue/cola", "CoLA/test.tsv", 1063),
        ("glue/mrpc", "MRPC/test.tsv", 1725),
        ("glue/rte", "RTE/test.tsv", 3000),
        ("glue/stsb", "STS-B/test.tsv", 1379),
    ],
)
def test_unlabelled(task: str, file: str, n: int) -> None:
    data = read_dataset(ROOT / file, get_task(task), require_labels=False)
    assert len(data) == n
    assert data.labels is None


@pytest.mark.parametrize(("task", "file"), [("glue/sst2", "SST-2/train.tsv"), ("glue/mrpc", "MRPC/train.tsv")])
def test_the_plain_task_reads_the_same_texts(task: str, file: str) -> None:
    own, plain = (read_dataset(ROOT / file, get_task(name)) for name in (task, "classification"))
    assert (own.texts, own.pairs) == (plain.texts, plain.pairs)
