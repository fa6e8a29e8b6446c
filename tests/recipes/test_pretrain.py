"""General distillation on raw text, and students of other shapes from there to artifacts.

Oracles: the texts themselves for the packed corpus; an undisturbed run for a stopped one; random students for distilled
ones.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch
import transformers
from safetensors.torch import load_file

from bitpress.artifact import read_artifact, verify
from bitpress.encoder import MaskedLanguageHead, load_classifier, load_extra_tensors
from bitpress.errors import DataError, RecipeError, TrainingError
from bitpress.recipes.corpus import corpus_files, packed_corpus, split_off
from bitpress.recipes.pretrain import PretrainResult
from bitpress.recipes.runner import compress, pretrain
from bitpress.recipes.schema import StudentChanges
from bitpress.recipes.student import init_projections, make_student
from bitpress.runtime.tokenization import Tokenizer
from bitpress.slim import StudentShape, fresh_student
from bitpress.train.running_stage import RunningStage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FAST = {"epochs": 4, "learning_rate": 3e-3, "batch_tokens": 256, "max_length": 24}


def write_corpus(path: Path, texts: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    words = tiny_task.FILLER + tiny_task.GOOD + tiny_task.BAD
    lines = [" ".join(rng.choice(words, rng.integers(1, 60))) for _ in range(texts)]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return lines


@pytest.fixture(scope="module")
def general(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("general")
    write_corpus(folder / "a.txt", 120, 1)
    write_corpus(folder / "b.txt.gz", 120, 2)
    torch.set_num_threads(1)  # as in every test here, which begin after this
    result = pretrain(
        tiny.encoder, corpus=[folder / "*.txt*"], student="1x16", out=folder / "general", overrides=FAST, quiet=True
    )
    return folder, result


def test_every_token_of_every_text_is_packed_once_and_in_order(tiny: Any, tmp_path: Path) -> None:
    texts = write_corpus(tmp_path / "a.txt", 50, 3) + write_corpus(tmp_path / "b.txt.gz", 50, 4)
    tokenizer = Tokenizer.from_directory(tiny.encoder)
    files = corpus_files([tmp_path / "*.txt*", tmp_path / "a.txt"])
    assert [path.name for path in files] == ["a.txt", "b.txt.gz"]
    packed = packed_corpus(files, tokenizer, 16, tmp_path / "cache", seed=1)
    first, last = tokenizer.encode([""])[0].ids
    sequences = [packed.input_ids[a:b] for a, b in zip(packed.offsets, packed.offsets[1:], strict=False)]
    assert all(s[0] == first and s[-1] == last for s in sequences)
    expected = [token for text in texts for token in tokenizer.encode([text], max_length=1000)[0].ids[1:-1]]
    assert np.concatenate([s[1:-1] for s in sequences]).tolist() == expected
    lengths = packed.lengths[:-1]
    assert lengths.max() == 16
    assert 0.02 < (lengths < 16).mean() < 0.3, "a small share is shorter"
    assert not packed.type_ids.any()
    again = packed_corpus(files, tokenizer, 16, tmp_path / "cache", seed=1)
    assert again.digest() == packed.digest()
    assert len(list((tmp_path / "cache").iterdir())) == 1, "read from the cache"
    assert packed_corpus(files, tokenizer, 16, tmp_path / "cache", seed=2).digest() != packed.digest()
    few = packed_corpus(files, tokenizer, 16, tmp_path / "cache", max_tokens=100, seed=1)
    assert 100 <= few.lengths.sum() < 116
    train, held_out = split_off(packed, 0.1, 5)
    assert (len(train), len(held_out)) == (len(packed) - 5, 5)
    assert np.array_equal(np.concatenate([train.input_ids, held_out.input_ids]), packed.input_ids)
    assert held_out.offsets[0] == 0


def test_corpora_without_text(tiny: Any, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(tiny.encoder)
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match="no text in it"):
        packed_corpus([tmp_path / "empty.txt"], tokenizer, 16, tmp_path / "cache")
    with pytest.raises(DataError, match="a path or a glob of text files"):
        corpus_files([tmp_path / "none*.txt"])
    (tmp_path / "one.txt").write_text("the film\n")
    with pytest.raises(DataError, match="at least two are needed"):
        split_off(packed_corpus([tmp_path / "one.txt"], tokenizer, 16, tmp_path / "cache"), 0.1, 5)


def test_a_general_student_has_learned_and_keeps_its_projection(tiny: Any, general: Any) -> None:
    folder, result = general
    assert result.model == "student 1x16"
    untrained = pretrain(
        tiny.encoder,
        corpus=[folder / "*.txt*"],
        student="1x16",
        out=folder / "untrained",
        overrides=FAST | {"learning_rate": 1e-12, "max_steps": 1},
        quiet=True,
    )
    assert result.metrics["total"] < 0.9 * untrained.metrics["total"]
    assert result.metrics.keys() == {"attention", "hidden", "total", "minus_held_out_loss"}
    stored = load_file(folder / "general" / "model.safetensors")
    assert stored["fit_dense.weight"].shape == (32, 16)
    assert not any(name.startswith(("pooler", "classifier")) for name in stored)
    student = load_classifier(folder / "general", num_labels=2)
    projections = init_projections(StudentChanges(init=str(folder / "general")), student)
    assert projections is not None
    assert torch.equal(projections.maps[0].weight, stored["fit_dense.weight"])
    assert result.parameters == sum(
        p.numel() for n, p in student.named_parameters() if not n.startswith(("pooler", "classifier"))
    )
    again = pretrain(
        tiny.encoder, corpus=[folder / "*.txt*"], student="1x16", out=folder / "general", overrides=FAST, quiet=True
    )
    assert again == result, "finished is not repeated"


def test_a_student_of_a_shape_may_start_with_its_teachers_embeddings(tiny: Any, general: Any) -> None:
    folder, _ = general

    def run(name: str, student: str = "1x16", **more: Any) -> PretrainResult:
        overrides = FAST | {"learning_rate": 1e-12, "max_steps": 1} | more
        out = folder / name
        return pretrain(
            tiny.encoder, corpus=[folder / "*.txt*"], student=student, out=out, overrides=overrides, quiet=True
        )

    taken = fresh_student(load_classifier(tiny.encoder), StudentShape(1, 16), 0, "teacher").embeddings.word.weight
    run("taken", embeddings="teacher")
    stored = load_file(folder / "taken" / "model.safetensors")["embeddings.word_embeddings.weight"]
    torch.testing.assert_close(stored, taken.detach())
    made = make_student(StudentChanges(init="1x16", embeddings="teacher"), tiny.teacher, None, 0)
    theirs = fresh_student(load_classifier(tiny.teacher), StudentShape(1, 16), 0, "teacher")
    assert torch.equal(made.embeddings.word.weight, theirs.embeddings.word.weight)
    for changes in (StudentChanges(embeddings="teacher"), StudentChanges(init=str(tiny.teacher), embeddings="teacher")):
        with pytest.raises(RecipeError, match=r"for a student\.init of a shape"):
            make_student(changes, tiny.teacher, None, 0)
    with pytest.raises(RecipeError, match="of the encoder's own layers has them"):
        run("layers", student="1", embeddings="teacher")


def test_a_stopped_run_ends_in_the_same_bytes(tiny: Any, general: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = general
    monkeypatch.setattr("bitpress.train.running_stage.CHECKPOINT_SHARE", 1e9)
    train_step = RunningStage._train_step

    def stop(stage: RunningStage) -> None:
        if stage.resumed_from is None and stage.step == 9:
            raise KeyboardInterrupt
        train_step(stage)

    monkeypatch.setattr(RunningStage, "_train_step", stop)
    arguments: dict[str, Any] = {
        "corpus": [folder / "*.txt*"],
        "student": "1x16",
        "out": folder / "stopped",
        "overrides": FAST | {"checkpoint_seconds": 0.0},
        "quiet": True,
    }
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny.encoder, **arguments)
    pretrain(tiny.encoder, **(arguments | {"overrides": FAST}))  # how often it is checkpointed is of no account
    assert (folder / "stopped" / "model.safetensors").read_bytes() == (
        folder / "general" / "model.safetensors"
    ).read_bytes()


def test_a_head_for_masks(tiny: Any, tmp_path: Path) -> None:
    """Words here are random, so a head can learn no more than their frequencies; with a text that repeats one word it
    learns that word."""
    (tmp_path / "film.txt").write_text("film film film film film film\n" * 200 + "plot\n")
    arguments: dict[str, Any] = {"corpus": [tmp_path / "film.txt"], "task": "mlm", "overrides": FAST, "quiet": True}
    result = pretrain(tiny.encoder, out=tmp_path / "mlm", **arguments)
    assert result.metrics["masked_accuracy"] > 0.9
    assert result.metrics["masked_loss"] < 2.5 < np.log(41), "below that of an even guess over the vocabulary"
    body, source = load_file(tmp_path / "mlm" / "model.safetensors"), load_file(tiny.encoder / "model.safetensors")
    assert all(
        torch.equal(tensor, source[f"bert.{name}"]) for name, tensor in body.items() if "predictions" not in name
    )
    model = transformers.BertForMaskedLM.from_pretrained(tmp_path / "mlm").eval()
    ours = load_classifier(tmp_path / "mlm")
    head = MaskedLanguageHead.from_tensors(load_extra_tensors(tmp_path / "mlm", "cls.predictions."), ours.config)
    ids = torch.arange(5, 14)[None]
    with torch.no_grad():
        expected = model(ids).logits[0]
        torch.testing.assert_close(
            head(ours.encode(ids)[0][0], ours.embeddings.word.weight), expected, rtol=1e-4, atol=1e-5
        )
    trained = pretrain(
        tiny.encoder, out=tmp_path / "body", **(arguments | {"overrides": FAST | {"train_body": True, "max_steps": 3}})
    )
    assert trained.parameters > 2 * result.parameters
    assert not torch.equal(
        load_file(tmp_path / "body" / "model.safetensors")["embeddings.word_embeddings.weight"],
        body["embeddings.word_embeddings.weight"],
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"task": "mlm", "student": "1x16"}, "--student is a shape"),
        ({"task": "distill"}, "--student is a shape"),
        ({"task": "other"}, "task is 'other'; allowed: distill, mlm"),
        ({"task": "mlm", "overrides": {"layer_map": "top"}}, "--set layer_map: no such setting of task 'mlm'"),
        ({"task": "mlm", "overrides": {"mask_share": 1.5}}, "--set mask_share: .* allowed: above 0 and below 1"),
        ({"student": "1x16", "overrides": {"epochs": -1}}, "epochs is -1"),
    ],
)
def test_what_cannot_be_asked_for(tiny: Any, tmp_path: Path, arguments: dict[str, Any], text: str) -> None:
    (tmp_path / "a.txt").write_text("the film\n")
    with pytest.raises((RecipeError, TrainingError), match=text):
        pretrain(tiny.encoder, corpus=[tmp_path / "a.txt"], out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out.run").exists()


TINY = {"epochs": 8, "learning_rate": 3e-3, "batch_tokens": 256, "evaluate_every": 20}


@pytest.mark.parametrize(
    ("recipe", "schemes", "more"),
    [
        ("tinybert", {"fp32"}, {}),
        ("tinybert", {"fp32"}, {"projection": "per_state", "layer_map": [2]}),
        ("tinybert+int8", {"uniform"}, {}),
        ("tinybert+ternarybert", {"ternary"}, {}),
        ("tinybert+bibert", {"binary"}, {"distill.distill.similarity": 0}),
    ],
    ids=["fp32", "per-state", "int8", "ternary", "binary"],
)
def test_a_small_student_is_frozen_and_measured(
    tiny: Any, general: Any, tmp_path: Path, recipe: str, schemes: set[str], more: dict[str, Any]
) -> None:
    overrides = TINY | {"student.init": str(general[0] / "general")} | more
    result = compress(
        tiny.teacher,
        recipe=recipe,
        train=tiny.train,
        dev=tiny.dev,
        out=tmp_path / "small",
        overrides=overrides,
        quiet=True,
    )
    assert result.artifact is not None
    assert result.artifact["value"] > result.artifact["majority"] + 0.1
    check = result.artifact["engine_vs_student"]
    assert check["arithmetic"] == ("torch" if schemes == {"fp32"} else "engine")
    if check["arithmetic"] == "engine":
        assert check["identical_logits"] == check["n"]
    else:
        assert check["max_logit_difference"] < 1e-4
    artifact = read_artifact(tmp_path / "small")
    assert (artifact.config.num_hidden_layers, artifact.config.hidden_size) == (1, 16)
    assert not any("projection" in name or "fit_dense" in name for name in artifact.config.tensors)
    assert {s.scheme for n, s in artifact.config.tensors.items() if n.startswith("layers.0.ffn.output.w")} == schemes
    assert verify(tmp_path / "small")["ok"]


def test_half_of_the_teachers_layers(tiny: Any, tmp_path: Path) -> None:
    result = compress(
        tiny.teacher,
        recipe="distilbert+int8",
        train=tiny.train,
        dev=tiny.dev,
        out=tmp_path / "half",
        overrides=TINY,
        quiet=True,
    )
    assert result.artifact is not None
    assert result.artifact["value"] > result.artifact["majority"] + 0.1
    assert read_artifact(tmp_path / "half").config.num_hidden_layers == 1


def test_students_that_cannot_be_compared(tiny: Any, general: Any, tmp_path: Path) -> None:
    def press(**overrides: Any) -> None:
        compress(
            tiny.teacher,
            recipe="tinybert",
            train=tiny.train,
            dev=tiny.dev,
            out=tmp_path / "small",
            overrides=TINY | {key.replace("__", "."): value for key, value in overrides.items()},
            quiet=True,
        )

    with pytest.raises(RecipeError, match=r"distill\.projection is 'none', but hidden states have 16 columns"):
        press(student__init="2x16", projection="none")
    with pytest.raises(RecipeError, match="the student has 3 layers and the teacher 2"):
        press(student__init="3x16", layer_map="top")
    with pytest.raises(RecipeError, match="is no shape of a student"):
        press(student__init=str(tmp_path / "nowhere"))
    with pytest.raises(RecipeError, match=r"student\.init and student\.layers are both given"):
        press(student__init="2x16", student__layers=1)
    other = tiny_task.write_encoder(tmp_path / "other", hidden=16)
    vocabulary = (other / "vocab.txt").read_text().split()
    (other / "vocab.txt").write_text("\n".join([*vocabulary[:-2], *reversed(vocabulary[-2:])]) + "\n")
    with pytest.raises(TrainingError, match="do not read the same tokens"):
        press(student__init=str(other))
