"""The measured part of ``bitpress sensitivity``: one block alone at low bits, scored on dev data, each remembered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from bitpress.data import Dataset, Task, headline, score
from bitpress.encoder import SequenceClassifier, model_loss
from bitpress.errors import TrainingError
from bitpress.recipes.evaluation import answers, logits_of
from bitpress.sensitivity import Block, BlockDrop, SensitivityReport, group_wise, measure_drop, rank_agreement
from bitpress.sensitivity.report_file import write_json
from bitpress.train import EncodedDataset

FILE = "measured.json"


def scores_of(model: SequenceClassifier, task: Task, dev: EncodedDataset, dev_set: Dataset) -> dict[str, float]:
    """The metrics of ``task`` and "loss", the mean over texts, or pairs, words that are classified, or windows."""
    logits = logits_of(model, dev)
    outputs, lengths = torch.from_numpy(logits).double(), torch.from_numpy(dev.lengths)
    if dev.windows is not None:
        outputs = pad_sequence(list(outputs.split(dev.lengths.tolist())), batch_first=True)
    labels = None if dev.labels is None else torch.from_numpy(dev.labels)
    loss = model_loss(model.config, outputs, labels, torch.arange(int(lengths.max())) < lengths[:, None])
    return {**score(task, answers(logits, dev, dev_set), dev_set), "loss": float(loss)}


def measure_drops(
    model: SequenceClassifier,
    task: Task,
    num_labels: int,
    dev: EncodedDataset,
    dev_set: Dataset,
    blocks: Sequence[Block],
    bits: Sequence[int],
    groups: int,
    directory: Path,
    report: SensitivityReport,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Every block alone at each of ``bits``; what ``measured.json`` in ``directory`` then holds.

    The file is written after every evaluation and holds what was measured before, also at other bits: a second call
    continues, or adds.

    Args:
        dev: ``dev_set``, encoded.
        progress: (evaluations done, evaluations in all).

    Raises:
        TrainingError: the file is of other dev data or groups.
    """
    metric = headline(task, dev_set, num_labels)
    path = directory / FILE
    of = {"dev_sha256": dev.digest(), "groups": groups, "metric": metric, "weights_sha256": report.weights_sha256}
    drops, baseline = _read(path, of)
    if baseline is None:
        baseline = scores_of(model, task, dev, dev_set)
    measured = {(drop.block, drop.bits) for drop in drops}
    todo = [(block, number) for number in bits for block in blocks if (block.name, number) not in measured]
    for i, (block, number) in enumerate(todo):
        progress(i, len(todo))
        drops.append(
            measure_drop(
                model,
                block,
                number,
                lambda _: scores_of(model, task, dev, dev_set),
                baseline,
                metric,
                group_wise(number, groups),
            )
        )
        _write(path, of, len(dev), baseline, drops, report)
    progress(len(todo), len(todo))
    return _write(path, of, len(dev), baseline, drops, report)


def _write(
    path: Path,
    of: dict[str, Any],
    n: int,
    baseline: dict[str, float],
    drops: Sequence[BlockDrop],
    report: SensitivityReport,
) -> dict[str, Any]:
    agreement = [dataclasses.asdict(one) for one in rank_agreement(report, drops)]
    document = {**of, "n": n, "baseline": baseline, "drops": [drop.as_dict() for drop in drops], "agreement": agreement}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
    return document


def _read(path: Path, of: dict[str, Any]) -> tuple[list[BlockDrop], dict[str, float] | None]:
    """What was measured before: drops, and the scores of the whole model."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [], None
    except ValueError:
        raise TrainingError(f"{path} is damaged; delete it to measure again") from None
    for key, value in of.items():
        if document.get(key) != value:
            raise TrainingError(
                f"{path} has {key} = {document.get(key)!r}; this run has {value!r}. Choose another --out, or delete it"
            )
    return [BlockDrop(**drop) for drop in document["drops"]], document["baseline"]
