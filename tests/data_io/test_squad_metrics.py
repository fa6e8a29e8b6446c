"""Exact match and F1 of answers. Oracles: values worked out by hand, and below the definitions of evaluate-v1.1.py and
evaluate-v2.0.py, written again in another way."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitpress.data.squad_metrics import Answers, answer_f1, best_threshold, exact_match, normalize, squad_metrics

# Words, articles, punctuation and case that normalization treats otherwise; few, so that answers often share some.
PIECES = ["the", "The", "a", "an", "Paris", "paris", "Paris.", "of", "42", "4-2", "—", "!", "théâtre", "theater", ""]
TEXT = st.lists(st.sampled_from(PIECES), max_size=4).map(" ".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Denver Broncos", "denver broncos"),
        ("  a\tcat,  an owl!\n", "cat owl"),
        ("U.S.", "us"),
        ("4-2", "42"),
        ("another theme", "another theme"),  # articles are whole words
        ("the-end", "theend"),  # punctuation goes first
        ("Théâtre “An der Wien”", "théâtre “ der wien”"),  # only ASCII punctuation goes; “An” is an article
        ("the a an", ""),
    ],
)
def test_normalization(text: str, expected: str) -> None:
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("found", "truth", "same", "f1"),
    [
        ("Denver Broncos", "the Denver Broncos!", 1, 1),
        ("Broncos of Denver", "Denver Broncos", 0, 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("to be to be", "to be", 0, 2 * 0.5 * 1 / 1.5),
        ("Carolina", "Denver", 0, 0),
        ("", "Denver", 0, 0),
        ("the", "a", 1, 0),  # of version 1.1: no word, so no word in common
    ],
)
def test_one_answer(found: str, truth: str, same: float, f1: float) -> None:
    assert exact_match(found, truth) == same
    assert answer_f1(found, truth) == pytest.approx(f1, abs=1e-15)


def test_the_best_of_several_answers_counts() -> None:
    answers = Answers(["the blue whale", "in 1854", "Ada"], np.zeros(3))
    truths = [["whale", "blue whale"], ["1854", "year 1854 in France"], ["Lovelace"]]
    found = squad_metrics(answers, truths)
    # "in 1854": with "1854" 2·½·1/1½ = ⅔; with the other one 2·1·½/1½ = ⅔.
    assert found == pytest.approx({"f1": (1 + 2 / 3 + 0) / 3, "exact_match": 1 / 3})


def test_questions_without_an_answer() -> None:
    truths = [["Ada"], [], ["Paris"], []]
    answers = Answers(["Ada", "Bob", "Rome", ""], np.array([-3.0, 1.0, 2.0, 5.0]), threshold=0.0)
    found = squad_metrics(answers, truths)
    assert found == pytest.approx(
        {
            **{"f1": 0.75, "exact_match": 0.75},
            **{"has_answer/f1": 0.5, "has_answer/exact_match": 0.5, "no_answer/f1": 1, "no_answer/exact_match": 1},
            **{"best_f1": 0.75, "best_exact_match": 0.75, "no_answer_threshold": 0.0},
        }
    )
    always = squad_metrics(Answers(answers.texts, answers.margins), truths)
    assert always["no_answer/f1"] == 0.5  # the empty text is right
    assert "no_answer_threshold" not in always
    assert squad_metrics(Answers(["x"], np.zeros(1)), [[]])["no_answer/f1"] == 0
    assert "has_answer/f1" not in squad_metrics(Answers(["x"], np.zeros(1)), [[]])


def test_answers_without_a_word_by_either_version() -> None:
    """The word "The" is an answer of version 1.1, whose F1 it cannot get; to version 2.0 it is no answer at all."""
    found = squad_metrics(Answers(["the", "x"], np.zeros(2)), [["The"], ["x"]])
    assert found == {"f1": 0.5, "exact_match": 1.0}
    found = squad_metrics(Answers(["the", "x", "y"], np.zeros(3)), [["The"], ["x"], []])
    assert (found["has_answer/f1"], found["has_answer/exact_match"]) == (1, 1)


def test_the_best_threshold_separates() -> None:
    truths = [["a b"], ["c"], [], ["d"], []]
    answers = Answers(["a b", "c x", "", "d", "z"], np.array([-2.0, -1.0, 0.0, 1.0, 3.0]))
    values = np.array([1, 2 / 3, 1, 1, 0])
    value, threshold = best_threshold(answers, values, truths)
    # Giving no answer is right twice; answering the first four adds 1, 2/3, 0 (as it is "") and 1, the last one -1.
    assert value == pytest.approx((2 + 1 + 2 / 3 + 1) / 5)
    assert threshold == 2.0
    tuned = answers.tuned(truths)
    assert squad_metrics(tuned, truths)["f1"] == pytest.approx(value)
    assert answers.tuned([["x"]] * 5) is answers


def test_thresholds_beyond_all_margins() -> None:
    margins = np.array([1.0, 2.0])
    assert best_threshold(Answers(["x", "y"], margins), np.zeros(2), [[], []]) == (1.0, 0.0)
    assert best_threshold(Answers(["x", "y"], margins), np.ones(2), [["x"], ["y"]]) == (1.0, 3.0)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_against_the_published_definitions(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    found = data.draw(st.lists(TEXT, min_size=count, max_size=count))
    truths = data.draw(st.lists(st.lists(TEXT, min_size=0, max_size=3), min_size=count, max_size=count))
    margins = np.array(data.draw(st.lists(st.integers(-4, 4), min_size=count, max_size=count)), float)
    threshold = data.draw(st.sampled_from([None, -2.5, 0.5]))
    ours = squad_metrics(Answers(found, margins, threshold), truths)
    given_answers = [
        "" if threshold is not None and margin > threshold else text
        for text, margin in zip(found, margins, strict=True)
    ]
    if all(truths):
        expected = _version_1(given_answers, truths)
        assert ours == pytest.approx(expected, abs=1e-12)
        return
    pairs = [_version_2(text, texts) for text, texts in zip(given_answers, truths, strict=True)]
    assert ours["exact_match"] == pytest.approx(sum(exact for exact, _ in pairs) / count)
    assert ours["f1"] == pytest.approx(sum(f1 for _, f1 in pairs) / count)
    for kind, wanted in (("has_answer", True), ("no_answer", False)):
        rows = [f1 for (_, f1), texts in zip(pairs, truths, strict=True) if bool(texts) == wanted]
        assert ours.get(f"{kind}/f1") == (pytest.approx(sum(rows) / len(rows)) if rows else None)
    whole = [_version_2(text, texts) for text, texts in zip(found, truths, strict=True)]
    for name, values in (("best_f1", [f1 for _, f1 in whole]), ("best_exact_match", [exact for exact, _ in whole])):
        assert ours[name] == pytest.approx(_best(values, found, margins, truths) / count)


def _words(text: str) -> list[str]:
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(?:a|an|the)\b", " ", kept).split()


def _overlap(found: list[str], truth: list[str]) -> float:
    left, same = list(truth), 0
    for word in found:
        if word in left:
            left.remove(word)
            same += 1
    return 0.0 if same == 0 else 2 * same / (len(found) + len(truth))


def _version_1(found: list[str], truths: list[list[str]]) -> dict[str, float]:
    pairs = [[(_words(text), _words(truth)) for truth in texts] for text, texts in zip(found, truths, strict=True)]
    exact = [max(float(ours == theirs) for ours, theirs in rows) for rows in pairs]
    f1 = [max(_overlap(ours, theirs) for ours, theirs in rows) for rows in pairs]
    return {"f1": sum(f1) / len(f1), "exact_match": sum(exact) / len(exact)}


def _version_2(found: str, truths: list[str]) -> tuple[float, float]:
    ours = _words(found)
    theirs = [words for truth in truths if (words := _words(truth))] or [[]]
    exact = max(float(ours == words) for words in theirs)
    f1 = max(_overlap(ours, words) if ours and words else float(ours == words) for words in theirs)
    return exact, f1


def _best(values: list[float], found: list[str], margins: np.ndarray, truths: list[list[str]]) -> float:
    """Every threshold in turn: what is answered scores, and what is not is right where there is no answer. The script
    counts a text for a question without an answer as wrong even if it has no word."""

    def total(threshold: float) -> float:
        parts = []
        for value, text, margin, texts in zip(values, found, margins, truths, strict=True):
            if margin > threshold:
                parts.append(float(not texts))
            else:
                parts.append(value if texts else float(not text))
        return sum(parts)

    return max(map(total, [-np.inf, *margins]))
