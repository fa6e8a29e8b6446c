"""Compression without a text. Oracles: the artifact that `compress` writes with labelled text, the replayed student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_task import write_encoder
from typer.testing import CliRunner

import bitpress
from bitpress.cli import app
from bitpress.errors import RecipeError, TrainingError
from bitpress.recipes.runner import compress, pack


def test_the_same_weights_as_with_labelled_text(tiny: Any, tmp_path: Path) -> None:
    result = pack(tiny.teacher, recipe="int4", out=tmp_path / "packed")
    compress(tiny.teacher, recipe="int4", dev=tiny.dev, out=tmp_path / "measured", quiet=True)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("packed", "measured")]
    assert weights[0] == weights[1]
    assert result.total_bytes == len(weights[0]) < result.fp32_bytes
    check = result.engine_vs_student
    assert (check["arithmetic"], check["unit"]) == ("engine", "texts")
    assert check["identical_logits"] == check["n"] == 64
    card = (tmp_path / "packed" / "README.md").read_text()
    assert "how well it answers was not measured" in card
    with bitpress.load(tmp_path / "packed") as model:
        assert model("good film")["label"] in model.labels


def test_tags_that_spell_no_entities(tmp_path: Path) -> None:
    """A tagger of parts of speech from transformers: every word is answered, with its tag."""
    encoder = write_encoder(tmp_path / "encoder")
    torch.manual_seed(0)
    tags = ["NOUN", "VERB", "ADJ"]
    config = transformers.BertConfig.from_pretrained(encoder, id2label=dict(enumerate(tags)), initializer_range=0.5)
    transformers.BertForTokenClassification(config).save_pretrained(tmp_path / "tagger")
    for file in [*encoder.glob("*token*"), *encoder.glob("vocab.txt")]:
        (tmp_path / "tagger" / file.name).write_bytes(file.read_bytes())
    result = pack(tmp_path / "tagger", out=tmp_path / "small")
    assert result.engine_vs_student["unit"] == "tokens"
    assert result.engine_vs_student["identical_logits"] == result.engine_vs_student["n"] > 64
    with bitpress.load(tmp_path / "small") as model:
        found = model("good film")
    assert [one["text"] for one in found] == ["good", "film"]
    assert [(one["start"], one["end"]) for one in found] == [(0, 4), (5, 9)]
    assert all(one["entity"] in tags and 1 / 3 < one["score"] <= 1 for one in found)


def test_what_needs_text_says_so(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"recipe 'ternarybert' trains the student; give labelled text with --train"
    ):
        pack(tiny.teacher, recipe="ternarybert", out=tmp_path / "s")
    with pytest.raises(TrainingError, match=r"bits is 2/4, which is divided by .* with --set sensitivity=DIR"):
        pack(tiny.teacher, recipe="int4", out=tmp_path / "s", overrides={"bits": "2/4"})
    with pytest.raises(RecipeError, match="--set nothing: the recipe has no such key"):
        pack(tiny.teacher, recipe="int4", out=tmp_path / "s", overrides={"nothing": 1})
    assert not (tmp_path / "s").exists()


def test_command_line(tiny: Any, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["compress", str(tiny.teacher), "--recipe", "int8", *arguments])

    found = run("--out", str(tmp_path / "small"), "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["out"] == str(tmp_path / "small")
    assert "nothing was measured on text, for want of --dev; of 64 texts" in run("--out", str(tmp_path / "b")).stderr
    refused = run("--out", str(tmp_path / "other"), "--max-drop", "1")
    assert refused.exit_code != 0
    assert "--max-drop is given without --dev" in str(refused.exception) + refused.stderr
