"""``bitpress compress``: a teacher becomes an artifact, measured by the engine that will run it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bitpress.artifact import WEIGHTS_DIGEST_KEY, SpanSpec, check_destination, describe, replace_file
from bitpress.artifact.strict_json import dump_object
from bitpress.data import headline, summarize
from bitpress.data.squad_metrics import THRESHOLD
from bitpress.encoder import SequenceClassifier, load_classifier
from bitpress.errors import TrainingError
from bitpress.freeze import check_freezable, freeze, round_side_data
from bitpress.quantize import fold_centres
from bitpress.recipes.agreement import engine_vs_student
from bitpress.recipes.announce import print_policy
from bitpress.recipes.card import model_card
from bitpress.recipes.compress_inputs import CompressInputs, compress_settings, read_inputs
from bitpress.recipes.evaluation import (
    check_label_order,
    evaluated,
    evaluation,
    evaluation_note,
    logits_of,
    scored,
)
from bitpress.recipes.inputs import (
    DataOptions,
    file_digest,
    unread_note,
)
from bitpress.recipes.mixed_precision import as_record, check_division, divide_bits
from bitpress.recipes.probes import attention_probe
from bitpress.recipes.run_directory import WEIGHTS, RunDirectory
from bitpress.recipes.schema import Stage, load_recipe
from bitpress.recipes.student import enter_stage, init_projections, make_student, narrow_student
from bitpress.recipes.teaching import Teaching, plan_teaching
from bitpress.runtime.pipeline import load
from bitpress.runtime.tokenization import Tokenizer
from bitpress.train import Schedule, run_stage


@dataclass(frozen=True)
class CompressResult:
    """A finished artifact: where it is, its dev score by the engine beside its teacher's by torch, and its bytes.

    ``artifact`` is None for a recipe with ``freeze: false``; ``student`` then has all there is to know. Scores are
    fractions or correlations, ``drop_points`` is teacher minus artifact in hundredths. ``allocation``: of bits among
    blocks, where the recipe divides them (:class:`DividedBits`).
    """

    out: str
    recipe: str
    metric: str
    teacher: dict[str, Any]
    student: dict[str, Any]
    artifact: dict[str, Any] | None
    drop_points: float
    stages: list[dict[str, Any]]
    allocation: dict[str, Any] | None = None
    max_drop: float | None = None

    @property
    def within_max_drop(self) -> bool | None:
        """Whether the drop is at most ``max_drop``; None where no limit was given."""
        return None if self.max_drop is None else self.drop_points <= self.max_drop

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**dataclasses.asdict(self), "within_max_drop": self.within_max_drop}


def compress(
    teacher: str | Path,
    *,
    recipe: str | Path = "ternarybert",
    train: str | Path | None = None,
    dev: str | Path,
    out: str | Path,
    columns: DataOptions | None = None,
    task: str | None = None,
    pooling: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    max_drop: float | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> CompressResult:
    """Distil, quantize and pack ``teacher`` by ``recipe``; write the artifact to ``out`` and measure it there.

    The teacher's own dev score and label order are checked first, and everything that stays fp32 is listed before
    training. Killed at any moment and called again with the same arguments it continues, to byte-identical weights;
    finished, it returns at once.

    Args:
        teacher: Hugging Face directory of a fine-tuned BERT classifier (of texts or tokens), regressor or model of
            question answering, or of an encoder of sentences.
        recipe: a name of ``list_recipes()`` or a YAML file; ``overrides``: see ``load_recipe``.
        train: labelled training text; may be absent where the recipe trains nothing. Of sentence embeddings single
            texts will do, unless the recipe has a use for pairs.
        task: layout and metric of the data; None: what the teacher was fine-tuned for.
        pooling: see :func:`bitpress.recipes.teacher_task.teacher_task`.
        max_drop: points that the artifact may lose before ``within_max_drop`` is False; writes the artifact anyway.

    Raises:
        DataError, UnsupportedModelError, RecipeError, TrainingError, ArtifactError: nothing is written then.
    """
    console = Console(stderr=True)
    inputs = read_inputs(teacher, load_recipe(recipe, overrides, seed), train, dev, columns, task, pooling)
    teacher_model = load_classifier(teacher, id2label=inputs.head_labels, head=inputs.known.pooling)
    if teacher_model.fresh_tensors:
        raise TrainingError(
            f"{teacher} is not fine-tuned: its checkpoint lacks {', '.join(sorted(teacher_model.fresh_tensors))}. "
            "Fine-tune it first: bitpress finetune ENCODER --train … --dev … --out teacher/"
        )
    student = make_student(inputs.recipe.student, teacher, inputs.head_labels, seed, inputs.known.pooling)
    for stage in inputs.recipe.stages:
        if stage.distill is not None and stage.distill.teacher == "teacher":
            plan_teaching(stage.distill, student.config, teacher_model.config)
    if inputs.recipe.freeze:
        check_freezable(student, inputs.recipe.policy)
    latency = check_division(inputs.recipe, student)
    run = RunDirectory(out, compress_settings(inputs, columns, seed))
    finished = run.finished()
    if finished is not None:
        return CompressResult(**{**finished, "out": str(out), "max_drop": max_drop})
    if inputs.recipe.freeze:
        check_destination(Path(out))
    run.begin()

    teacher_logits = logits_of(teacher_model, inputs.dev)
    teacher_score = scored(inputs.known.task, teacher_logits, inputs.dev, inputs.dev_set)
    if inputs.known.task.kind == "classification":
        assert inputs.dev_set.labels is not None, "read_split requires labels"
        check_label_order(teacher_logits, inputs.dev_set.labels, inputs.label_names, teacher)
    _announce(console, inputs, teacher_score, quiet)

    kept_heads = narrow_student(student, inputs.recipe.student.width, inputs.train)
    projections = init_projections(inputs.recipe.student, student)
    stages, divided = [], None
    for number in range(len(inputs.recipe.stages)):
        if inputs.recipe.widths and number == inputs.recipe.allocated_stage:
            measured = run.path / "sensitivity"
            divided = divide_bits(inputs.recipe, student, inputs.train, measured, seed, console, quiet, latency)
            inputs = dataclasses.replace(inputs, recipe=inputs.recipe.with_bits(divided.bits))
        stage = inputs.recipe.stages[number]
        follows = stage.distill is not None and stage.distill.teacher == "previous"
        stage_teacher = copy.deepcopy(student) if follows else teacher_model
        applied = enter_stage(student, stage)
        if not quiet:
            print_policy(console, stage.name, applied)
        record: dict[str, Any] = {"steps": 0}
        if stage.distill is not None and stage.schedule is not None:
            teaching = Teaching(
                stage.distill,
                student,
                stage_teacher,
                kept_heads=None if follows else kept_heads,
                projections=projections,
                seed=seed,
                warn=lambda text: _say(console, f"warning: {text}"),
            )
            record = _run_stage(stage, stage.schedule, student, teaching, inputs, run, console, quiet)
            projections = teaching.end() or projections
        stages.append({"name": stage.name, **record})
    if inputs.recipe.side_data == "fp16":
        round_side_data(student)
    student_score = _student_score(student, inputs, stages[-1])
    allocation = None if divided is None else as_record(divided)
    artifact = None
    if inputs.recipe.freeze:
        spans = _spans(inputs, student_score["metrics"])
        artifact = _write_artifact(student, inputs, run, teacher_score, stages, allocation, spans)
    reached = artifact["value"] if artifact else student_score["value"]
    result = CompressResult(
        out=str(out),
        recipe=inputs.recipe.name,
        metric=teacher_score["metric"],
        teacher=teacher_score,
        student=student_score,
        artifact=artifact,
        drop_points=round(100 * (teacher_score["value"] - reached), 4),
        stages=stages,
        allocation=allocation,
        max_drop=max_drop,
    )
    if artifact:
        run.finish({key: value for key, value in dataclasses.asdict(result).items() if key != "max_drop"})
    return result


def _run_stage(
    stage: Stage,
    schedule: Schedule,
    student: SequenceClassifier,
    teaching: Teaching,
    inputs: CompressInputs,
    run: RunDirectory,
    console: Console,
    quiet: bool,
) -> dict[str, Any]:
    """Train ``student``, which has its quantizers; what is recorded of it."""
    assert stage.distill is not None, "a schedule comes with what it is for"
    trained = run_stage(
        name=stage.name,
        model=student,
        train=inputs.training(stage.distill.data),
        loss_fn=teaching,
        evaluate=evaluation(inputs.known.task, inputs.dev, inputs.dev_set),
        metric=headline(inputs.known.task, inputs.dev_set, student.config.num_labels),
        probe=attention_probe(inputs.dev) if stage.quantize.activations.scheme in ("binary", "elastic") else None,
        schedule=schedule,
        run_dir=run.path,
        fingerprint={"stage": stage.model_dump(mode="json", exclude={"schedule"}), "max_length": inputs.max_length},
        console=console,
        quiet=quiet,
    )
    fold_centres(student)  # here, since the next stage has quantizers of its own
    record = dataclasses.asdict(trained)
    del record["resumed_from"]  # of this process, not of the result
    return record


def _write_artifact(
    student: SequenceClassifier,
    inputs: CompressInputs,
    run: RunDirectory,
    teacher_score: dict[str, Any],
    stages: list[dict[str, Any]],
    allocation: dict[str, Any] | None,
    spans: SpanSpec | None,
) -> dict[str, Any]:
    """Freeze, measure what was written, and put the measurements into its card and provenance."""
    task = inputs.known.task
    freeze(
        student,
        inputs.recipe.policy,
        run.out,
        recipe=inputs.recipe.name,
        packing=inputs.recipe.packing,
        side_data=inputs.recipe.side_data,
        task=inputs.known.artifact_task(teacher_score["metric"], inputs.dev_set.pairs is not None, spans),
        max_length=inputs.max_length,
        tokenizer_files=Tokenizer.files(inputs.teacher_path),
        card="Not measured yet.\n",
        provenance=run.settings,
    )
    with load(run.out) as model:
        logits = model.logits(inputs.dev_set.texts, inputs.dev_set.pairs, words=inputs.dev_set.words)
    sizes = describe(run.out)
    measured = {
        **scored(task, logits, inputs.dev, inputs.dev_set, spans),
        **{key: sizes[key] for key in ("total_bytes", "fp32_bytes", "ratio")},
        "engine_vs_student": engine_vs_student(logits, student.cpu(), inputs.dev),
    }
    provenance = {
        **run.settings,
        "teacher_score": teacher_score,
        "artifact_score": measured,
        "stages": stages,
        "allocation": allocation,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        WEIGHTS_DIGEST_KEY: file_digest(run.out / WEIGHTS),
    }
    labels = inputs.label_names if spans is None else []
    card = model_card(inputs.recipe, labels, teacher_score, measured, asks=spans is not None)
    replace_file(run.out, "README.md", card.encode())
    replace_file(run.out, "provenance.json", dump_object(provenance))
    return measured


def _spans(inputs: CompressInputs, metrics: dict[str, float]) -> SpanSpec | None:
    """Of question answering, how the artifact reads and answers: as its teacher, with the threshold of no answer that
    is best for the student on dev, which ``metrics`` are at."""
    if inputs.known.spans is None:
        return None
    return dataclasses.replace(inputs.known.spans, no_answer_threshold=metrics.get(THRESHOLD))


def _student_score(student: SequenceClassifier, inputs: CompressInputs, last: dict[str, Any]) -> dict[str, Any]:
    """The student's dev score in torch: what its last stage measured of the weights it kept, or, untrained, now."""
    is_whole = len(evaluated(inputs.dev_set, inputs.dev)[0]) == len(inputs.dev_set)
    # Both round biases after the last evaluation.
    rounded = inputs.recipe.side_data == "fp16" or inputs.recipe.policy.activations.attention_centre == "running"
    if "metrics" in last and is_whole and not rounded:
        return summarize(inputs.known.task, last["metrics"], inputs.dev_set, student.config.num_labels)
    return scored(inputs.known.task, logits_of(student.eval(), inputs.dev), inputs.dev, inputs.dev_set)


def _announce(console: Console, inputs: CompressInputs, score: dict[str, Any], quiet: bool) -> None:
    if not quiet:
        texts = ""
        if inputs.train is not None:
            texts = f"; {len(inputs.train)} training texts, {int(inputs.train.lengths.sum()):,} tokens"
        _say(
            console,
            f"teacher {inputs.teacher_path}: {score['metric']} {score['value']:.4f} on {score['n']} dev texts "
            f"(majority baseline {score['majority']:.4f}){texts}",
        )
        for dataset, encoded in ((inputs.train_set, inputs.train), (inputs.dev_set, inputs.dev)):
            if dataset is None or encoded is None:
                continue
            if note := unread_note(dataset, encoded, inputs.max_length):
                _say(console, note)
        if inputs.recipe.trains and (note := evaluation_note(inputs.dev_set, inputs.dev)):
            _say(console, note)
    if score["value"] <= score["majority"]:
        _say(
            console,
            "warning: the teacher is no better than always giving the same answer; the student can learn nothing more",
        )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
