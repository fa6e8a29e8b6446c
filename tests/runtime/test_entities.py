"""Token logits to entities with character offsets. Oracle: the tags that the logits were made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from bitpress.artifact.schema import ActivationSpec, ArtifactConfig, TaskSpec
from bitpress.data import Dataset
from bitpress.runtime import forward
from bitpress.runtime.entities import find_entities
from bitpress.runtime.pipeline import Model
from bitpress.runtime.tokenization import Tokenizer

NAMES = ["O", "B-per", "I-per", "B-loc", "I-loc"]
VOCABULARY = {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "Ada": 3, "Lovelace": 4, "London": 5, "in": 6, ",": 7}
TAGS = {3: 1, 4: 2, 5: 3}  # of token ids; others are outside


def probabilities(tags: Sequence[int], height: float = 0.6) -> np.ndarray:
    rows = np.full((len(tags), 5), (1 - height) / 4)
    rows[np.arange(len(tags)), tags] = height
    return rows


def test_places_and_scores() -> None:
    text = "Ada Lovelace, in London"
    words = [(0, 3), (4, 12), (12, 13), (14, 16), (17, 23)]
    rows = probabilities([0, 1, 2, 4, 0, 0, 3, 0])
    rows[2] = [0.1, 0.05, 0.8, 0.05, 0.0]
    found = find_entities(text, words, [-1, 0, 1, -1, 2, 3, 4, -1], rows, NAMES)
    assert [(e["entity"], e["start"], e["end"], e["text"]) for e in found] == [
        ("per", 0, 12, "Ada Lovelace"),
        ("loc", 17, 23, "London"),
    ]
    assert found[0]["score"] == pytest.approx((0.6 + 0.8) / 2)


def test_any_tags_mean_something_and_a_word_without_a_token_ends_an_entity() -> None:
    words = [(0, 1), (2, 3), (4, 5), (6, 7)]
    found = find_entities("a b c d", words, [0, 1, 2, 3], probabilities([2, 4, 4, 1]), NAMES)
    assert [(e["entity"], e["text"]) for e in found] == [("per", "a"), ("loc", "b c"), ("per", "d")]
    found = find_entities("a b c d", words, [0, 2, 3], probabilities([1, 2, 2]), NAMES)
    assert [(e["entity"], e["text"]) for e in found] == [("per", "a"), ("per", "c d")]
    assert find_entities("", [], [-1, -1], probabilities([1, 1]), NAMES) == []


class FakeEngine:
    """Logits 5 for the tag of each id."""

    isa, threads = "fake", 1

    def forward(self, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]]) -> np.ndarray:
        flat = [TAGS.get(token, 0) for row in ids for token in row]
        return (np.eye(5, dtype=np.float32) * 5)[flat]

    def close(self) -> None: ...


def model(max_length: int = 8) -> Model:
    backend = Backend(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    names = {str(i): name for i, name in enumerate(NAMES)}
    task = TaskSpec("token_classification", "entity_f1", False)
    config = ArtifactConfig({"id2label": names, "head": "tokens"}, "test", ActivationSpec(), task, max_length, {})
    return Model("some/artifact", config, Tokenizer(backend), FakeEngine())


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_texts_of_any_length_in_any_batch(batch_size: int) -> None:
    texts = ["London", "x, Ada Lovelace", "", "in", "Ada in London, Ada"]
    found = model()(texts, batch_size=batch_size)
    assert [[(e["entity"], e["start"], e["end"]) for e in of_text] for of_text in found] == [
        [("loc", 0, 6)],
        [("per", 3, 15)],
        [],
        [],
        [("per", 0, 3), ("loc", 7, 13), ("per", 15, 18)],
    ]
    assert model()(texts[1]) == found[1]
    assert [row["entities"] for row in model().predict(texts, batch_size)] == found
    assert model().logits(texts).shape == (3 + 6 + 2 + 3 + 7, 5)


def test_chunks_keep_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["in " * (i % 4) + "London" for i in range(9)]
    whole = model()(texts)
    monkeypatch.setattr(forward, "CHUNK_TEXTS", 2)
    assert model()(texts) == whole
    assert [of_text[0]["start"] for of_text in whole] == [3 * (i % 4) for i in range(9)]


def test_cut_texts() -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 4 tokens; the ends of those were not read"):
        assert model(4)(["in in London", "London"])[0] == []
    assert [row.get("truncated") for row in model(4).predict(["in in London", "London"])] == [True, None]


def test_evaluation_counts_every_word() -> None:
    words = [[(0, 3), (4, 12), (13, 15)], [(0, 2), (3, 5), (6, 12)]]
    labels = np.array([1, 2, 0, 0, 0, 3])
    data = Dataset(["Ada Lovelace in", "in in London"], None, labels, NAMES, "data", "", words=words)
    found: dict[str, Any] = model().evaluate(data)
    assert (found["metric"], found["value"], found["n"], found["unread_words"]) == ("entity_f1", 1, 2, 0)
    found = model(4).evaluate(data)
    assert (found["metrics"]["recall/loc"], found["metrics"]["recall/per"], found["unread_words"]) == (0, 1, 2)
