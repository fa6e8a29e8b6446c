"""Augmented files from end to end. Oracles: one mask at a time through transformers; an undisturbed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch
import transformers

from bitpress.augment import MaskedWords, Variation
from bitpress.data import get_task, read_dataset
from bitpress.encoder import MaskedLanguageHead, load_classifier, load_extra_tensors
from bitpress.errors import BitpressError, RecipeError
from bitpress.recipes.runner import augment, pretrain
from bitpress.runtime.tokenization import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def mlm(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlm")
    rng = np.random.default_rng(0)
    words = tiny_task.FILLER + tiny_task.GOOD + tiny_task.BAD
    (folder / "text.txt").write_text("\n".join(" ".join(rng.choice(words, 12)) for _ in range(60)) + "\n")
    overrides = {"max_steps": 10, "learning_rate": 1e-2, "batch_tokens": 256, "max_length": 24}
    pretrain(
        tiny.encoder, corpus=[folder / "text.txt"], task="mlm", out=folder / "mlm", overrides=overrides, quiet=True
    )
    return folder / "mlm"


def masked_words(mlm: Path, **options: int) -> MaskedWords:
    model = load_classifier(mlm)
    head = MaskedLanguageHead.from_tensors(load_extra_tensors(mlm, "cls.predictions."), model.config)
    return MaskedWords(model, head, Tokenizer.from_directory(mlm), **options)


SENTENCES = [["the", "film", "was", "lovely"], ["dull"], ["a", "plot", "unknownword", "with", "charming", "scene"]]
POSITIONS = [[1, 3], [0], [1, 2, 4, 5]]


def test_candidates_are_those_of_one_mask_at_a_time(mlm: Path) -> None:
    found = masked_words(mlm, count=6, masks_per_input=1).candidates(SENTENCES, POSITIONS)
    reference = transformers.BertForMaskedLM.from_pretrained(mlm).eval()
    tokenizer = Tokenizer.from_directory(mlm)
    words = tokenizer.words_by_id()
    for sentence, positions, candidates in zip(SENTENCES, POSITIONS, found, strict=True):
        ids = tokenizer.encode([" ".join(sentence)])[0].ids
        for position in positions:
            masked = list(ids)
            masked[position + 1] = 4  # [MASK]; every word here is one piece
            types = [0] * len(ids) + [1] * (len(ids) - 1)
            with torch.no_grad():
                logits = reference(torch.tensor([masked + ids[1:]]), token_type_ids=torch.tensor([types])).logits
            best = logits[0, position + 1].topk(6).indices.tolist()
            expected = tuple(words[t] for t in best if not words[t].startswith(("##", "[")))
            assert candidates.get(position, ()) == expected


def test_several_masks_at_once_answer_for_the_same_words(mlm: Path) -> None:
    one, four = (masked_words(mlm, masks_per_input=n).candidates(SENTENCES, POSITIONS) for n in (1, 4))
    assert [found.keys() for found in one] == [found.keys() for found in four]


def test_rows_and_their_variants(tiny: Any, mlm: Path, tmp_path: Path) -> None:
    result = augment(tiny.train, out=tmp_path / "aug.jsonl", mlm=mlm, variation=Variation(5), seed=3, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "aug.jsonl").read_text().splitlines()]
    assert (result.rows, result.written) == (400, len(lines))
    source = read_dataset(tiny.train, get_task("classification"))
    assert source.labels is not None
    by_row: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        by_row.setdefault(line["source_row"], []).append(line)
    assert sorted(by_row) == list(range(400))
    for row, versions in by_row.items():
        assert [v["variant"] for v in versions] == list(range(len(versions)))
        assert versions[0]["text"] == source.texts[row]
        assert {v["label"] for v in versions} == {source.label_names[int(source.labels[row])]}
        assert len({v["text"] for v in versions}) == len(versions) <= 6
        assert all(len(v["text"].split()) == len(source.texts[row].split()) for v in versions)
        assert {v["seed"] for v in versions} == {3}
    assert np.mean([len(v) for v in by_row.values()]) > 4
    again = read_dataset(tmp_path / "aug.jsonl", get_task("classification"), label_names=source.label_names)
    assert len(again) == result.written
    before = (tmp_path / "aug.jsonl").stat().st_mtime_ns
    assert (
        augment(tiny.train, out=tmp_path / "aug.jsonl", mlm=mlm, variation=Variation(5), seed=3, quiet=True) == result
    )
    assert (tmp_path / "aug.jsonl").stat().st_mtime_ns == before, "finished is not repeated"


def test_a_pair_is_varied_one_text_at_a_time(mlm: Path, tmp_path: Path) -> None:
    train = tiny_task.write_scores(tmp_path / "pairs.tsv", 30, seed=1)
    augment(train, out=tmp_path / "aug.jsonl", mlm=mlm, task="regression", variation=Variation(3), quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "aug.jsonl").read_text().splitlines()]
    originals = {line["source_row"]: line for line in lines if line["variant"] == 0}
    assert len(originals) == 30
    changed = [
        {key for key in ("text1", "text2") if line[key] != originals[line["source_row"]][key]}
        for line in lines
        if line["variant"]
    ]
    assert {"text1"} in changed
    assert {"text2"} in changed
    assert all(len(keys) == 1 for keys in changed)
    assert len({(line["text1"], line["text2"], line["source_row"]) for line in lines}) == len(lines)
    again = read_dataset(tmp_path / "aug.jsonl", get_task("regression"))
    assert again.labels is not None
    assert again.labels.dtype == np.float32


def test_words_of_several_pieces_have_neighbours(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("lovely 1 0\nsuperb 0.9 0.1\nawful -1 0\n")
    (tmp_path / "one.tsv").write_text("text\tlabel\nlovely film\tgood\nawful film\tbad\n")
    result = augment(
        tmp_path / "one.tsv",
        out=tmp_path / "aug.jsonl",
        vectors=tmp_path / "v.txt",
        tokenizer=tiny.encoder,
        candidates=1,
        variation=Variation(9, 1.0),
        quiet=True,
    )
    lines = [json.loads(line) for line in (tmp_path / "aug.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == ["lovely film", "superb film", "awful film", "superb film"]
    assert result.written == 4


def test_stopped_anywhere_it_ends_in_the_same_bytes(
    tiny: Any, mlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"mlm": mlm, "variation": Variation(2), "quiet": True}
    augment(tiny.train, out=tmp_path / "calm.jsonl", **arguments)
    monkeypatch.setattr("bitpress.recipes.augmentation.ROWS_AT_ONCE", 50)
    replace, calls = Path.replace, [0]

    def stop(self: Path, target: Path) -> Path:
        calls[0] += 1
        if calls[0] == 4:  # the lines are written, that they are is not
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        augment(tiny.train, out=tmp_path / "stopped.jsonl", **arguments)
    with (tmp_path / "stopped.jsonl").open("a") as file:
        file.write('{"text": "half a li')
    augment(tiny.train, out=tmp_path / "stopped.jsonl", **arguments)
    assert (tmp_path / "stopped.jsonl").read_bytes() == (tmp_path / "calm.jsonl").read_bytes()


def test_refusals(tiny: Any, mlm: Path, tmp_path: Path) -> None:
    out = tmp_path / "aug.jsonl"
    with pytest.raises(RecipeError, match="give --mlm, --vectors or both"):
        augment(tiny.train, out=out)
    with pytest.raises(RecipeError, match="give --tokenizer"):
        augment(tiny.train, out=out, vectors=tmp_path / "v.txt")
    with pytest.raises(BitpressError, match=r"'cls\.predictions\.\S+' is missing"):
        augment(tiny.train, out=out, mlm=tiny.encoder, quiet=True)
    assert not out.exists()
    out.write_text("mine\n")
    with pytest.raises(BitpressError, match="exists already"):
        augment(tiny.train, out=out, mlm=mlm)
    assert out.read_text() == "mine\n"
    out.unlink()
    augment(tiny.train, out=out, mlm=mlm, variation=Variation(0), quiet=True)
    with pytest.raises(BitpressError, match="is of other settings"):
        augment(tiny.train, out=out, mlm=mlm, variation=Variation(1), quiet=True)
