r"""Second derivatives of a model's loss, a block of parameters at a time (PyHessian, Yao et al. 2020, arXiv 1912.07145;
Q-BERT, Shen et al. 2020, arXiv 1909.05840, §3).

    H_i = ∂²L/∂W_i²,   g_i = ∂L/∂W_i,   H_i·v = ∂(g_iᵀv)/∂W_i   with v constant

No H_i is ever formed: everything comes from products H_i·v. A vector of a block is flat, fp32 [size], its parameters
one after the other. Vectors of several blocks travel together, ``{block name: vector}``, because the forward pass and
the first backward pass of a batch are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from bitpress.errors import TrainingError
from bitpress.sensitivity.blocks import Block, block_tensors

B = TypeVar("B")
Vectors = Mapping[str, Tensor]
Products = Callable[[Vectors], dict[str, Tensor]]


class BlockHessians(Generic[B]):
    """H_i·v of every block of a model on one sample: a :data:`Products`.

    Graphs are kept from call to call, or else built again batch by batch in every call, so that memory is bounded by
    one batch; with many blocks the products take far longer than the graphs.

    Args:
        model: in eval mode, every parameter of the blocks fp32. Fused attention has no second derivative: ``loss``
            must go another way (:func:`bitpress.sensitivity.losses.summed_loss` does).
        batches: the sample.
        loss: (model, batch) → the sum of the losses of a batch's texts, a scalar.
        count: texts in all batches; L is the mean over them.
        keep: whether graphs are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[Block],
        batches: Sequence[B],
        loss: Callable[[nn.Module, B], Tensor],
        count: int,
        keep: bool = True,
    ) -> None:
        self._model, self._batches, self._loss, self._count, self._keep = model, batches, loss, count, keep
        self._parameters = {block.name: block_tensors(model, block) for block in blocks}
        self._kept: dict[int, dict[str, list[Tensor | None]]] = {}

    def __call__(self, vectors: Vectors) -> dict[str, Tensor]:
        """H_i·v of each block named, fp32 [size]."""
        totals = {name: torch.zeros_like(vector) for name, vector in vectors.items()}
        for number, batch in enumerate(self._batches):
            gradients = self._kept.get(number) or self._gradients(batch)
            if self._keep:
                self._kept[number] = gradients
            for name, vector in vectors.items():
                self._add_product(totals[name], gradients[name], self._parameters[name], vector)
        return totals

    def _gradients(self, batch: B) -> dict[str, list[Tensor | None]]:
        """g_i of every block with its graph; None of a parameter that the loss does not depend on."""
        parameters = [parameter for part in self._parameters.values() for parameter in part]
        loss = self._loss(self._model, batch) / self._count
        found = iter(torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True))
        return {name: [next(found) for _ in part] for name, part in self._parameters.items()}

    @staticmethod
    def _add_product(
        total: Tensor, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], vector: Tensor
    ) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        parts = zip(gradients, parameters, vector.split(sizes), strict=True)
        # A gradient without a graph is constant: the loss is linear in that parameter, or does not have it.
        pairs = [(g, v.view_as(p)) for g, p, v in parts if g is not None and g.requires_grad]
        if not pairs:
            return
        products = torch.autograd.grad(
            [gradient for gradient, _ in pairs],
            list(parameters),
            [v for _, v in pairs],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        for part, product in zip(total.split(sizes), products, strict=True):
            part += product.reshape(-1)


@dataclass(frozen=True)
class Eigenpair:
    """An eigenvalue of one block, signed, its vector of length 1, and how it was found.

    change      |λ − λ'| / max(|λ|, |λ'|) of the last two values; of the first value 1
    iterations  as many Hessian-vector products
    """

    value: float
    vector: Tensor
    change: float
    converged: bool
    iterations: int


def power_iteration(
    products: Products,
    starts: Vectors,
    limits: Mapping[str, int],
    tolerance: float,
    known: Mapping[str, Sequence[Tensor]] | None = None,
) -> dict[str, Eigenpair]:
    r"""The eigenvalue of largest magnitude of each block, all blocks in step: v ← Hv/|Hv|, λ = vᵀHv.

    A block has converged when λ changed by less than ``tolerance`` of itself and |λ| ≥ (1 − tolerance)·|Hv|. The second
    condition is for two eigenvalues +a and −a, between which v turns to and fro for ever while λ stands still at a
    wrong value: with a share p of v in the one, |λ|/|Hv| = |2p − 1|. It never holds back a value that is right: with
    v = Σ c_j u_j and ρ_j = λ_j/λ_1, λ is wrong by Σ c_j²(1 − ρ_j) of itself, and falls short of |Hv| by
    Σ c_j²(1 − ρ_j)²/2 of that, which is no more, since (1 − ρ_j)/2 ≤ 1.

    Args:
        starts: of the blocks to measure; any length but 0.
        limits: Hessian-vector products of each block, at least 1.
        known: eigenvectors of length 1 that are left out (deflation): the result is orthogonal to them.

    Raises:
        TrainingError: a product is not finite.
    """
    known = known or {}
    current = {name: _unit(_without(start, known.get(name, ()))) for name, start in starts.items()}
    found: dict[str, Eigenpair] = {}
    values = dict.fromkeys(starts, 0.0)
    iteration = 0
    while current:
        iteration += 1
        for name, product in products(current).items():
            v = current[name]
            product = _without(product, known.get(name, ()))
            value, length = float(torch.dot(v, product)), float(product.norm())
            if not (abs(value) < float("inf") and length < float("inf")):
                raise TrainingError(
                    f"block {name!r}: the product of Hessian and vector is not finite; the model's loss overflows"
                )
            largest = max(abs(value), abs(values[name]))
            change = abs(value - values[name]) / largest if largest else 0.0
            # A random vector is orthogonal to no eigenvector, so its product is 0 where H is.
            converged = length == 0 or (change < tolerance and abs(value) >= (1 - tolerance) * length)
            if converged or iteration >= limits[name]:
                vector = v if length == 0 else product / length
                found[name] = Eigenpair(value, vector, change, converged, iteration)
                del current[name]
            else:
                current[name], values[name] = product / length, value
    return {name: found[name] for name in starts}


def rademacher_traces(products: Products, signs: Sequence[Vectors]) -> dict[str, tuple[float, ...]]:
    """vᵀHv of each block for each v of ``signs``, of random −1 and +1: the mean over them is an unbiased estimate of
    the trace (Hutchinson 1990), each with the variance 2·(‖H‖_F² − Σ H_kk²)."""
    estimates: dict[str, list[float]] = {name: [] for name in (signs[0] if signs else ())}
    for vectors in signs:
        for name, product in products(vectors).items():
            estimates[name].append(float(torch.dot(vectors[name], product)))
    return {name: tuple(values) for name, values in estimates.items()}


def random_normal(size: int, seed: int) -> Tensor:
    """N(0, 1), fp32 [size], a function of the seed."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def random_signs(size: int, seed: int) -> Tensor:
    """−1 and +1 with equal probability, fp32 [size], a function of the seed."""
    bits = torch.randint(0, 2, (size,), generator=torch.Generator().manual_seed(seed))
    return bits.mul_(2).sub_(1).float()


def _unit(v: Tensor) -> Tensor:
    return v / v.norm()


def _without(v: Tensor, known: Sequence[Tensor]) -> Tensor:
    """v without its components along ``known``."""
    for u in known:
        v = v - torch.dot(u, v) * u
    return v
