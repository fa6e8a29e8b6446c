"""Schemes of tags. Oracles: seqeval for what tags spell, the definition of each scheme for how it spells them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitpress.data.tag_schemes import (
    Entity,
    check_tag_names,
    detect_scheme,
    entities,
    first_violation,
    split_tag,
    tag_names,
    to_iob2,
)

TAGS = ["O", *(f"{prefix}-{label}" for prefix in "BIES" for label in ("per", "loc"))]


@st.composite
def spans(draw: st.DrawFn) -> tuple[list[Entity], int]:
    """Entities that may touch, and the length of their sentence."""
    found, position = list[Entity](), 0
    for gap, length, label in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(["per", "loc"])), max_size=5)
    ):
        found.append(Entity(label, position + gap, position + gap + length))
        position += gap + length
    return found, position + draw(st.integers(0, 2))


def write(found: list[Entity], length: int, scheme: str) -> list[str]:
    tags = ["O"] * length
    for label, start, end in found:
        for i in range(start, end):
            touches = any(e.end == start and e.label == label for e in found)
            inside, last = i > start, i == end - 1
            prefix = {
                "IOB1": "B" if not inside and touches else "I",
                "IOB2": "I" if inside else "B",
                "BIOES": ("E" if last else "I") if inside else ("S" if last else "B"),
            }[scheme]
            tags[i] = f"{prefix}-{label}"
    return tags


@settings(deadline=None)  # the first call imports scikit-learn
@given(tags=st.lists(st.sampled_from(TAGS), max_size=12))
def test_any_tags_spell_what_seqeval_reads(tags: list[str]) -> None:
    labelling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    expected = [(label, start, end + 1) for label, start, end in labelling.get_entities(tags)]
    assert entities(tags) == sorted(expected, key=lambda entity: entity[1])


@given(marked=spans(), scheme=st.sampled_from(["IOB1", "IOB2", "BIOES"]))
def test_every_scheme_is_read_back_and_breaks_no_rule(marked: tuple[list[Entity], int], scheme: str) -> None:
    found, length = marked
    tags = write(found, length, scheme)
    assert entities(tags) == found
    assert to_iob2(found, length) == write(found, length, "IOB2")
    assert first_violation(tags, scheme) is None
    detected = detect_scheme([tags])
    assert first_violation(tags, detected) is None
    assert entities(tags) == found


def test_schemes_are_told_apart_by_the_whole_file() -> None:
    assert detect_scheme([["O", "I-per"], ["I-loc", "B-loc"]]) == "IOB1"
    assert detect_scheme([["B-per", "I-per"], ["B-loc", "B-loc"]]) == "IOB2"
    assert detect_scheme([["B-per", "I-per"], ["S-loc"]]) == "BIOES"
    assert detect_scheme([["O"], []]) == "IOB2"
    assert detect_scheme([["B-per"], ["I-per"]]) == "IOB2"  # the second is a mistake then


def test_the_first_violation_says_where_and_what_to_do() -> None:
    assert first_violation(["O", "I-per"], "IOB2") == (
        1,
        "found tag 'I-per' behind 'O': in IOB2, which the other tags of this file are in, an entity begins with "
        "'B-per'; correct the tag",
    )
    place, text = first_violation(["I-per"], "IOB2") or (9, "")
    assert (place, "at the start of a sentence" in text) == (0, True)
    place, text = first_violation(["B-per", "I-loc"], "IOB2") or (9, "")
    assert (place, "begins with 'B-loc'" in text) == (1, True)
    place, text = first_violation(["B-per", "O"], "BIOES") or (9, "")
    assert (place, "found tag 'B-per', and behind it nothing of the same entity" in text) == (0, True)
    assert "'E-per' or 'S-per'" in text
    place, text = first_violation(["S-per", "E-per"], "BIOES") or (9, "")
    assert (place, "begins with 'B-per' or 'S-per'" in text) == (1, True)
    place, _ = first_violation(["O", "B-per", "I-per"], "BIOES") or (9, "")
    assert place == 2


@pytest.mark.parametrize("tag", ["", "X-per", "B", "B-", "per", "b-per", "-per"])
def test_what_is_no_tag(tag: str) -> None:
    with pytest.raises(ValueError, match="is no tag; allowed: O, or one of B-, I-, E-, S- and a label"):
        split_tag(tag)


def test_labels_may_hold_dashes() -> None:
    assert split_tag("B-creative-work") == ("B", "creative-work")


def test_names_of_a_model() -> None:
    names = tag_names(["per", "loc", "per"])
    assert names == ["O", "B-loc", "I-loc", "B-per", "I-per"]
    check_tag_names(names[::-1])
    for wrong in (["O"], ["O", "B-per"], ["B-per", "I-per"], ["O", "B-per", "I-per", "S-per"]):
        with pytest.raises(ValueError, match="expected those of IOB2: O, and B- and I- of every label"):
            check_tag_names(wrong)
    with pytest.raises(ValueError, match="class 'LABEL_0' is no tag"):
        check_tag_names(["LABEL_0", "LABEL_1"])
