"""Tags of words and the entities that they spell, in three schemes (Ramshaw and Marcus 1995, arXiv cmp-lg/9505040;
Tjong Kim Sang and Veenstra 1999, arXiv cs/9907006; Ratinov and Roth 2009, whose BILOU is BIOES by other letters).

| | an entity of one word | of three | right behind one of its own label |
|---|---|---|---|
| IOB1 | I | I I I | begins with B |
| IOB2 | B | B I I | B |
| BIOES | S | B I E | B or S |

Files may hold any of them; models and everything after the readers know IOB2 only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
PREFIXES = ("B", "I", "E", "S")


class Entity(NamedTuple):
    """Words ``start`` … ``end`` − 1 of a sentence."""

    label: str
    start: int
    end: int


def split_tag(tag: str) -> tuple[str, str]:
    """``"B-person"`` → ``("B", "person")``, ``"O"`` → ``("O", "")``; ValueError for what is no tag."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, label = tag.partition("-")
    if prefix not in PREFIXES or not dash or not label:
        raise ValueError(f"{tag[:60]!r} is no tag; allowed: O, or one of B-, I-, E-, S- and a label, as in B-person")
    return prefix, label


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one sentence's tags in any scheme, read as conlleval (and seqeval by default) reads them: what
    cannot continue an entity begins one, so that every sequence of tags means something. A model may predict any."""
    found: list[Entity] = []
    before, label_before = OUTSIDE, ""
    for i, tag in enumerate(tags):
        prefix, label = split_tag(tag)
        if prefix == OUTSIDE:
            pass
        elif _continues(before, label_before, prefix, label):
            found[-1] = found[-1]._replace(end=i + 1)
        else:
            found.append(Entity(label, i, i + 1))
        before, label_before = prefix, label
    return found


def _continues(before: str, label_before: str, prefix: str, label: str) -> bool:
    return before in ("B", "I") and prefix in ("I", "E") and label == label_before


def to_iob2(spans: Iterable[Entity], length: int) -> list[str]:
    """Tags of ``length`` words with these entities, which do not overlap."""
    tags = [OUTSIDE] * length
    for label, start, end in spans:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tags


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """ "IOB1", "IOB2" or "BIOES": what a file's sentences are in. BIOES where there is an E or S; IOB1 where entities
    begin with I, and with B only behind one of the same label; else IOB2."""
    begun_by_i = begun_by_b = False
    for tags in sentences:
        label_before = ""
        for tag in tags:
            prefix, label = split_tag(tag)
            if prefix in ("E", "S"):
                return "BIOES"
            if label and label != label_before:
                begun_by_i |= prefix == "I"
                begun_by_b |= prefix == "B"
            label_before = label
    return "IOB1" if begun_by_i and not begun_by_b else "IOB2"


def first_violation(tags: Sequence[str], scheme: str) -> tuple[int, str] | None:
    """The first word whose tag ``scheme`` does not allow there, and what is wrong and to be done; None: all are right.

    IOB1, as :func:`detect_scheme` says it, allows every sequence.
    """
    before, before_tag = OUTSIDE, OUTSIDE
    label_before = ""
    for i, tag in enumerate([*tags, OUTSIDE]):  # an entity also ends with the sentence
        prefix, label = split_tag(tag)
        continues = _continues(before, label_before, prefix, label)
        behind = f"behind {before_tag!r}" if i else "at the start of a sentence"
        if prefix in ("I", "E") and not continues and scheme != "IOB1":
            begin = f"'B-{label}'" + (f" or 'S-{label}'" if scheme == "BIOES" else "")
            return i, (
                f"found tag {tag!r} {behind}: in {scheme}, which the other tags of this file are in, an entity begins "
                f"with {begin}; correct the tag"
            )
        if scheme == "BIOES" and before in ("B", "I") and not continues:
            return i - 1, (
                f"found tag {before_tag!r}, and behind it nothing of the same entity: in BIOES, which the other tags "
                f"of this file are in, an entity ends with 'E-{label_before}' or 'S-{label_before}'; correct the tag"
            )
        before, label_before, before_tag = prefix, label, tag
    return None


def tag_names(labels: Iterable[str]) -> list[str]:
    """The classes of a model of these entities: O, then B and I of each label in alphabetical order."""
    return [OUTSIDE, *(f"{prefix}-{label}" for label in sorted(set(labels)) for prefix in ("B", "I"))]


def spell_entities(names: Sequence[str]) -> bool:
    """Whether a model's classes are those of IOB2. Others, such as parts of speech, are of each word alone."""
    try:
        check_tag_names(names)
    except ValueError:
        return False
    return True


def check_tag_names(names: Sequence[str]) -> None:
    """ValueError where a model's classes are not those of IOB2 in some order: O, and B and I of every label."""
    try:
        labels = {label for _, label in map(split_tag, names) if label}
    except ValueError as error:
        raise ValueError(f"class {error}") from None
    if not labels or sorted(names) != sorted(tag_names(labels)):
        raise ValueError(
            f"the classes are {', '.join(names[:12])}{', …' if len(names) > 12 else ''}; expected those of IOB2: O, "
            "and B- and I- of every label"
        )
