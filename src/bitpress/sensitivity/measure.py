"""The measurement: samples of the training set, one after the other, and of each every block's eigenvalue and trace.

Everything is a function of (weights, data, blocks, settings). What a sample starts with (the eigenvectors that the one
before it ended with) is stored after every sample, so that a measurement killed at any moment goes on to the same
numbers, on the same machine with the same number of threads.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitpress.encoder import ActivationPoint, EmbeddingTable, Linear, SequenceClassifier
from bitpress.errors import RecipeError, TrainingError
from bitpress.sensitivity.blocks import Block, block_tensors
from bitpress.sensitivity.hessian import (
    BlockHessians,
    Products,
    power_iteration,
    rademacher_traces,
    random_normal,
    random_signs,
)
from bitpress.sensitivity.losses import sample_batches, sample_hessians, sample_indices
from bitpress.sensitivity.report import (
    MIN_ITERATIONS,
    BlockSensitivity,
    SampleMeasurement,
    SensitivityReport,
    SensitivitySettings,
)
from bitpress.train import EncodedDataset
from bitpress.train.checkpoint import CheckpointStore, model_tensors, tensors_digest
from bitpress.train.schedule import derive_seed


@dataclass(frozen=True)
class SensitivityProgress:
    """How far a measurement is: after every pass over the blocks. ``products`` were computed of at most ``most``;
    blocks that converge early need fewer."""

    sample: int
    samples: int
    products: int
    most: int


def measure_sensitivity(
    model: SequenceClassifier,
    data: EncodedDataset,
    blocks: Sequence[Block],
    settings: SensitivitySettings,
    *,
    progress: Callable[[SensitivityProgress], None] | None = None,
    resume: Path | None = None,
    warn: Callable[[str], None] = lambda text: None,
) -> SensitivityReport:
    """Eigenvalue of largest magnitude and trace of the loss's Hessian by each block, on every sample.

    Args:
        model: fp32, without quantizers; left in eval mode. The loss is its head's: cross-entropy or squared error.
        data: labelled training texts, with the model's own label order.
        resume: a directory that remembers finished samples; None: nothing is remembered.
        warn: is told of damaged entries of ``resume`` that are passed over.

    Raises:
        RecipeError: no blocks, a block of another model, or a model with quantizers or other than fp32.
        TrainingError: data without labels or texts, products that are not finite, or ``resume`` of other arguments.
    """
    check_full_precision(model)
    if not blocks:
        raise RecipeError("no blocks to measure; encoder_blocks(model) makes some")
    if not len(data):
        raise TrainingError("no texts to measure on; give at least one labelled text")
    model.eval()
    measurement = _Measurement(model, data, tuple(blocks), settings, progress)
    if resume is None:
        while measurement.done < settings.samples:
            measurement.measure_next()
        return measurement.report()
    store = CheckpointStore(resume, warn)
    with store.locked():
        store.begin(measurement.fingerprint(), {})
        if (finished := store.finished()) is not None:
            measurement.restore(*finished)
            return measurement.report()
        if (newest := store.newest()) is not None:
            measurement.restore(newest.state, newest.model)
        while measurement.done < settings.samples:
            measurement.measure_next()
            if measurement.done < settings.samples:
                store.save(measurement.done, measurement.starts, {}, None, None, measurement.state())
        store.finish({}, measurement.state())
    return measurement.report()


def check_full_precision(model: nn.Module) -> None:
    """RecipeError where ``model`` has quantizers or parameters that are not fp32: second derivatives mean nothing."""
    for name, module in model.named_modules():
        quantizers = []
        if isinstance(module, (Linear, EmbeddingTable)):
            quantizers = [module.weight_quantizer, getattr(module, "input_quantizer", None)]
        elif isinstance(module, ActivationPoint):
            quantizers = [module.quantizer]
        if any(quantizer is not None for quantizer in quantizers):
            raise RecipeError(f"{name} has a quantizer; measure the sensitivity of the full-precision model")
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise RecipeError(f"{name} is {kind}; second derivatives need float32, which model.float() makes")


class _Measurement:
    """A measurement under way."""

    def __init__(
        self,
        model: SequenceClassifier,
        data: EncodedDataset,
        blocks: tuple[Block, ...],
        settings: SensitivitySettings,
        progress: Callable[[SensitivityProgress], None] | None,
    ) -> None:
        self.model, self.data, self.blocks, self.settings, self._progress = model, data, blocks, settings, progress
        self.sizes = {block.name: sum(t.numel() for t in block_tensors(model, block)) for block in blocks}
        self.device = next(model.parameters()).device
        self.weights_sha256 = tensors_digest(model_tensors(model))
        self.data_sha256 = data.digest()
        self.done = self.texts = self.tokens = 0
        self.seconds = 0.0
        self.measured: dict[str, list[SampleMeasurement]] = {block.name: [] for block in blocks}
        self.starts: dict[str, Tensor] = {}

    def fingerprint(self) -> dict[str, Any]:
        return {
            "settings": dataclasses.asdict(self.settings),
            "weights_sha256": self.weights_sha256,
            "data_sha256": self.data_sha256,
            "blocks": {block.name: list(block.parameters) for block in self.blocks},
        }

    def state(self) -> dict[str, Any]:
        return {
            "texts": self.texts,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "measured": {name: [dataclasses.asdict(s) for s in samples] for name, samples in self.measured.items()},
        }

    def restore(self, state: Mapping[str, Any], starts: dict[str, Tensor]) -> None:
        self.texts, self.tokens, self.seconds = state["texts"], state["tokens"], state["seconds"]
        for name, samples in state["measured"].items():
            self.measured[name] = [SampleMeasurement(**{**s, "traces": tuple(s["traces"])}) for s in samples]
        self.done = len(self.measured[self.blocks[0].name])
        self.starts = {name: vector.to(self.device) for name, vector in starts.items()}

    def measure_next(self) -> None:
        """Measure every block on the next sample."""
        begin = time.perf_counter()
        settings, number = self.settings, self.done
        indices = sample_indices(self.data.lengths, number, settings)
        batches = sample_batches(self.data, indices, self.device)
        if not self.starts:
            self.starts = {name: self._random("start", name, random_normal) for name in self.sizes}
        products = self._counted(sample_hessians(self.model, self.blocks, batches))
        pairs = power_iteration(products, self.starts, self._limits(), settings.tolerance)
        signs = [
            {name: self._random(f"trace {number} {probe}", name, random_signs) for name in self.sizes}
            for probe in range(settings.probes_of(number))
        ]
        traces = rademacher_traces(products, signs)
        for name, pair in pairs.items():
            measured = SampleMeasurement(
                eigenvalue=pair.value,
                change=pair.change,
                converged=pair.converged,
                iterations=pair.iterations,
                traces=traces.get(name, ()),
                products=pair.iterations + len(traces.get(name, ())),
            )
            self.measured[name].append(measured)
        self.starts = {name: pair.vector for name, pair in pairs.items()}
        self.texts += len(indices)
        self.tokens += int(self.data.lengths[indices].sum())
        self.done += 1
        self.seconds += time.perf_counter() - begin

    def _limits(self) -> dict[str, int]:
        """Iterations that each block may take on the next sample: an even share of what is left, on the first sample,
        which starts from a random vector, at least a quarter; :data:`MIN_ITERATIONS` stay for each later one."""
        settings, left = self.settings, self.settings.samples - self.done
        limits = {}
        for name, samples in self.measured.items():
            budget = settings.max_products - settings.probes - sum(sample.iterations for sample in samples)
            share = -(-budget // left)
            if self.done == 0:
                share = max(share, budget // 4)
            limits[name] = min(share, budget - (left - 1) * MIN_ITERATIONS)
        return limits

    def _random(self, purpose: str, name: str, draw: Callable[[int, int], Tensor]) -> Tensor:
        return draw(self.sizes[name], derive_seed(self.settings.seed, purpose, name)).to(self.device)

    def _counted(self, hessians: BlockHessians[Any]) -> Products:
        """``hessians``, and progress told after every call."""
        before = sum(sample.products for samples in self.measured.values() for sample in samples)
        count = 0

        def products(vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            nonlocal count
            found = hessians(vectors)
            count += len(vectors)
            if self._progress is not None:
                most = self.settings.max_products * len(self.blocks)
                self._progress(SensitivityProgress(self.done, self.settings.samples, before + count, most))
            return found

        return products

    def report(self) -> SensitivityReport:
        return SensitivityReport(
            settings=self.settings,
            weights_sha256=self.weights_sha256,
            data_sha256=self.data_sha256,
            texts=self.texts,
            tokens=self.tokens,
            blocks=tuple(
                BlockSensitivity(block.name, block.parameters, self.sizes[block.name], tuple(self.measured[block.name]))
                for block in self.blocks
            ),
            seconds=round(self.seconds, 3),
        )
