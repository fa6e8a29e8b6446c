"""Which bits the blocks of a student get, where a recipe has several to divide: Q-BERT's mixed precision."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from bitpress.encoder import SequenceClassifier
from bitpress.errors import RecipeError
from bitpress.freeze import weight_bytes
from bitpress.quantize import Policy, is_within, weight_policies
from bitpress.recipes.block_latency import BlockLatency, measure_block_latency
from bitpress.recipes.inputs import file_digest
from bitpress.recipes.progress import progress_bar
from bitpress.recipes.schema import Recipe
from bitpress.recipes.student import narrow_student
from bitpress.sensitivity import (
    Block,
    SensitivityReport,
    SensitivitySettings,
    encoder_blocks,
    load_sensitivity,
    measure_sensitivity,
)
from bitpress.sensitivity.allocation import (
    Allocation,
    Costs,
    allocate_by_loss,
    allocate_by_rank,
    check_budget,
    predicted_losses,
)
from bitpress.sensitivity.budget import Budget
from bitpress.sensitivity.report_file import FILE as SENSITIVITY_FILE
from bitpress.train import EncodedDataset


@dataclass(frozen=True)
class BlockBits:
    """One block: its Ω and trace (None: not measured), its bits, and the bytes of its weights with them, and under a
    budget of milliseconds their time."""

    name: str
    parameters: int
    omega: float | None
    trace: float | None
    bits: int
    bytes: int
    ms: float | None = None


@dataclass(frozen=True)
class DividedBits:
    """What was decided. Bytes are those of all blocks: ``bytes`` as decided, ``fp32_bytes`` unquantized. ``cost`` is
    what the budget limits, in its ``unit``: "bytes", the same, or "ms" of the whole model on one text; ``smallest`` and
    ``largest`` are what the widths allow, ``budget`` is None where none was set."""

    rule: str
    widths: tuple[int, ...]
    blocks: tuple[BlockBits, ...]
    bytes: int
    fp32_bytes: int
    unit: str
    cost: float
    budget: float | None
    smallest: float
    largest: float
    latency: BlockLatency | None = None

    @property
    def bits(self) -> dict[str, int]:
        """Of each block."""
        return {block.name: block.bits for block in self.blocks}


class Division:
    """The blocks of a student of a recipe that divides bits, with what each width of each costs. Made before anything
    is trained or measured, it refuses what cannot be.

    Args:
        student: as it enters the first stage with uniform weights; only shapes matter here.
        latency: of its blocks, where the budget is in milliseconds; None: it is measured, in seconds.

    Raises:
        RecipeError: no stage has uniform weights, or a budget that no bits keep.
    """

    def __init__(self, recipe: Recipe, student: SequenceClassifier, latency: BlockLatency | None = None) -> None:
        assert recipe.allocated_stage is not None, "set_bits asks for uniform weights"
        self.recipe, self.student, self.widths = recipe, student, recipe.widths
        self.policy = recipe.stages[recipe.allocated_stage].quantize
        self.blocks = layer_blocks(student, recipe.allocation.by)
        sizes = {width: weight_bytes(student, self._policy(width), recipe.packing) for width in self.widths}
        self.bytes = {
            block.name: {width: int(_within(sizes[width], block.name)) for width in self.widths}
            for block in self.blocks
        }
        self.parameters = {block.name: _parameters(student, block) for block in self.blocks}
        self.fp32_bytes = 4 * sum(self.parameters.values())
        wanted = recipe.allocation.budget
        self.budget = None if wanted is None else Budget.parse(wanted, self.fp32_bytes)
        self.latency: BlockLatency | None = None
        self.costs: Costs = self.bytes
        if self.budget is not None and self.budget.unit == "ms":
            self.latency = latency or measure_block_latency(
                student, recipe, {width: self._policy(width) for width in self.widths}, self.blocks
            )
            self.costs = self.latency.blocks
            self.latency.check_budget(self.budget.amount)
        elif self.budget is not None:
            check_budget(self.costs, self.budget)

    @property
    def _outside(self) -> float:
        """What the budget pays for besides the blocks."""
        return 0.0 if self.latency is None else self.latency.rest

    def divide(self, report: SensitivityReport | None) -> DividedBits:
        """The bits of each block.

        Args:
            report: with these blocks; None: all are equally sensitive, for sizes without a measurement.

        Raises:
            RecipeError: a block that the report does not have, or has with another size; a report without traces, where
                the rule needs them.
        """
        omega, trace = self._scores(report)
        rule = self.recipe.allocation.rule
        budget = None if self.budget is None else Budget(self.budget.amount - self._outside, self.budget.unit)
        found: Allocation
        if rule == "rank":
            found = allocate_by_rank(omega, self.costs, budget, self.recipe.allocation.high)
        else:
            assert budget is not None, "BitAllocation asks for one"
            losses = predicted_losses(trace, self.parameters, self._errors())
            found = allocate_by_loss(losses, self.costs, budget)
        blocks = tuple(
            BlockBits(
                name=name,
                parameters=self.parameters[name],
                omega=None if report is None else omega[name],
                trace=None if report is None else trace[name],
                bits=bits,
                bytes=self.bytes[name][bits],
                ms=None if self.latency is None else self.latency.blocks[name][bits],
            )
            for name, bits in found.bits.items()
        )
        return DividedBits(
            rule=rule,
            widths=self.widths,
            blocks=blocks,
            bytes=sum(block.bytes for block in blocks),
            fp32_bytes=self.fp32_bytes,
            unit="bytes" if self.budget is None else self.budget.unit,
            cost=self._outside + found.cost,
            budget=None if self.budget is None else self.budget.amount,
            smallest=self._outside + sum(min(choices.values()) for choices in self.costs.values()),
            largest=self._outside + sum(max(choices.values()) for choices in self.costs.values()),
            latency=self.latency,
        )

    def _scores(self, report: SensitivityReport | None) -> tuple[dict[str, float], dict[str, float]]:
        if report is None:
            return dict.fromkeys(self.costs, 1.0), {name: float(size) for name, size in self.parameters.items()}
        measured = {block.name: block for block in report.blocks}
        for name, size in self.parameters.items():
            if name not in measured:
                raise RecipeError(
                    f"the sensitivity report has no block {name!r}, but {', '.join(measured)}; measure the blocks that "
                    f"allocation.by={self.recipe.allocation.by} divides, or set by as it was measured"
                )
            if measured[name].size != size:
                raise RecipeError(
                    f"block {name!r} has {measured[name].size:,} parameters in the sensitivity report and {size:,} in "
                    "the student; measure the model that is compressed, with include=matrices"
                )
        if self.recipe.allocation.rule == "error" and not any(s.traces for b in report.blocks for s in b.samples):
            raise RecipeError(
                "the sensitivity report has no traces, which allocation.rule=error needs; measure with probes"
            )
        omega = {name: measured[name].omega for name in self.parameters}
        return omega, {name: measured[name].trace for name in self.parameters}

    @torch.no_grad()
    def _errors(self) -> dict[str, dict[int, float]]:
        """‖W − q(W)‖² of each block at each width."""
        errors: dict[str, dict[int, float]] = {block.name: {} for block in self.blocks}
        for width in self.widths:
            each = {}
            for name, wanted in weight_policies(self.student, self._policy(width)).items():
                weight = self.student.get_parameter(f"{name}.weight")
                quantizer = wanted.quantizer(len(weight))
                each[name] = 0.0 if quantizer is None else _squared_difference(weight, quantizer(weight))
            for block in errors:
                errors[block][width] = _within(each, block)
        return errors

    def _policy(self, width: int) -> Policy:
        return self.policy.with_bits({block.name: width for block in self.blocks})


def layer_blocks(model: SequenceClassifier, by: str) -> tuple[Block, ...]:
    """The blocks among which bits are divided: of the layers, as the paper's "encoder weights". Pooler and embeddings
    have bits of their own."""
    return tuple(block for block in encoder_blocks(model, by) if block.name.startswith("layers."))


def check_division(recipe: Recipe, student: SequenceClassifier) -> BlockLatency | None:
    """Refuse, before any training, what cannot be: a budget that no bits keep, a measurement of other blocks.

    Returns:
        The latency of the blocks, where the budget is in milliseconds.

    Raises:
        RecipeError, DataError: see :class:`Division`.
    """
    if not recipe.widths:
        return None
    if recipe.student.width < 1:  # which neurons go takes data to decide, how many does not
        student = copy.deepcopy(student)
        narrow_student(student, recipe.student.width, None)
    division, finished = Division(recipe, student), recipe.allocation.sensitivity
    if finished is not None:
        division.divide(load_sensitivity(finished))
    elif recipe.allocation.rule == "rank":
        division.divide(None)
    return division.latency


def divide_bits(
    recipe: Recipe,
    student: SequenceClassifier,
    train: EncodedDataset | None,
    resume: Path,
    seed: int,
    console: Console,
    quiet: bool,
    latency: BlockLatency | None = None,
) -> DividedBits:
    """The bits of each block by a finished measurement, or by one that is made now.

    Args:
        student: in fp32, as it enters the first stage with uniform weights; its own weights and labels are measured.
        train: labelled texts; needed where the recipe names no finished measurement.
        resume: a directory for the measurement, which goes on there after an interruption.
        latency: as :func:`check_division` found it. The first one of a run is kept in ``resume``, so that the run
            goes on with the same bits.

    Raises:
        RecipeError, DataError, TrainingError: see :class:`Division` and :func:`measure_sensitivity`.
    """
    division = Division(recipe, student, None if latency is None else latency.kept(resume / "latency.json"))
    directory = recipe.allocation.sensitivity
    if directory is not None:
        report = load_sensitivity(directory)
    else:
        assert train is not None, "the caller asks for training data"
        report = _measured(recipe, student, division.blocks, train, resume, seed, console, quiet)
    found = division.divide(report)
    if not quiet:
        console.print("\n".join(in_words(found)), highlight=False, markup=False, soft_wrap=True)
    return found


def sensitivity_digest(recipe: Recipe) -> str | None:
    """sha256 of the finished measurement that the recipe names, None if it names none.

    Raises:
        DataError: it cannot be read.
    """
    if recipe.allocation.sensitivity is None:
        return None
    load_sensitivity(recipe.allocation.sensitivity)  # names what is wrong with it
    path = Path(recipe.allocation.sensitivity)
    return file_digest(path / SENSITIVITY_FILE if path.is_dir() else path)


def _measured(
    recipe: Recipe,
    student: SequenceClassifier,
    blocks: Sequence[Block],
    train: EncodedDataset,
    resume: Path,
    seed: int,
    console: Console,
    quiet: bool,
) -> SensitivityReport:
    if not quiet:
        console.print(
            f"measuring the sensitivity of {len(blocks)} blocks (`bitpress sensitivity` does it once for many recipes)",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    resume.mkdir(parents=True, exist_ok=True)
    with progress_bar("Hessian products", quiet) as advance:
        return measure_sensitivity(
            student,
            train,
            blocks,
            SensitivitySettings(seed=seed),
            progress=lambda event: advance(event.products, event.most),
            resume=resume,
        )


def in_words(found: DividedBits) -> list[str]:
    """A table of the blocks, and what they take together."""
    scored, timed = found.blocks[0].omega is not None, found.latency is not None
    width = max(len(block.name) for block in found.blocks)
    head = f"  {'block':<{width}}  {'parameters':>12}" + (f"  {'Ω':>10}  {'trace':>10}" if scored else "")
    head += f"  bits  {'bytes':>12}" + (f"  {'ms':>8}" if timed else "")
    lines = [f"bits of the blocks, {'/'.join(map(str, found.widths))} by {found.rule}:", head]
    for block in found.blocks:
        line = f"  {block.name:<{width}}  {block.parameters:>12,}"
        if scored:
            line += f"  {block.omega:>10.4g}  {block.trace:>10.4g}"
        line += f"  {block.bits:>4}  {block.bytes:>12,}"
        lines.append(line + (f"  {block.ms:>8.3f}" if timed else ""))
    smaller = f"{found.fp32_bytes / found.bytes:.1f}× smaller than fp32"
    if found.latency is not None:
        lines += [
            f"  together {found.bytes:,} bytes ({smaller})",
            f"  one text of {found.latency.tokens} tokens, {found.latency.threads} threads: {found.cost:.3f} ms of at "
            f"most {found.budget:.3f}, {found.latency.rest:.3f} of them outside the blocks (possible: "
            f"{found.smallest:.3f} to {found.largest:.3f})",
        ]
    else:
        limit = "" if found.budget is None else f" of at most {found.budget:,.0f}"
        possible = f"{found.smallest:,.0f} to {found.largest:,.0f}"
        lines.append(f"  together {found.bytes:,} bytes{limit} ({smaller}; possible: {possible})")
    return lines


def as_record(found: DividedBits) -> dict[str, Any]:
    """JSON values, for provenance.json."""
    record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(found)))
    return record


def _within(values: Mapping[str, Any], block: str) -> Any:
    return sum(value for name, value in values.items() if is_within(name, block))


def _parameters(model: SequenceClassifier, block: Block) -> int:
    return sum(model.get_parameter(name).numel() for name in block.parameters)


def _squared_difference(a: Tensor, b: Tensor) -> float:
    """Σ (a − b)², along rows first, in fp64, so that threads do not matter."""
    return float((a - b).square().sum(dim=1, dtype=torch.float64).sum())
