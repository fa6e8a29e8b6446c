"""``bitpress sensitivity``: which blocks of a teacher need bits, by its loss's Hessian and by trying, and the probes.

``out`` gets, each when it was asked for:

    sensitivity.json, sensitivity.svg    eigenvalues and traces of every block: what bits are allocated by
    measured.json                        the drop on dev data with one block at low bits, and how the proxies rank it
    landscape-BLOCK.json, .csv, .svg     the loss around one block's weights
    attention-kl.json, .svg              the divergence of attention by layer and head
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import bitpress
from bitpress.data import Dataset
from bitpress.encoder import SequenceClassifier, load_classifier
from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize.uniform_weights import BITS
from bitpress.recipes.inputs import (
    DataOptions,
    check_pairs,
    check_same_form,
    check_tokenizer,
    read_split,
    tokenize,
    weights_digest,
)
from bitpress.recipes.measured_sensitivity import measure_drops
from bitpress.recipes.progress import progress_bar
from bitpress.recipes.run_directory import RunDirectory
from bitpress.recipes.teacher_task import TeacherTask, teacher_task
from bitpress.runtime.tokenization import Tokenizer
from bitpress.sensitivity import (
    Block,
    SensitivityReport,
    SensitivitySettings,
    attention_kl,
    encoder_blocks,
    find_block,
    group_wise,
    landscape,
    measure_sensitivity,
    quantize_in_place,
    save_sensitivity,
)
from bitpress.sensitivity.landscape import check_grid
from bitpress.sensitivity.measured import GROUPS
from bitpress.sensitivity.plots import bar_chart, heat_map, surface
from bitpress.sensitivity.report_file import as_document, write_json
from bitpress.train import EncodedDataset

# Attention is compared on so many texts, spread over the data.
COMPARED_TEXTS = 256
CONTOURS = 7


@dataclass(frozen=True)
class Probes:
    """What is looked at beside the Hessian.

    measure    the drop on dev data with one block alone at each of ``bits``; None: where there is dev data
    groups     of these weights: ranges a matrix, in blocks of neighbouring outputs
    landscape  a block around which the loss is drawn, on ``grid`` × ``grid`` points up to ``span`` from the model
    compare    a checkpoint whose attention is compared with the teacher's; or a number of bits, at which the teacher's
               layers are quantized for that, by ``groups``
    """

    measure: bool | None = None
    bits: tuple[int, ...] = (4, 3, 2)
    groups: int = GROUPS
    landscape: str | None = None
    grid: int = 21
    span: float = 0.5
    compare: str | None = None

    def __post_init__(self) -> None:
        wrong = [bits for bits in self.bits if bits not in BITS]
        if wrong or not self.bits:
            raise RecipeError(f"bits is {wrong[0] if wrong else 'empty'!r}; allowed: {', '.join(map(str, BITS))}")
        group_wise(self.bits[0], self.groups)  # checks the number
        check_grid(self.grid, self.span)


@dataclass(frozen=True)
class SensitivityResult:
    """What was found, and the files it was written to. The parts that were not asked for are None."""

    out: str
    report: SensitivityReport
    measured: dict[str, Any] | None
    landscape: dict[str, Any] | None
    attention_kl: dict[str, Any] | None
    files: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "out": self.out,
            **as_document(self.report),
            "ranking": [block.name for block in self.report.ranking()],
            "measured": self.measured,
            "landscape": self.landscape,
            "attention_kl": self.attention_kl,
            "files": list(self.files),
        }


def sensitivity(
    teacher: str | Path,
    *,
    train: str | Path,
    out: str | Path,
    dev: str | Path | None = None,
    task: str | None = None,
    columns: DataOptions | None = None,
    by: str = "layer",
    include: str = "matrices",
    settings: SensitivitySettings | None = None,
    probes: Probes | None = None,
    quiet: bool = False,
) -> SensitivityResult:
    """Measure every block of ``teacher`` and write what was found to ``out`` (module docstring).

    Killed at any moment and called again with the same arguments it continues, sample by sample and block by block, to
    the same numbers; called with other ``probes`` it adds to what is there.

    Args:
        train: labelled text, of which samples are measured.
        dev: labelled text on which ``probes.measure`` scores and attention is compared; None: neither needs it, and
            attention is compared on ``train``.
        by, include: the blocks (:func:`encoder_blocks`).

    Raises:
        DataError, UnsupportedModelError, RecipeError, TrainingError: names what cannot be used as asked.
    """
    settings, probes = settings or SensitivitySettings(), probes or Probes()
    measure = dev is not None if probes.measure is None else probes.measure
    if measure and dev is None:
        raise TrainingError("measuring what a block's bits cost needs labelled data to score on; give --dev")
    inputs = _Inputs.read(teacher, train, dev, columns, task)
    model = load_classifier(teacher)
    blocks = encoder_blocks(model, by, include)
    around = None if probes.landscape is None else find_block(blocks, probes.landscape)
    student = None if probes.compare is None else _student(probes.compare, model, probes.groups, inputs.tokenizer)
    recorded = {
        "command": "sensitivity",
        "bitpress": bitpress.__version__,
        "teacher_sha256": weights_digest(teacher),
        "task": dataclasses.asdict(inputs.known.task),
        "train_sha256": inputs.train_sha256,
        "columns": dataclasses.asdict(columns or DataOptions()),
        "by": by,
        "include": include,
        "settings": dataclasses.asdict(settings),
    }
    run = RunDirectory(out, recorded)
    run.begin()
    files = _Files(Path(out))
    report = _measure(model, inputs.train, blocks, settings, run.path / "samples", quiet)
    files.add_path(save_sensitivity(report, out))
    files.text("sensitivity.svg", _ranking_plot(report, str(teacher)))
    measured = shape = divergence = None
    if measure:
        assert inputs.dev is not None, "asked for above"
        assert inputs.dev_set is not None, "what was encoded was read"
        with progress_bar("blocks at low bits", quiet) as advance:
            measured = measure_drops(
                model,
                inputs.known.task,
                inputs.known.config.num_labels,
                inputs.dev,
                inputs.dev_set,
                blocks,
                probes.bits,
                probes.groups,
                Path(out),
                report,
                advance,
            )
        files.add_path(Path(out) / "measured.json")
    if around is not None:
        shape = _landscape(model, inputs.train, around, probes, settings.seed, files, quiet)
    if student is not None:
        divergence = _attention(model, student, inputs, probes, files)
    return SensitivityResult(str(out), report, measured, shape, divergence, tuple(files.written))


@dataclass(frozen=True)
class _Inputs:
    known: TeacherTask
    tokenizer: Tokenizer
    train: EncodedDataset
    train_sha256: str
    dev: EncodedDataset | None
    dev_set: Dataset | None

    @classmethod
    def read(
        cls,
        teacher: str | Path,
        train: str | Path,
        dev: str | Path | None,
        columns: DataOptions | None,
        task: str | None,
    ) -> _Inputs:
        known = teacher_task(teacher, task)
        config, pad = known.config, known.config.pad_token_id or 0
        train_set = read_split(train, known.task, columns, known.label_names)
        names = known.label_names or train_set.label_names or None
        dev_set = None if dev is None else read_split(dev, known.task, columns, names)
        check_pairs(train_set)
        if dev_set is not None:
            check_same_form(train_set, dev_set)
        if known.task.kind != "regression" and len(train_set.label_names) != config.num_labels:
            raise TrainingError(
                f"{train} has {len(train_set.label_names)} labels ({', '.join(train_set.label_names[:8])}), {teacher} "
                f"{config.num_labels} without names of their own; give data in which every label occurs"
            )
        tokenizer = Tokenizer.from_directory(teacher)
        check_tokenizer(tokenizer, config, teacher)
        return cls(
            known,
            tokenizer,
            tokenize(tokenizer, train_set, known.max_length, pad, known.spans),
            train_set.fingerprint,
            None if dev_set is None else tokenize(tokenizer, dev_set, known.max_length, pad, known.spans),
            dev_set,
        )


class _Files:
    """Writes into the output directory and remembers what."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.written = directory, list[str]()

    def add_path(self, path: Path) -> None:
        self.written.append(str(path))

    def text(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")
        self.add_path(self.directory / name)

    def json(self, name: str, value: dict[str, Any]) -> None:
        write_json(self.directory / name, value)
        self.add_path(self.directory / name)


def _measure(
    model: SequenceClassifier,
    train: EncodedDataset,
    blocks: Sequence[Block],
    settings: SensitivitySettings,
    resume: Path,
    quiet: bool,
) -> SensitivityReport:
    with progress_bar("Hessian products", quiet) as advance:
        return measure_sensitivity(
            model,
            train,
            blocks,
            settings,
            progress=lambda event: advance(event.products, event.most),
            resume=resume,
            warn=lambda text: Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True),
        )


def _landscape(
    model: SequenceClassifier,
    train: EncodedDataset,
    block: Block,
    probes: Probes,
    seed: int,
    files: _Files,
    quiet: bool,
) -> dict[str, Any]:
    with progress_bar(f"loss around {block.name}", quiet) as advance:
        found = landscape(model, train, block, grid=probes.grid, span=probes.span, seed=seed, progress=advance)
    name = f"landscape-{block.name}"
    files.json(f"{name}.json", found.as_dict())
    files.text(f"{name}.csv", found.as_csv())
    ends = {0: f"{-probes.span:g}", len(found.steps) // 2: "0", len(found.steps) - 1: f"{probes.span:g}"}
    marks = [ends.get(i, "") for i in range(len(found.steps))]
    values = ", ".join(f"{value:.3g}" for value in found.eigenvalues)
    title = f"loss around {block.name} along its eigenvectors, down and across: λ = {values}"
    files.text(f"{name}.svg", heat_map(title, found.loss, marks, marks, CONTOURS))
    title = f"loss around {block.name} along its eigenvectors e1 and e2: λ = {values}"
    files.text(f"{name}-3d.svg", surface(title, found.loss, ("e1", "e2"), (marks[0], marks[-1])))
    return found.as_dict()


def _attention(
    model: SequenceClassifier, student: SequenceClassifier, inputs: _Inputs, probes: Probes, files: _Files
) -> dict[str, Any]:
    data = inputs.train if inputs.dev is None else inputs.dev
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), COMPARED_TEXTS)).astype(np.int64))
    values = attention_kl(model, student, data, chosen)
    of_bits = probes.compare is not None and probes.compare.isdecimal()
    found = {
        "compared": probes.compare,
        "groups": probes.groups if of_bits else None,
        "texts": len(chosen),
        "direction": "KL(teacher || compared), nats, mean over query rows of real tokens",
        "layers": values.tolist(),
        "mean": float(values.mean()),
    }
    files.json("attention-kl.json", found)
    layers = [f"layer {i}" for i in range(values.shape[0])]
    heads = [str(i) for i in range(values.shape[1])]
    kind = f"{probes.compare} bits" if of_bits else str(probes.compare)
    title = f"KL of attention rows, {kind}, by layer and head"
    files.text("attention-kl.svg", heat_map(title, values.tolist(), layers, heads))
    return found


def _student(compare: str, teacher: SequenceClassifier, groups: int, tokenizer: Tokenizer) -> SequenceClassifier:
    """The model whose attention is compared: a checkpoint, or the teacher with its layers at so many bits."""
    if not compare.isdecimal():
        if not Tokenizer.from_directory(compare).same_tokens(tokenizer):
            raise RecipeError(f"{compare} has another vocabulary than the teacher; its attention cannot be compared")
        return load_classifier(compare)
    if int(compare) not in BITS:
        allowed = ", ".join(map(str, BITS))
        raise RecipeError(f"compare is {compare}; allowed: a checkpoint directory, or a number of bits: {allowed}")
    student = copy.deepcopy(teacher)
    quantize_in_place(student, encoder_blocks(student, "layer"), group_wise(int(compare), groups))
    return student


def _ranking_plot(report: SensitivityReport, teacher: str) -> str:
    ranked = report.ranking()
    notes = [f"λ {len(b.samples) - b.negative}+ {b.negative}−" for b in ranked]
    return bar_chart(
        f"Ω = |mean λ| + std over {report.settings.samples} samples: {Path(teacher).name}",
        [block.name for block in ranked],
        [block.omega for block in ranked],
        [block.omega_error for block in ranked],
        notes,
    )
