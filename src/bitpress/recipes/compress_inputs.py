"""What ``bitpress compress`` reads, checked, and what of it is recorded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bitpress
from bitpress.data import EMBEDDING, Dataset
from bitpress.errors import TrainingError
from bitpress.recipes.inputs import (
    DataOptions,
    check_pairs,
    check_same_form,
    check_tokenizer,
    read_split,
    resolve_max_length,
    tokenize,
    weights_digest,
)
from bitpress.recipes.mixed_precision import sensitivity_digest
from bitpress.recipes.schema import Recipe
from bitpress.recipes.student import init_directory
from bitpress.recipes.teacher_task import TeacherTask, teacher_task
from bitpress.runtime.tokenization import Tokenizer
from bitpress.train import EncodedDataset


@dataclass(frozen=True)
class CompressInputs:
    """All that a compression reads, checked."""

    teacher_path: Path
    known: TeacherTask
    recipe: Recipe
    max_length: int
    tokenizer: Tokenizer
    train_set: Dataset | None  # None: not given, and no stage trains
    dev_set: Dataset
    train: EncodedDataset | None
    dev: EncodedDataset

    def training(self, data: str) -> EncodedDataset:
        """The training data of a stage that wants such (``Distillation.data``)."""
        assert self.train is not None, "read_inputs asks for training data where a stage trains"
        assert self.train_set is not None, "what was encoded was read"
        originals = self.train_set.originals
        wanted = data == "original" or (data == "auto" and self.known.task.kind == "regression")
        if originals is None or not wanted:
            return self.train
        return self.train.select(np.flatnonzero(originals))

    @property
    def label_names(self) -> list[str]:
        return self.dev_set.label_names if self.train_set is None else self.train_set.label_names

    @property
    def head_labels(self) -> list[str] | None:
        """Names for the head: the data's where the teacher has none of its own; None where labels have none."""
        return self.label_names or None


def read_inputs(
    teacher: str | Path,
    recipe: Recipe,
    train: str | Path | None,
    dev: str | Path,
    columns: DataOptions | None,
    task: str | None,
    pooling: str | None,
) -> CompressInputs:
    """Read what the arguments of :func:`bitpress.recipes.compress.compress` of these names say.

    Raises:
        DataError, UnsupportedModelError, TrainingError: something is missing, or does not fit the rest.
    """
    if train is None and recipe.trains:
        raise TrainingError(f"recipe {recipe.name!r} trains the student; give labelled text to train on with --train")
    if train is None and recipe.widths and recipe.allocation.sensitivity is None:
        raise TrainingError(
            f"bits is {recipe.bits}, which is divided by a sensitivity that is measured on labelled text; give it with "
            "--train, or a finished measurement with --set sensitivity=DIR"
        )
    known = teacher_task(teacher, task, pooling)
    train_set = None if train is None else read_split(train, known.task, columns, known.label_names)
    own_names = known.label_names or (train_set.label_names if train_set else None)
    dev_set = read_split(dev, known.task, columns, own_names or None)
    check_pairs(dev_set)
    if train_set is not None and known.task.kind != EMBEDDING:
        check_same_form(train_set, dev_set)
    elif train_set is not None and recipe.uses_labels:
        check_pairs(train_set)
    config = known.config
    labelled, source = (dev_set, dev) if train_set is None else (train_set, train)
    if known.task.kind != "regression" and len(labelled.label_names) != config.num_labels:
        raise TrainingError(
            f"{source} has {len(labelled.label_names)} labels ({', '.join(labelled.label_names[:8])}), the teacher "
            f"{config.num_labels} without names of their own; give data in which every label occurs"
        )
    max_length = resolve_max_length(recipe.max_length, known.max_length, config)
    tokenizer = Tokenizer.from_directory(teacher)
    check_tokenizer(tokenizer, config, teacher)
    pad = config.pad_token_id or 0
    return CompressInputs(
        teacher_path=Path(teacher),
        known=known,
        recipe=recipe,
        max_length=max_length,
        tokenizer=tokenizer,
        train_set=train_set,
        dev_set=dev_set,
        train=None if train_set is None else tokenize(tokenizer, train_set, max_length, pad, known.spans),
        dev=tokenize(tokenizer, dev_set, max_length, pad, known.spans),
    )


def compress_settings(inputs: CompressInputs, columns: DataOptions | None, seed: int) -> dict[str, Any]:
    """All that a result depends on, as JSON values: a run of other settings is not continued."""
    recipe = inputs.recipe.as_dict()
    init = init_directory(inputs.recipe.student)
    for stage in recipe["stages"]:
        if stage["schedule"]:
            stage["schedule"]["checkpoint_seconds"] = None  # has no effect on the result
    return {
        "command": "compress",
        "bitpress": bitpress.__version__,
        "recipe": recipe,
        "seed": seed,
        "teacher_sha256": weights_digest(inputs.teacher_path),
        "student_sha256": None if init is None else weights_digest(init),
        "sensitivity_sha256": sensitivity_digest(inputs.recipe),
        "task": dataclasses.asdict(inputs.known.task),
        "labels": inputs.label_names,
        "train_sha256": None if inputs.train_set is None else inputs.train_set.fingerprint,
        "dev_sha256": inputs.dev_set.fingerprint,
        "columns": dataclasses.asdict(columns or DataOptions()),
        "max_length": inputs.max_length,
        "head": inputs.known.config.head,
    }
