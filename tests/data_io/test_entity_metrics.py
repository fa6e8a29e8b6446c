"""Scores of entities. Oracle: seqeval in its default mode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitpress.data import Dataset, get_task, headline, score, summarize
from bitpress.data.entity_metrics import entity_metrics
from bitpress.data.scores import word_logits

NAMES = ["O", "B-per", "I-per", "I-loc", "B-loc"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # seqeval's own, where a sample has no entity
@settings(deadline=None)  # the first call imports scikit-learn
@given(seed=st.integers(0, 2**31), lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_equal_to_seqeval(seed: int, lengths: list[int]) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, sum(lengths))
    predicted = np.where(rng.random(len(truth)) < 0.5, truth, rng.integers(0, 5, len(truth)))
    found = entity_metrics(predicted, truth, np.array(lengths), NAMES)
    ends = np.cumsum(lengths)[:-1]
    theirs, ours = ([[NAMES[i] for i in sentence] for sentence in np.split(tags, ends)] for tags in (truth, predicted))
    for name in ("f1", "precision", "recall"):
        expected = getattr(seqeval, f"{name}_score")(theirs, ours, zero_division=0)
        assert found[f"entity_{name}"] == pytest.approx(expected, abs=1e-12)
    report = seqeval.classification_report(theirs, ours, output_dict=True, zero_division=0)
    for label in {key.split("/")[1] for key in found if "/" in key}:
        for name, key in (("f1", "f1-score"), ("precision", "precision"), ("recall", "recall")):
            assert found[f"{name}/{label}"] == pytest.approx(report[label][key], abs=1e-12)


def dataset(tags: list[list[str]]) -> Dataset:
    labels = np.array([NAMES.index(tag) for sentence in tags for tag in sentence], np.int64)
    words = [[(2 * i, 2 * i + 1) for i in range(len(sentence))] for sentence in tags]
    texts = [" ".join("x" * len(sentence)) for sentence in tags]
    return Dataset(texts, None, labels, NAMES, "data", "", words=words)


def test_words_that_no_token_begins_count_as_outside() -> None:
    data = dataset([["B-per", "I-per", "O"], ["B-loc"]])
    # [CLS] w0 (piece) w1 [SEP]; w2 has no token. [CLS] [SEP]: the only word was cut off.
    begun, lengths = np.array([-1, 0, -1, 1, -1, -1, -1]), np.array([5, 2])
    logits = np.zeros((7, 5), np.float32)
    logits[1, 1] = logits[3, 2] = logits[2, 4] = 1  # B-per, I-per; what a further piece says is not read
    by_word = word_logits(logits, begun, lengths, data.word_counts)
    assert by_word.shape == (4, 5)
    assert np.isnan(by_word).all(axis=1).tolist() == [False, False, True, True]
    metrics = score(get_task("ner"), by_word, data)
    assert (metrics["recall/per"], metrics["recall/loc"]) == (1, 0)
    assert metrics["entity_f1"] == pytest.approx(2 / 3)
    found = summarize(get_task("ner"), metrics, data, 5)
    assert (found["metric"], found["n"], found["majority"]) == ("entity_f1", 2, 0)


def test_outputs_that_cannot_be_scored() -> None:
    data = dataset([["O"]])
    with pytest.raises(ValueError, match=r"outputs of shape \(2, 5\) on 1 words"):
        score(get_task("ner"), np.zeros((2, 5)), data)
    with pytest.raises(ValueError, match="NaN or infinity"):
        word_logits(np.full((1, 5), np.inf), np.array([0]), np.array([1]), np.array([1]))


def test_headline_of_each_kind() -> None:
    data = dataset([["O"]])
    assert headline(get_task("ner"), data, 5) == "entity_f1"
    assert headline(get_task("glue/mrpc"), data, 3) == "macro_f1"
