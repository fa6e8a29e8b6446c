"""A task that a two-layer encoder learns in seconds: sentences whose one telling word decides the label."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.encoder.names import to_hf_name
from bitpress.recipes.runner import compress, finetune
from bitpress.recipes.schema import load_recipe

GOOD = ["lovely", "superb", "brilliant", "charming", "delightful"]
BAD = ["awful", "dull", "clumsy", "tedious", "horrid"]
FILLER = [
    *("the", "a", "film", "plot", "actor", "scene", "was", "is", "with", "and", "of"),
    *("it", "this", "that", "very", "quite", "some", "one", "two", "at", "in"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_encoder(folder: Path, *, hidden: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """A random BERT encoder (Hugging Face layout, no head) with a vocabulary of the words above."""
    vocabulary = SPECIAL + GOOD + BAD + FILLER
    config = EncoderConfig.from_hf(
        {
            "model_type": "bert",
            "vocab_size": len(vocabulary),
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "intermediate_size": 2 * hidden,
            "max_position_embeddings": 64,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "initializer_range": 0.2,  # wide, so that a few dozen steps are enough
        }
    )
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_hf() | {"architectures": ["BertModel"]}))
    model = SequenceClassifier(config, seed)
    save_file(
        {to_hf_name(name): tensor.clone() for name, tensor in model.state_dict().items() if "classifier" not in name},
        folder / "model.safetensors",
    )
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64})
    )
    return folder


def write_sentiment(path: Path, rows: int, seed: int) -> Path:
    """Labelled sentences, tab-separated with a header."""
    rng = np.random.default_rng(seed)
    lines = ["sentence\tlabel"]
    for _ in range(rows):
        good = bool(rng.integers(2))
        words = list(rng.choice(FILLER, rng.integers(2, 12)))
        words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(GOOD if good else BAD)))
        lines.append(f"{' '.join(words)}\t{'positive' if good else 'negative'}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_tagged(path: Path, rows: int, seed: int) -> Path:
    """CoNLL columns: a good word, and maybe one of the last two good ones behind it, is an entity "hero"; of bad words
    it is a "villain". So each word says which tag it has."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        for _ in range(int(rng.integers(1, 4))):
            lines += [f"{word} O" for word in rng.choice(FILLER, rng.integers(1, 5))]
            label, names = ("hero", GOOD) if rng.integers(2) else ("villain", BAD)
            run = [rng.choice(names[:3]), *rng.choice(names[3:], rng.integers(2))]
            lines += [f"{word} {'I' if i else 'B'}-{label}" for i, word in enumerate(run)]
        lines.append("")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_questions(path: Path, rows: int, seed: int, unanswerable: bool = False) -> Path:
    """SQuAD's JSON, a question a context. A context has a good word and a bad one, each maybe with another of its kind
    behind it; "film" asks for the good ones, "plot" for the bad ones, and where some are ``unanswerable`` "actor" for
    what is not there."""
    rng = np.random.default_rng(seed)
    paragraphs = []
    for number in range(rows):
        parts: list[str] = []
        answers = []
        for names in (GOOD, BAD) if rng.integers(2) else (BAD, GOOD):
            run = " ".join([rng.choice(names[:3]), *rng.choice(names[3:], rng.integers(2))])
            parts += [str(word) for word in rng.choice(FILLER, rng.integers(1, 6))]
            answers.append((names is GOOD, {"text": run, "answer_start": len(" ".join([*parts, ""]))}))
            parts.append(run)
        parts += [str(word) for word in rng.choice(FILLER, rng.integers(0, 4))]
        asks = str(rng.choice(["film", "plot", "actor"] if unanswerable else ["film", "plot"]))
        found = [answer for is_good, answer in answers if asks == ("film" if is_good else "plot")]
        qa = {"id": f"q{number}", "question": f"this {asks}", "answers": found}
        if unanswerable:
            qa["is_impossible"] = not found
        paragraphs.append({"context": " ".join(parts), "qas": [qa]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


def write_scores(path: Path, rows: int, seed: int) -> Path:
    """Pairs of sentences with the share of telling words that are good, for regression."""
    rng = np.random.default_rng(seed)
    lines = ["sentence1\tsentence2\tscore"]
    for _ in range(rows):
        good = rng.integers(2, size=2)
        texts = [f"{rng.choice(FILLER)} {rng.choice(GOOD if one else BAD)} {rng.choice(FILLER)}" for one in good]
        lines.append("\t".join([*texts, f"{good.mean():.2f}"]))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_similar(path: Path, rows: int, seed: int, scored: bool = True) -> Path:
    """Pairs of sentences that are near, 5 of 5, where both say good or both say bad, else far, 0; or, not ``scored``,
    pairs that share their one telling word."""
    rng = np.random.default_rng(seed)
    lines = ["sentence1\tsentence2\tscore" if scored else "anchor\tpositive"]

    def sentence(word: str) -> str:
        return f"{rng.choice(FILLER)} {word} {' '.join(rng.choice(FILLER, rng.integers(1, 4)))}"

    for _ in range(rows):
        one, two = rng.integers(2, size=2)
        words = [str(rng.choice(GOOD if good else BAD)) for good in (one, two)]
        if scored:
            lines.append(f"{sentence(words[0])}\t{sentence(words[1])}\t{5.0 if one == two else 0.0}")
        else:
            lines.append(f"{sentence(words[0])}\t{sentence(words[0])}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_label_sets(path: Path, rows: int, seed: int) -> Path:
    """Sentences labelled "good" where a good word is in them, and "bad" where a bad one is: none, one or both."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        words = [str(word) for word in rng.choice(FILLER, rng.integers(2, 6))]
        labels = [name for name in ("good", "bad") if rng.integers(2)]
        for name in labels:
            words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(GOOD if name == "good" else BAD)))
        lines.append(json.dumps({"text": " ".join(words), "labels": labels}))
    path.write_text("\n".join(lines) + "\n")
    return path


FAST = {"epochs": 10, "learning_rate": 3e-3, "batch_tokens": 256, "evaluate_every": 20}
FAST_COMPRESS = {"epochs": 4, "learning_rate": 2e-3, "batch_tokens": 256, "evaluate_every": 20}


@dataclass(frozen=True)
class Learned:
    """A task, and a teacher of it with what ``finetune`` returned."""

    encoder: Path
    train: Path
    dev: Path
    teacher: Path
    score: Any


def learn(task: str, folder: Path, train: Path, dev: Path, **overrides: Any) -> Learned:
    """A teacher in ``folder`` of the data in the files ``train`` and ``dev``."""
    encoder = write_encoder(folder / "encoder")
    found = finetune(
        encoder, task=task, train=train, dev=dev, out=folder / "teacher", overrides=FAST | overrides, quiet=True
    )
    return Learned(encoder, train, dev, folder / "teacher", found)


def press_briefly(learned: Learned, recipe: str, out: Path, student: str = "1x32") -> Any:
    """A few steps of any recipe, whose engine must say what its student says: as many logits as were compared have the
    same bits where the student is replayed in the engine's arithmetic, and are near where it is not. ``student``: of
    tinybert."""
    overrides: dict[str, Any] = {"max_steps": 3, "evaluate_every": 3, "batch_tokens": 256}
    if not load_recipe(recipe).trains:
        overrides = {}
    if recipe == "tinybert":
        overrides |= {"student.init": student}
    result = compress(
        learned.teacher, recipe=recipe, train=learned.train, dev=learned.dev, out=out, overrides=overrides, quiet=True
    )
    assert result.artifact is not None
    check = result.artifact["engine_vs_student"]
    if check["arithmetic"] == "engine":
        # An fma of the replay is rounded twice, so a token in very many may differ (numerics.md, point 5).
        assert check["identical_logits"] == check["n"]
    else:
        assert check["max_logit_difference"] < 0.25
    return result
