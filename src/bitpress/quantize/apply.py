"""Carry out a policy on an encoder, say what it did, and read the codes back for the artifact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bitpress.encoder.activations import ACTIVATIONS
from bitpress.encoder.layers import ActivationPoint, EmbeddingTable, Linear, is_quantizers
from bitpress.encoder.model import Attention, FeedForward
from bitpress.errors import RecipeError
from bitpress.quantize.binary import AllAttention, BinaryQuantizer, BooleanAttention, CentredSignQuantizer
from bitpress.quantize.elastic import ElasticQuantizer
from bitpress.quantize.gobo import GoboQuantizer
from bitpress.quantize.learned_range import LearnedRangeQuantizer
from bitpress.quantize.learned_scale import LearnedScale
from bitpress.quantize.loss_aware import TERNARY_QUANTIZERS
from bitpress.quantize.policy import POSITION_EMBEDDING, ActivationPolicy, Policy, WeightPolicy, is_within
from bitpress.quantize.uniform import ActivationQuantizer
from bitpress.quantize.uniform_weights import UniformWeightQuantizer

_HEAD = "classifier"


@dataclass(frozen=True)
class ReportRow:
    """One tensor or activation point. ``group`` is what shares a scale; an activation has 0 parameters."""

    name: str
    kind: str  # "weight" or "activation"
    scheme: str
    bits: int
    group: str
    parameters: int


@dataclass(frozen=True)
class LeftFp32:
    """A tensor (or activation point, with 0 parameters) that the policy does not quantize, and why."""

    name: str
    parameters: int
    reason: str


@dataclass(frozen=True)
class AppliedPolicy:
    """What :func:`apply_policy` did."""

    policy: Policy
    _rows: tuple[ReportRow, ...]
    _left: tuple[LeftFp32, ...]

    def report(self) -> list[ReportRow]:
        """Every parameter tensor in the model's order, then every activation point."""
        return list(self._rows)

    def left_fp32(self) -> list[LeftFp32]:
        """Everything that stays fp32, with its number of parameters and the reason; to be shown before training."""
        return list(self._left)


def apply_policy(model: nn.Module, policy: Policy) -> AppliedPolicy:
    """Set the quantizers of ``policy`` on every linear but the classifier, on the embeddings of words and positions and
    on every activation point of ``model``, replacing earlier ones (with them, static ranges). Quantizers on a learned
    scale continue with the scales and thresholds of those of their kind that they replace.

    Token-type embeddings, biases, LayerNorm and the classifier stay fp32, as published (TernaryBERT §3).

    Raises:
        RecipeError: see :func:`weight_policies`.
    """
    activations = policy.activations
    weights_of = weight_policies(model, policy)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    never_negative, channels = _never_negative(model), _channels(model)
    attention = {"bool": BooleanAttention, "all": AllAttention}[activations.attention]
    weights: dict[str, WeightPolicy] = {}
    linears, points = [], []
    for name, module in list(model.named_modules()):
        if isinstance(module, (Linear, EmbeddingTable)):
            wanted = weights_of.get(name)
            quantizer = None if wanted is None else wanted.quantizer(len(module.weight))
            del module.weight_quantizer  # torch lets nothing but a module take the place of one
            if isinstance(quantizer, nn.Module):
                quantizer.to(device).train(module.training)
            module.weight_quantizer = quantizer
            if wanted is not None and module.weight_quantizer is not None:
                weights |= {f"{name}.weight": wanted, f"{name}.second_weight": wanted}
        if isinstance(module, Linear) and name != _HEAD:
            linears.append(name)
            own = activations.input_quantizer(module.in_features, module not in never_negative)
            module.input_quantizer = _replaced(module.input_quantizer, own, device, module.training)
        elif isinstance(module, ActivationPoint):
            points.append((name, module))
            new = activations.quantizer(module.kind, module not in never_negative, channels.get(module))
            module.quantizer = _replaced(module.quantizer, new, device, module.training)
        elif isinstance(module, Attention):
            module.weigh = attention() if activations.scheme == "binary" else None
    rows, left = _tensor_rows(model, weights)
    _append_activations(rows, left, activations, linears, points)
    return AppliedPolicy(policy, tuple(rows), tuple(left))


def weight_policies(model: nn.Module, policy: Policy) -> dict[str, WeightPolicy]:
    """How the weights of every linear but the classifier and of the embeddings of words and positions are to be stored,
    by module name, with groups as their matrices have them.

    Raises:
        RecipeError: ``policy.blocks`` names what the model does not have, or a matrix cannot have so many groups.
    """
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (Linear, EmbeddingTable)) and name != _HEAD
    }
    known = [*modules, "pooler.dense"]  # a recipe may name the pooler, which a classifier of tokens does not have
    for block in policy.blocks:
        if not any(is_within(name, block) for name in known):
            raise RecipeError(
                f"blocks has {block!r}, which the model does not have; allowed: {', '.join(_blocks(modules))}"
            )
    wanted = {}
    for name, module in modules.items():
        try:
            wanted[name] = policy.weights_of(name).of_rows(len(module.weight))
        except RecipeError as error:
            raise RecipeError(f"{name}.weight: {error}") from error
        if wanted[name].is_loss_aware and module.second_weight is not None:
            raise RecipeError(
                f"{name}.weight is split in two, which method {wanted[name].method!r} does not read the state of; set "
                "method=twn in the stages after the split"
            )
        if wanted[name].scheme == "codebook" and module.second_weight is not None:
            raise RecipeError(f"{name}.weight is split in two, which no artifact holds as codebooks; use scheme binary")
    return wanted


def _blocks(modules: Iterable[str]) -> list[str]:
    """What ``blocks`` of a policy can name: the modules and everything they are part of, layers written once."""
    found: dict[str, None] = {}
    layers = [int(name.split(".")[1]) for name in modules if name.startswith("layers.")]
    for name in modules:
        parts = name.split(".")
        if parts[0] == "layers":
            parts[1] = f"0…{max(layers)}"
        found |= dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return list(found)


def _never_negative(model: nn.Module) -> set[nn.Module]:
    """The activation points whose numbers are at least 0, and the linears that read them: probabilities, and what a
    feed-forward network's relu gives."""
    found: set[nn.Module] = {m for m in model.modules() if isinstance(m, ActivationPoint) and m.kind == "probabilities"}
    for module in model.modules():
        if isinstance(module, FeedForward) and module.function is ACTIVATIONS["relu"]:
            found |= {module.activation, module.output}
    return found


def _channels(model: nn.Module) -> dict[nn.Module, int]:
    """Numbers a token of the activation points of queries and keys."""
    return {
        point: module.query.out_features
        for module in model.modules()
        if isinstance(module, Attention)
        for point in (module.query_states, module.key_states)
    }


def _replaced(old: object, new: nn.Module | None, device: torch.device, training: bool) -> Any:
    """``new`` in the place of ``old``, ready to run."""
    if new is None:
        return None
    if isinstance(new, LearnedScale) and type(old) is type(new) and old.signed == new.signed:
        new.continue_from(old)
    return new.to(device).train(training)


def _append_activations(
    rows: list[ReportRow],
    left: list[LeftFp32],
    activations: ActivationPolicy,
    linears: list[str],
    points: list[tuple[str, ActivationPoint]],
) -> None:
    """One line an activation point, or where linears quantize their inputs themselves, one a linear."""
    scheme, bits = activations.scheme, activations.stored_bits
    if scheme == "elastic":
        rows += [ReportRow(f"{name}.input", "activation", scheme, bits, "tensor", 0) for name in linears]
    for name, point in points:
        if scheme == "elastic" and point.kind == "rows":
            continue
        if scheme == "fp32":
            rows.append(ReportRow(name, "activation", "fp32", 32, "", 0))
            left.append(LeftFp32(name, 0, "the policy keeps activations in fp32"))
            continue
        # Signs have no scale to share.
        group = {"binary": "", "elastic": "tensor"}.get(scheme, activations.range)
        rows.append(ReportRow(name, "activation", scheme, bits, _GROUPS[point.kind] if group == "token" else group, 0))


def encode_weights(model: nn.Module) -> dict[str, tuple[Tensor | None, ...]]:
    """Every quantized weight as the next forward pass uses it: name → codes and scales, as its quantizer's ``encode``
    gives them; of one that is split, both parts' stacked: [2, rows, cols] and [2], or [2, rows] of rows."""
    encoded: dict[str, tuple[Tensor | None, ...]] = {}
    for name, module in model.named_modules():
        if isinstance(module, (Linear, EmbeddingTable)):
            quantizer = module.weight_quantizer
            if not isinstance(quantizer, (*TERNARY_QUANTIZERS, UniformWeightQuantizer, GoboQuantizer, BinaryQuantizer)):
                continue
            encoded[f"{name}.weight"] = quantizer.encode(module.weight)
            if module.second_weight is not None:
                assert not isinstance(quantizer, GoboQuantizer), "weight_policies refuses it"
                parts = zip(encoded[f"{name}.weight"], quantizer.encode(module.second_weight), strict=True)
                stacked = tuple(None if a is None or b is None else torch.stack([a, b]) for a, b in parts)
                if quantizer.group == "matrix":  # one scale each
                    stacked = tuple(x.squeeze(1) if x is not None and x.dim() == 2 else x for x in stacked)
                encoded[f"{name}.weight"] = stacked
    return encoded


def activation_ranges(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Every static or learned activation range: point name → (scale, offset), each exactly an fp32 number.

    Raises:
        TrainingError: a point has not seen a batch.
    """
    ranges = {}
    for name, module in model.named_modules():
        if not isinstance(module, ActivationPoint):
            continue
        quantizer = module.quantizer
        if isinstance(quantizer, LearnedRangeQuantizer) or (
            isinstance(quantizer, ActivationQuantizer) and quantizer.range == "static"
        ):
            ranges[name] = quantizer.static_range(module.kind)
    return ranges


@torch.no_grad()
def fold_centres(model: nn.Module) -> None:
    """Move the means that queries and keys are taken off into the biases of their linears, in place: the same signs,
    but for the rounding of a sum. What an artifact stores is a model without means."""
    for linear, quantizer in _centres(model):
        linear.bias.sub_(quantizer.mean)
        quantizer.mean.zero_()


def has_centres(model: nn.Module) -> bool:
    """Whether there are means for :func:`fold_centres` to move."""
    return any(bool(quantizer.mean.any()) for _, quantizer in _centres(model))


def _centres(model: nn.Module) -> Iterator[tuple[Linear, CentredSignQuantizer]]:
    """The linears of queries and keys that are taken off their means, each with the quantizer that knows it."""
    for module in model.modules():
        if isinstance(module, Attention):
            for linear, point in ((module.query, module.query_states), (module.key, module.key_states)):
                if isinstance(point.quantizer, CentredSignQuantizer):
                    yield linear, point.quantizer


def elastic_quantizers(model: nn.Module) -> dict[str, ElasticQuantizer]:
    """The elastic quantizers by name: ``LINEAR.input`` of a linear, else the activation point's."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear) and isinstance(module.input_quantizer, ElasticQuantizer):
            found[f"{name}.input"] = module.input_quantizer
        elif isinstance(module, ActivationPoint) and isinstance(module.quantizer, ElasticQuantizer):
            found[name] = module.quantizer
    return found


# What shares a range under range "token".
_GROUPS = {"rows": "token", "head_rows": "token and head", "head_block": "text and head", "probabilities": "query"}


def _tensor_rows(model: nn.Module, weights: dict[str, WeightPolicy]) -> tuple[list[ReportRow], list[LeftFp32]]:
    rows, left = [], []
    for name, parameter in model.named_parameters():
        if is_quantizers(name):
            continue
        size = parameter.numel()
        if name in weights:
            wanted = weights[name]
            rows.append(ReportRow(name, "weight", wanted.scheme, wanted.stored_bits, wanted.shares_scale, size))
        else:
            rows.append(ReportRow(name, "weight", "fp32", 32, "", size))
            left.append(LeftFp32(name, size, _reason(model, name)))
    return rows, left


def _reason(model: nn.Module, name: str) -> str:
    """Why a parameter that no quantizer took stays fp32."""
    owner, _, attribute = name.rpartition(".")
    module = model.get_submodule(owner)
    if owner == _HEAD:
        return "task head: few parameters, and quantizing it costs accuracy"
    if isinstance(module, nn.LayerNorm):
        return "LayerNorm: few parameters, computed in fp32"
    if isinstance(module, nn.Embedding) or owner == POSITION_EMBEDDING:
        return "small embedding table, added in fp32"
    if isinstance(module, (Linear, EmbeddingTable)) and attribute in ("weight", "second_weight"):
        return "the policy keeps it in fp32"
    return "bias: added in fp32 after the integer sum"
