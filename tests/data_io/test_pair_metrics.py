"""Scores of vectors of pairs of texts. Oracles: scipy; a search over all candidates, one text at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitpress.data import get_task, headline, read_dataset, score, summarize
from bitpress.data.pair_metrics import pair_metrics
from bitpress.errors import DataError

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((80, 7)).astype(np.float32)
    vectors[6:8] = vectors[4:6]  # equal cosines
    scores = rng.integers(0, 6, 40).astype(np.float32)  # and many equal scores
    a, b = vectors[0::2].astype(np.float64), vectors[1::2].astype(np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    found = pair_metrics(vectors, scores)
    assert found["spearman"] == pytest.approx(stats.spearmanr(cosines, scores).statistic, abs=1e-12)
    assert found["pearson"] == pytest.approx(stats.pearsonr(cosines, scores).statistic, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_retrieval_among_all_second_texts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((60, 5))
    second = first + rng.standard_normal((60, 5))
    vectors = np.empty((120, 5), np.float32)
    vectors[0::2], vectors[1::2] = first, second
    a, b = vectors[0::2].astype(np.float64), vectors[1::2].astype(np.float64)
    ranks = []
    for i in range(60):
        cosines = [a[i] @ other / np.linalg.norm(a[i]) / np.linalg.norm(other) for other in b]
        ranks.append(1 + sum(other > cosines[i] for other in cosines))
    found = pair_metrics(vectors, None, [str(i) for i in range(60)])
    assert found["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert found["recall@1"] == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    assert found["recall@10"] == pytest.approx(np.mean([rank <= 10 for rank in ranks]))
    assert 0 < found["recall@1"] < found["recall@10"]


def test_vectors_that_are_all_the_same_find_nothing_and_the_same_text_is_one_candidate() -> None:
    same = np.ones((8, 3), np.float32)
    assert pair_metrics(same, None, list("abcd")) == {"mrr": 0.25, "recall@1": 0.0, "recall@10": 1.0}
    assert pair_metrics(same, None, ["a"] * 4)["recall@1"] == 1.0
    assert pair_metrics(same, np.arange(4.0))["spearman"] == 0.0
    assert pair_metrics(np.zeros((8, 3), np.float32), np.arange(4.0))["pearson"] == 0.0


def test_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match=r"vectors of shape \(3, 2\); two a pair are needed"):
        pair_metrics(np.zeros((3, 2)), None)
    with pytest.raises(ValueError, match="found 4 vectors and 3 scores"):
        pair_metrics(np.zeros((4, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="NaN or infinity"):
        pair_metrics(np.full((2, 2), np.nan), None)


def test_files_have_pairs_with_scores_pairs_or_texts(tmp_path: Path) -> None:
    task = get_task("embedding")
    (tmp_path / "scored.tsv").write_text("sentence1\tsentence2\tscore\na b\tc\t5\nd\te\t2.5\n")
    (tmp_path / "found.csv").write_text("anchor,positive\na,b\n")
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    scored, found, texts = (read_dataset(tmp_path / name, task) for name in ("scored.tsv", "found.csv", "texts.jsonl"))
    assert scored.labels is not None
    assert scored.labels.tolist() == [5.0, 2.5]
    assert scored.sentences == ["a b", "c", "d", "e"]
    assert (found.labels, found.pairs, found.sentences) == (None, ["b"], ["a", "b"])
    assert (texts.labels, texts.pairs, texts.sentences) == (None, None, ["a", "b"])
    assert [headline(task, data, 0) for data in (scored, found)] == ["spearman", "mrr"]
    metrics = score(task, np.eye(2, 3, dtype=np.float32), found)
    assert summarize(task, metrics, found, 3) == {
        "metric": "mrr",
        "value": 1.0,
        "n": 1,
        "metrics": {"mrr": 1.0, "recall@1": 1.0, "recall@10": 1.0},
        "majority": 0.0,
    }


def test_a_wrong_score_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\tnear\n")
    with pytest.raises(DataError, match=r"d.tsv:3 \(column 'score'\): expected a finite number, found 'near'"):
        read_dataset(tmp_path / "d.tsv", get_task("embedding"))
    (tmp_path / "e.tsv").write_text("anchor\tpositive\na\t \n")
    with pytest.raises(DataError, match=r"e.tsv:2 \(column 'positive'\): the text is empty"):
        read_dataset(tmp_path / "e.tsv", get_task("embedding"))
