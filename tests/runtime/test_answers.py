"""Logits to answers. Oracles: every span in turn, and logits that were made of a wanted answer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from bitpress.artifact.schema import ActivationSpec, ArtifactConfig, SpanSpec, TaskSpec
from bitpress.data import Dataset
from bitpress.errors import DataError
from bitpress.runtime import forward
from bitpress.runtime.answers import N_BEST, NO_SPAN, Answer, as_answers, find_answers
from bitpress.runtime.pipeline import Model
from bitpress.runtime.tokenization import Tokenizer

NONE = [-1, -1]


def decode(
    windows: Sequence[tuple[int, Any, Any]], contexts: Sequence[str], longest: int = 30, **how: Any
) -> list[Answer]:
    """Of (question, logits [T, 2], places [T, 2]) of each window."""
    logits = np.concatenate([np.asarray(logits, np.float32).reshape(-1, 2) for _, logits, _ in windows])
    places = np.concatenate([np.asarray(places, np.int32).reshape(-1, 2) for _, _, places in windows])
    lengths = np.array([len(places) for _, _, places in windows])
    questions = np.array([question for question, _, _ in windows])
    return find_answers(logits, lengths, questions, places, contexts, longest, how.get("may_abstain", False))


def test_the_best_span_of_one_window() -> None:
    places = [NONE, NONE, [0, 3], [4, 6], [7, 13], NONE]
    logits = [[9, 9], [9, 9], [1, 0], [3, 1], [2, 2.5], [9, 9]]  # question and special tokens are no candidates
    (found,) = decode([(0, logits, places)], ["Ada in London"])
    assert (found.start, found.end, found.text) == (4, 13, "in London")
    spans = [1 + 0, 1 + 1, 1 + 2.5, 3 + 1, 3 + 2.5, 2 + 2.5]
    assert found.score == pytest.approx(np.exp(5.5) / np.exp(spans).sum())
    assert (found.margin, found.null_score) == (18 - 5.5, 0)
    (found,) = decode([(0, logits, places)], ["Ada in London"], may_abstain=True)
    assert found.null_score == pytest.approx(np.exp(18) / (np.exp(spans).sum() + np.exp(18)))
    assert found.score == pytest.approx(np.exp(5.5) / (np.exp(spans).sum() + np.exp(18)))


def test_an_end_is_not_before_its_start_and_answers_have_a_longest() -> None:
    places = [NONE, [0, 1], [2, 3], [4, 5], [6, 7]]
    logits = [[0, 0], [0, 9], [0, 0], [0, 1], [9, 0]]
    (found,) = decode([(0, logits, places)], ["a b c d"])
    assert found.text in ("a", "d")  # 0 + 9 and 9 + 0: the first of equals
    assert (found.start, found.end) == (0, 1)
    logits = [[0, 0], [9, 0], [0, 0], [0, 0], [0, 9]]
    assert decode([(0, logits, places)], ["a b c d"])[0].text == "a b c d"
    assert decode([(0, logits, places)], ["a b c d"], longest=3)[0].text == "a"
    assert decode([(0, logits, places)], ["a b c d"], longest=1)[0].text == "a"


def test_windows_of_a_question_are_one_search() -> None:
    first = (0, [[1, 1], [0, 0], [2, 3]], [NONE, [0, 1], [2, 3]])
    second = (0, [[-1, 0.5], [2.5, 3], [1, 1]], [NONE, [2, 3], [4, 5]])
    other = (1, [[0, 0], [0, 4]], [NONE, [0, 2]])
    found = decode([first, second, other], ["a b c", "xy"])
    assert [(one.start, one.end, one.text) for one in found] == [(2, 3, "b"), (0, 2, "xy")]
    # "b" is in both windows and counts once, with the better score: a, a b, b, b c, c.
    assert found[0].score == pytest.approx(np.exp(5.5) / np.exp([0, 3, 5.5, 3.5, 2]).sum())
    assert found[0].margin == pytest.approx(-0.5 - 5.5)  # no answer is scored where that is lowest
    assert found[1].margin == -4


def test_white_space_is_no_part_of_an_answer() -> None:
    places = [NONE, [0, 4], [4, 5], [5, 9]]  # as of a tokenizer whose pieces hold the space before them
    logits = [[0, 0], [1, 0], [5, 5], [0, 4]]
    (found,) = decode([(0, logits, places)], [" Ada  in "])
    assert (found.start, found.end, found.text) == (6, 8, "in")


def test_a_context_without_a_span() -> None:
    (found,) = decode([(0, [[1, 2], [3, 4]], [NONE, [0, 2]])], ["  "])
    assert found == Answer(0, 0, "", 0.0, 1.0, NO_SPAN)
    assert found.given(None) == {"answer": "", "score": 0.0, "start": 0, "end": 0}
    assert found.given(7.0) == {"answer": "", "score": 1.0, "start": 0, "end": 0}


def test_a_threshold_decides() -> None:
    found = Answer(3, 6, "Ada", 0.7, 0.2, -1.25)
    answered = {"answer": "Ada", "score": 0.7, "start": 3, "end": 6}
    assert found.given(None) == found.given(-1.25) == found.given(0.0) == answered
    assert found.given(-1.5) == {"answer": "", "score": 0.2, "start": 0, "end": 0}
    assert as_answers([found], -1.5).given() == [""]


def test_outputs_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="the model's outputs contain NaN or infinity"):
        decode([(0, [[np.nan, 0]], [NONE])], ["a"])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_against_every_span(data: st.DataObject) -> None:
    """Few different values, so that there are ties, and more than N_BEST spans."""
    longest = data.draw(st.integers(1, 5))
    count = data.draw(st.integers(1, 12))
    context = " ".join("abcdefghijkl"[:count])
    windows: list[tuple[int, Any, Any]] = []
    expected: dict[tuple[int, int], float] = {}
    nulls = []
    for start in range(0, count, 4):
        tokens = list(range(start, min(count, start + 8)))
        values = data.draw(st.lists(st.integers(-3, 3), min_size=2 * len(tokens) + 2, max_size=2 * len(tokens) + 2))
        logits = np.array(values, np.float32).reshape(-1, 2)
        windows.append((0, logits, [NONE, *([2 * t, 2 * t + 1] for t in tokens)]))
        nulls.append(float(logits[0].sum()))
        for i, first in enumerate(tokens):
            for j, last in enumerate(tokens):
                if 0 <= j - i < longest:
                    key = (2 * first, 2 * last + 1)
                    expected[key] = max(expected.get(key, -99), float(logits[1 + i, 0] + logits[1 + j, 1]))
    (found,) = decode(windows, [context], longest, may_abstain=True)
    ranked = sorted(expected, key=lambda key: (-expected[key], key))[:N_BEST]
    assert (found.start, found.end) == ranked[0]
    assert found.text == context[found.start : found.end]
    assert found.margin == min(nulls) - expected[ranked[0]]
    weights = np.exp([*(expected[key] for key in ranked), min(nulls)])
    assert found.score == pytest.approx(weights[0] / weights.sum())
    assert found.null_score == pytest.approx(weights[-1] / weights.sum())


# --- the pipeline ---

VOCABULARY = {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "who": 3, "Ada": 4, "Lovelace": 5, "in": 6, "x": 7}


class FakeEngine:
    """ "Ada" begins an answer and "Lovelace" ends one; [CLS] has 1 and 1."""

    isa, threads = "fake", 1

    def forward(self, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]]) -> np.ndarray:
        logits = {0: [1, 1], 4: [5, 0], 5: [0, 5]}
        return np.array([logits.get(token, [0, 0]) for row in ids for token in row], np.float32)

    def close(self) -> None: ...


def model(max_length: int = 16, threshold: float | None = None, **spans: int) -> Model:
    backend = Backend(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    names = {"0": "start", "1": "end"}
    task = TaskSpec("question_answering", "f1", True, SpanSpec(**spans, no_answer_threshold=threshold))
    config = ArtifactConfig({"id2label": names, "head": "tokens"}, "test", ActivationSpec(), task, max_length, {})
    return Model("some/artifact", config, Tokenizer(backend), FakeEngine())


LONG = "x in " * 30 + "Ada Lovelace" + " in x" * 30


def test_one_question_by_name_and_several_in_a_list() -> None:
    found = model()(question="who", context="in Ada Lovelace, x")
    assert (found["answer"], found["start"], found["end"]) == ("Ada Lovelace", 3, 15)
    assert set(found) == {"answer", "score", "start", "end"}
    assert 0.9 < found["score"] < 1
    assert model()(("who", "in Ada Lovelace, x")) == found
    assert model()([("who", "in Ada Lovelace, x"), ("who", LONG)])[0] == found
    assert model()([]) == []
    (row,) = model().predict([("who", "in Ada Lovelace, x")])
    assert row == {"question": "who", "context": "in Ada Lovelace, x", **found}


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_long_contexts_in_any_batch_and_chunk(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [("who", LONG), ("who who", "Ada"), ("who", "Lovelace Ada " * 20 + "Ada Lovelace"), ("who", "")]
    whole = model()(asked, batch_size=batch_size)
    assert [found["answer"] for found in whole] == ["Ada Lovelace", "Ada", "Ada Lovelace", ""]
    assert whole[0]["start"] == LONG.index("Ada")
    monkeypatch.setattr(forward, "CHUNK_TEXTS", 2)
    assert model()(asked, batch_size=batch_size) == whole


def test_no_answer() -> None:
    assert model(threshold=0.0)(question="who", context="x in x")["answer"] == ""
    assert model(threshold=2.5)(question="who", context="x in x")["answer"] == "x"  # 2 of [CLS] above 0
    assert model(threshold=0.0)(question="who", context="x Ada")["answer"] == "Ada"
    found = model(threshold=0.0)(question="who", context="x in")
    # [CLS] has 2, the spans "x", "x in" and "in" 0.
    assert found == {"answer": "", "score": pytest.approx(np.exp(2) / (np.exp(2) + 3)), "start": 0, "end": 0}


def test_cut_questions_are_said_to_be() -> None:
    asked = [("who who who", "Ada"), ("who", "Ada")]
    with pytest.warns(
        UserWarning,
        match="1 of 2 questions are longer than 2 tokens, or than half of 16; the ends of those were not read",
    ):
        assert model(max_query_length=2)(asked)[0]["answer"] == "Ada"
    assert [row.get("truncated") for row in model(max_query_length=2).predict(asked)] == [True, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model()([("who", LONG)])  # a long context is read whole


def test_what_is_no_question() -> None:
    with pytest.raises(
        TypeError, match="expected texts, or question=… and context=…, each a str; several are a list of"
    ):
        model()(question="who")
    with pytest.raises(TypeError, match="each a str"):
        model()(question=["who"], context=["x"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="each a str"):
        model()("who", question="who", context="x")
    with pytest.raises(ValueError, match="this model reads pairs of texts: call it as"):
        model()("who")


def dataset(**changes: Any) -> Dataset:
    rows: dict[str, Any] = {
        "texts": ["who", "who who", "who"],
        "pairs": ["in Ada Lovelace", LONG, "x"],
        "labels": np.array([[3, 15], [150, 153], [-1, -1]]),
        "label_names": ["start", "end"],
        **{"path": "data", "fingerprint": "", "ids": ["a", "b", "c"], "answers": [["Ada Lovelace"], ["Ada"], []]},
    }
    return Dataset(**(rows | changes))


def test_evaluation() -> None:
    found = model(threshold=0.0, max_query_length=1).evaluate(dataset())
    assert (found["metric"], found["n"], found["cut_questions"]) == ("f1", 3, 1)
    assert found["value"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert found["majority"] == pytest.approx(1 / 3)
    assert found["metrics"]["exact_match"] == pytest.approx(2 / 3)
    assert found["metrics"]["no_answer_threshold"] == 0
    found = model().evaluate(dataset(answers=[["Ada Lovelace"], ["Ada"], ["x"]], label_names=["LABEL_0", "LABEL_1"]))
    assert list(found["metrics"]) == ["f1", "exact_match"]
    assert found["majority"] == 0
    with pytest.raises(DataError, match="this model reads pairs of texts; choose the columns"):
        model().evaluate(dataset(pairs=None))
