"""Question answering on a tiny model, from SQuAD's JSON to answers with character offsets.

Oracles: the student replayed in the engine's arithmetic, for every recipe; losses by their definition.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch
from tiny_task import Learned
from typer.testing import CliRunner

import bitpress
from bitpress.artifact import SpanSpec, read_artifact
from bitpress.bench.worker import load_checkpoint
from bitpress.cli import app
from bitpress.data import get_task, read_dataset
from bitpress.encoder import load_classifier, model_loss
from bitpress.errors import RecipeError, TrainingError
from bitpress.recipes import evaluation
from bitpress.recipes.evaluation import evaluate_checkpoint, evaluated, evaluation_note, logits_of, scored
from bitpress.recipes.inputs import some_questions, tokenize, unread_note
from bitpress.recipes.measured_sensitivity import scores_of
from bitpress.recipes.runner import augment, compress, finetune, pack, post_training_artifact, sensitivity
from bitpress.recipes.schema import Distillation, StudentChanges, list_recipes
from bitpress.recipes.student import make_student
from bitpress.recipes.teaching import Teaching
from bitpress.runtime.tokenization import Tokenizer
from bitpress.sensitivity import SensitivitySettings
from bitpress.train import collate

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
QA = get_task("qa")


def make(folder: Path, unanswerable: bool) -> Learned:
    train = tiny_task.write_questions(folder / "train.json", 400, 1, unanswerable)
    dev = tiny_task.write_questions(folder / "dev.json", 80, 2, unanswerable)
    return tiny_task.learn("qa", folder, train, dev, epochs=8)


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    return make(tmp_path_factory.mktemp("qa"), unanswerable=False)


@pytest.fixture(scope="module")
def open_qa(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    return make(tmp_path_factory.mktemp("open"), unanswerable=True)


@pytest.fixture(scope="module")
def small(qa: Learned, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compress(qa.teacher, recipe="int8", dev=qa.dev, out=tmp_path_factory.mktemp("small") / "small", quiet=True)


def data_of(qa: Learned, **spans: int) -> tuple[Any, Any]:
    """The dev data and its windows."""
    data = read_dataset(qa.dev, QA)
    return data, tokenize(Tokenizer.from_directory(qa.teacher), data, 64, 0, SpanSpec(**spans))


def test_the_teacher_learns_and_knows_how_it_reads(qa: Learned) -> None:
    assert (qa.score.metric, qa.score.n, qa.score.majority) == ("f1", 80, 0)
    assert qa.score.value > 0.9
    assert list(qa.score.metrics) == ["f1", "exact_match"]
    config = json.loads((qa.teacher / "config.json").read_text())
    assert config["architectures"] == ["BertForQuestionAnswering"]
    assert config["id2label"] == {"0": "start", "1": "end"}
    assert config["bitpress"] == {"task": "qa", "max_length": 64, "spans": dataclasses.asdict(SpanSpec())}
    again = evaluate_checkpoint(qa.teacher, qa.dev)
    assert (again["metrics"], again["cut_questions"]) == (qa.score.metrics, 0)


def test_no_answer_is_learned_and_its_threshold_travels(open_qa: Learned, tmp_path: Path) -> None:
    metrics = open_qa.score.metrics
    assert metrics["f1"] == metrics["best_f1"] > 0.9
    assert metrics["no_answer/f1"] > 0.8
    assert open_qa.score.majority == pytest.approx(sum(not a for a in read_dataset(open_qa.dev, QA).answers or ()) / 80)
    own = json.loads((open_qa.teacher / "config.json").read_text())["bitpress"]["spans"]
    assert own["no_answer_threshold"] == metrics["no_answer_threshold"]
    assert evaluate_checkpoint(open_qa.teacher, open_qa.dev)["metrics"] == metrics
    out = compress(open_qa.teacher, recipe="int8", dev=open_qa.dev, out=tmp_path / "s", quiet=True)
    assert out.artifact is not None
    spans = read_artifact(tmp_path / "s").config.task.spans
    assert spans is not None
    assert spans.no_answer_threshold == out.student["metrics"]["no_answer_threshold"]
    assert out.artifact["metrics"] == pytest.approx(out.student["metrics"])
    with bitpress.load(tmp_path / "s") as model:
        found = model.evaluate(read_dataset(open_qa.dev, QA))
        assert found["metrics"] == out.artifact["metrics"]
        assert model(question="this actor", context="the superb film and a dull plot")["answer"] == ""
        assert model(question="this film", context="the superb film and a dull plot")["answer"] == "superb"


def test_a_checkpoint_of_others_abstains_at_zero(open_qa: Learned, tmp_path: Path) -> None:
    """It has no threshold of its own: 0 where the data has questions without an answer, none where it has not."""
    other = tmp_path / "other"
    other.mkdir()
    for file in open_qa.teacher.iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / "config.json").read_text())
    del config["bitpress"]
    (other / "config.json").write_text(json.dumps(config))
    assert evaluate_checkpoint(other, open_qa.dev)["metrics"]["no_answer_threshold"] == 0
    only = tiny_task.write_questions(tmp_path / "all.json", 10, 3)
    assert list(evaluate_checkpoint(other, only)["metrics"]) == ["f1", "exact_match"]


def test_the_loss_of_windows_leaves_padding_out(qa: Learned) -> None:
    model = load_classifier(qa.teacher)
    data, encoded = data_of(qa)
    batch = collate(encoded, np.arange(6))
    assert batch.labels is not None
    assert batch.labels.shape == (6, 2)
    assert len(set(encoded.lengths[:6])) > 1
    with torch.no_grad():
        logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
        loss = model_loss(model.config, logits, batch.labels, batch.attention_mask)
    flat = logits_of(model, encoded)
    terms = []
    for row in range(6):
        own = torch.from_numpy(flat[encoded.offsets[row] : encoded.offsets[row + 1]]).log_softmax(0)
        terms += [-own[encoded.labels[row, output], output] for output in (0, 1)]
    torch.testing.assert_close(loss, torch.stack(terms).mean(), rtol=1e-4, atol=1e-6)
    assert scores_of(model, QA, encoded, data)["loss"] < 0.5


def test_distillation_compares_distributions_over_positions(qa: Learned) -> None:
    teacher = load_classifier(qa.teacher)
    student = load_classifier(qa.encoder, id2label=["start", "end"], head="spans")
    _, encoded = data_of(qa)
    batch = collate(encoded, np.arange(5))
    distill = Distillation(attention_scores=0, hidden_states=0, logits=1, labels=0.5)
    total, parts = Teaching(distill, student, teacher)(student, batch)
    with torch.no_grad():
        ours, theirs = (
            m(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits for m in (student, teacher)
        )
    soft, hard = [], []
    for row, length in enumerate(batch.attention_mask.sum(1).tolist()):
        for output in (0, 1):
            own = ours[row, :length, output].log_softmax(0)
            soft.append(-(theirs[row, :length, output].softmax(0) * own).sum())
            hard.append(-own[batch.labels[row, output]])  # type: ignore[index]
    torch.testing.assert_close(parts["prediction"], torch.stack(soft).mean())
    torch.testing.assert_close(parts["labels"], torch.stack(hard).mean())
    total.backward()
    assert student.classifier.weight.grad is not None
    assert bool(student.classifier.weight.grad.isfinite().all())


def test_hidden_states_and_attention_are_compared_too(qa: Learned) -> None:
    teacher, student = load_classifier(qa.teacher), load_classifier(qa.teacher)
    _, encoded = data_of(qa)
    batch = collate(encoded, np.arange(5))
    _, parts = Teaching(Distillation(), student, teacher)(student, batch)
    assert parts["hidden"] == parts["attention"] == 0
    assert float(parts["prediction"]) > 0  # the teacher's own entropy


def test_the_artifact_scores_as_the_engine_says(small: Any, qa: Learned) -> None:
    assert small.teacher["value"] == qa.score.value
    assert abs(small.drop_points) <= 5
    check = small.artifact["engine_vs_student"]
    assert (check["arithmetic"], check["unit"], check["different_predictions"]) == ("engine", "tokens", 0)
    assert check["identical_logits"] == check["n"] > small.artifact["n"]
    card = (Path(small.out) / "README.md").read_text()
    assert "f1, dev (80 questions)" in card
    assert 'model(question="…", context="…")' in card
    config = read_artifact(small.out).config
    assert (config.task.kind, config.head, config.task.pair) == ("question_answering", "tokens", True)
    assert config.task.spans == SpanSpec()
    with bitpress.load(small.out) as model:
        found = model.evaluate(read_dataset(qa.dev, QA))
    assert found["metrics"] == small.artifact["metrics"]


def test_a_long_context_is_read_to_its_end(small: Any) -> None:
    filler = " ".join(tiny_task.FILLER)
    context = f"{filler} {filler} {filler} {filler}\n the\tSuperb charming film of one dull plot {filler}"
    with bitpress.load(small.out) as model:
        found = model(question="this film", context=context)
        assert len(model.logits(["this film"], [context])) > 3 * 50
        assert model([("this film", context), ("this film", "a plot")])[0] == found
    assert context[found["start"] : found["end"]] == found["answer"] == "Superb charming"


def test_reading_is_what_was_set(qa: Learned, tmp_path: Path) -> None:
    overrides = {"max_steps": 2, "batch_tokens": 256, "max_length": 24, "doc_stride": 4}
    overrides |= {"max_query_length": 1, "max_answer_length": 2}
    out = finetune(
        qa.encoder, task="qa", train=qa.train, dev=qa.dev, out=tmp_path / "t", overrides=overrides, quiet=True
    )
    spans = SpanSpec(4, 1, 2)
    own = json.loads((tmp_path / "t" / "config.json").read_text())["bitpress"]
    assert own == {"task": "qa", "max_length": 24, "spans": dataclasses.asdict(spans)}
    assert evaluate_checkpoint(tmp_path / "t", qa.dev)["metrics"] == out.metrics
    assert evaluate_checkpoint(tmp_path / "t", qa.dev)["cut_questions"] == 80
    compress(tmp_path / "t", recipe="int8", dev=qa.dev, out=tmp_path / "s", quiet=True)
    config = read_artifact(tmp_path / "s").config
    assert (config.max_length, config.task.spans) == (24, spans)
    with pytest.raises(RecipeError, match="--set doc_stride is for question answering; the task is classification"):
        finetune(qa.encoder, train=qa.train, dev=qa.dev, out=tmp_path / "x", overrides={"doc_stride": 4}, quiet=True)
    with pytest.raises(RecipeError, match="--set max_answer_length: Input should be greater than 0"):
        finetune(
            qa.encoder,
            task="qa",
            train=qa.train,
            dev=qa.dev,
            out=tmp_path / "x",
            overrides={"max_answer_length": 0},
            quiet=True,
        )


def test_notes_say_what_is_not_read(qa: Learned) -> None:
    data, encoded = data_of(qa)
    assert unread_note(data, encoded, 64) is None
    tokenizer = Tokenizer.from_directory(qa.teacher)
    note = unread_note(data, tokenize(tokenizer, data, 64, 0, SpanSpec(max_query_length=1)), 64)
    assert note is not None
    assert "of the 80 questions" in note
    assert (
        "the ends of 80 questions are not read: they are longer than 1 tokens (max_query_length), or than half" in note
    )
    data.labels[3] = [0, len(data.pairs[3])]  # an answer longer than the windows
    note = unread_note(data, tokenize(tokenizer, data, 10, 0), 10)
    assert "the answers to 1 questions are in no window whole, and not learned" in str(note)


def test_training_is_evaluated_on_a_part(qa: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, encoded = data_of(qa, doc_stride=2)
    assert evaluated(data, encoded)[0] is data
    assert evaluation_note(data, encoded) is None
    encoded = tokenize(Tokenizer.from_directory(qa.teacher), data, 12, 0, SpanSpec(doc_stride=2))
    part, windows = some_questions(data, encoded, 10)
    assert part.ids == [data.ids[i] for i in np.linspace(0, 79, 10).astype(int)]
    again = tokenize(Tokenizer.from_directory(qa.teacher), part, 12, 0, SpanSpec(doc_stride=2))
    assert again.digest() == windows.digest()
    assert windows.windows.questions.tolist() == again.windows.questions.tolist()
    assert windows.windows.places.tolist() == again.windows.places.tolist()
    monkeypatch.setattr(evaluation, "TRAINING_QUESTIONS", 20)
    assert "20 of the 80 questions of" in str(evaluation_note(data, encoded))
    overrides = {"max_steps": 4, "evaluate_every": 2, "batch_tokens": 256}
    found = finetune(
        qa.teacher, task="qa", train=qa.train, dev=qa.dev, out=tmp_path / "t", overrides=overrides, quiet=True
    )
    assert found.n == 80
    assert evaluate_checkpoint(tmp_path / "t", qa.dev)["metrics"] == found.metrics
    out = compress(
        qa.teacher,
        recipe="ternarybert",
        train=qa.train,
        dev=qa.dev,
        out=tmp_path / "s",
        overrides=overrides,
        quiet=True,
    )
    assert out.artifact is not None
    assert out.student["n"] == 80
    assert out.artifact["metrics"] == out.student["metrics"]


@pytest.mark.parametrize("recipe", [recipe.name for recipe in list_recipes()])
def test_every_recipe(recipe: str, qa: Learned, tmp_path: Path) -> None:
    """The engine's logits of every token are those of the student, bit for bit."""
    out = tiny_task.press_briefly(qa, recipe, tmp_path / "s")
    assert out.metric == "f1"
    assert out.artifact["engine_vs_student"]["n"] > 80
    with bitpress.load(tmp_path / "s") as model:
        found = model(question="this film", context="the superb film")
    assert found["answer"] == "the superb film"[found["start"] : found["end"]]


def test_without_data(qa: Learned, tmp_path: Path) -> None:
    packed = pack(qa.teacher, recipe="int8", out=tmp_path / "packed")
    assert packed.engine_vs_student["identical_logits"] == packed.engine_vs_student["n"]
    post_training_artifact(qa.teacher, "bibert", tmp_path / "estimate")
    for name in ("packed", "estimate"):
        with bitpress.load(tmp_path / name) as model:
            assert model.task.kind == "question_answering"
            assert model.config.max_length == 64
            assert isinstance(model(question="this film", context="the superb film")["answer"], str)


def test_the_teacher_is_timed_as_what_it_is(qa: Learned) -> None:
    timed = load_checkpoint(qa.teacher, threads=1)
    batch = {"ids": [[2, 5, 3], [2, 3]], "type_ids": [[0, 0, 0], [0, 0]]}
    found = timed.forward(batch)
    assert found.shape == (2, 3, 2)
    with torch.no_grad():
        ours = load_classifier(qa.teacher)(torch.tensor([[2, 5, 3]])).logits
    np.testing.assert_allclose(found[0], ours[0], atol=1e-4)


def test_a_student_of_another_shape(qa: Learned) -> None:
    student = make_student(StudentChanges(init=str(qa.encoder)), qa.teacher, None, seed=0)
    assert student.config.answers_questions
    assert set(student.fresh_tensors) == {"classifier.weight", "classifier.bias"}


def test_sensitivity(qa: Learned, tmp_path: Path) -> None:
    settings = SensitivitySettings(samples=2, texts=8, max_products=6, probes=2)
    found = sensitivity(qa.teacher, train=qa.train, dev=qa.dev, out=tmp_path / "s", settings=settings, quiet=True)
    assert found.measured is not None
    assert found.measured["metric"] == "f1"
    assert len(found.report.blocks) == 2


def test_the_same_command_gives_the_same_bytes(qa: Learned, tmp_path: Path) -> None:
    overrides = {"max_steps": 3, "batch_tokens": 256}
    for name in ("a", "b"):
        finetune(
            qa.encoder, task="qa", train=qa.train, dev=qa.dev, out=tmp_path / name, overrides=overrides, quiet=True
        )
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert one == other
    again = finetune(
        qa.encoder, task="qa", train=qa.train, dev=qa.dev, out=tmp_path / "a", overrides=overrides, quiet=True
    )
    assert again.steps == 3


def test_scores_of_logits_that_point_at_the_answers(qa: Learned) -> None:
    """What a perfect model would have: every answer of this data begins and ends with a token."""
    data, encoded = data_of(qa)
    logits = np.zeros((len(encoded.input_ids), 2), np.float32)
    for output in (0, 1):
        logits[encoded.offsets[:-1] + encoded.labels[:, output], output] = 9
    assert scored(QA, logits, encoded, data)["metrics"] == {"f1": 1, "exact_match": 1}


def test_heads_and_tasks_that_do_not_fit_are_refused(qa: Learned, tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"task 'ner' is token_classification, but .* has a question_answering head"
    ):
        evaluate_checkpoint(qa.teacher, qa.dev, task="ner")
    with pytest.raises(TrainingError, match=r"task 'qa' is question_answering, but .* has a classification head"):
        evaluate_checkpoint(tiny.teacher, qa.dev, task="qa")
    with pytest.raises(RecipeError, match="task 'qa' has answers in contexts; augment writes variants of texts and"):
        augment(train=qa.train, out=tmp_path / "a.jsonl", task="qa", mlm=qa.encoder)


def test_the_commands_one_after_another(qa: Learned, tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout.splitlines()[0] if arguments[0] == "predict" else result.stdout)

    files = ("--train", qa.train, "--dev", qa.dev, "--quiet")
    few = ("--set", "max_steps=60", "--set", "batch_tokens=256", "--learning-rate", "0.003", "--set", "doc_stride=8")
    made = run("finetune", qa.encoder, "--task", "qa", *files, "--out", tmp_path / "t", *few)
    assert (made["task"], made["metric"], made["n"]) == ("qa", "f1", 80)
    assert run("evaluate", tmp_path / "t", "--data", qa.dev)["metrics"] == made["metrics"]
    steps = ("--set", "max_steps=3", "--set", "batch_tokens=256")
    packed = run("compress", tmp_path / "t", "--recipe", "ternarybert", *files, "--out", tmp_path / "s", *steps)
    assert packed["teacher"]["value"] == made["value"]
    assert run("evaluate", tmp_path / "s", "--data", qa.dev)["metrics"] == packed["artifact"]["metrics"]
    assert run("inspect", tmp_path / "s")["task"]["spans"]["doc_stride"] == 8
    found = run("predict", tmp_path / "s", "--input", qa.dev)
    assert found["id"] == "q0"
    assert found["context"][found["start"] : found["end"]] == found["answer"]
