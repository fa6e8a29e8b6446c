"""The only bridge from training to the engine: a fake-quantized student becomes an artifact.

``freeze`` asks each quantizer for the codes that its own forward pass used, so ``decode(file)`` equals the
fake-quantized tensor bit for bit (docs/numerics.md, point 1). It knows no byte layout: that is the writer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitpress.artifact import (
    ActivationSpec,
    ArtifactConfig,
    BinaryTensor,
    CodebookTensor,
    Outliers,
    StoredTensor,
    TaskSpec,
    TensorSpec,
    TernaryTensor,
    UniformTensor,
    expected_tensors,
    tensor_bytes,
    write_artifact,
)
from bitpress.encoder import SequenceClassifier
from bitpress.encoder.layers import EmbeddingTable, Linear, is_quantizers
from bitpress.errors import RecipeError, UnsupportedModelError
from bitpress.quantize import (
    POSITION_EMBEDDING,
    TERNARY_QUANTIZERS,
    WORD_EMBEDDING,
    ActivationPolicy,
    BinaryQuantizer,
    GoboCodes,
    GoboQuantizer,
    Policy,
    UniformWeightQuantizer,
    WeightPolicy,
    activation_ranges,
    elastic_quantizers,
    encode_weights,
    has_centres,
    weight_policies,
)

PACKINGS = ("2bit", "trits")


def is_side_data(name: str) -> bool:
    """Whether a recipe may store this tensor in half precision: embeddings of positions and token types, biases and
    LayerNorm; never a matrix that the policy left in fp32."""
    return name.startswith(("embeddings.position.", "embeddings.token_type.")) or (
        name.endswith(".bias") or ".norm." in name
    )


@torch.no_grad()
def round_side_data(model: SequenceClassifier) -> None:
    """Round every tensor of :func:`is_side_data` to half precision, in place, so that the student is what is stored.

    Raises:
        RecipeError: a value is beyond ±65,504.
    """
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, EmbeddingTable) and owner.weight_quantizer is not None:
            continue  # stored as codes
        if not is_quantizers(name) and is_side_data(name):
            halves = parameter.to(torch.float16)
            if bool(torch.isinf(halves).any()):
                raise RecipeError(f"side_data is 'fp16', but {name} has values beyond 65,504; use side_data=fp32")
            parameter.copy_(halves)


def check_freezable(model: SequenceClassifier, policy: Policy) -> None:
    """Refuse, before any training, what no artifact can hold.

    Raises:
        RecipeError: activation ranges that depend on the other texts of a batch; quantized weights on fp32
            activations, or the reverse; binary activations without binary weights; scales that the engine does not
            have.
        UnsupportedModelError: relative position embeddings; relu with binary activations.
    """
    if policy.activations.scheme == "uniform" and policy.activations.range == "tensor":
        raise RecipeError(
            "activations.range is 'tensor': such a range spans the whole batch, so a text's result would depend on "
            "the texts beside it and on padding, and no artifact can reproduce it. Use range=token (default) or "
            "range=static; to compare in training only, set freeze=false"
        )
    for name, weights in weight_policies(model, policy).items():
        if name not in (WORD_EMBEDDING, POSITION_EMBEDDING):
            where = "" if weights.scheme == policy.weights.scheme else f"{name}: "
            _check_scheme(where, weights, policy.activations, model.config.hidden_act)
    if model.config.position_embedding_type != "absolute":
        raise UnsupportedModelError(
            f"position_embedding_type is {model.config.position_embedding_type!r}; the engine runs 'absolute' only"
        )
    expected_tensors(model.config.to_artifact())  # raises for a hidden_act or a shape that the engine does not run


def _check_scheme(where: str, weights: WeightPolicy, activations: ActivationPolicy, hidden_act: str) -> None:
    """What the engine multiplies: weights of a linear, ``where`` it is if it differs from others, and activations."""
    scheme = weights.scheme
    if scheme != "fp32" and activations.scheme == "fp32":
        raise RecipeError(
            f"{where}weights.scheme is {scheme!r} with activations.scheme 'fp32': the engine multiplies {scheme} "
            "weights by quantized activations only. Set activations.scheme=uniform; to compare in training only, set "
            "freeze=false"
        )
    if scheme == "fp32" and activations.scheme == "uniform":
        raise RecipeError(
            f"{where}activations.scheme is 'uniform' with weights.scheme 'fp32': the engine quantizes activations only "
            "where the weights are quantized too. Set weights.scheme=uniform or ternary, or activations.scheme=fp32; "
            "to compare in training only, set freeze=false"
        )
    _check_bits(where, scheme, activations, hidden_act)
    if scheme == "ternary" and weights.group != "matrix":
        raise RecipeError(
            f"{where}weights.group is {weights.group!r}: the engine's ternary layers take one scale a matrix. "
            "Set weights.group=matrix; to compare in training only, set freeze=false"
        )


def _check_bits(where: str, scheme: str, activations: ActivationPolicy, hidden_act: str) -> None:
    """What a model of one-bit weights or activations may be."""
    if activations.scheme in ("binary", "elastic") and scheme != "binary":
        raise RecipeError(
            f"{where}activations.scheme is {activations.scheme!r} with weights.scheme {scheme!r}: the engine "
            "multiplies 1-bit activations by 1-bit weights only. Set weights.scheme=binary, or "
            "activations.scheme=uniform; to compare in training only, set freeze=false"
        )
    if activations.scheme == "elastic" and activations.bits != 1:
        raise RecipeError(
            f"activations.bits is {activations.bits}: the engine runs elastic activations of 1 bit only. Set "
            "activations.bits=1 in the last stage; to compare in training only, set freeze=false"
        )
    if activations.scheme == "elastic" and hidden_act != "relu":
        raise UnsupportedModelError(
            f"hidden_act is {hidden_act!r}: with elastic activations the input of the second feed-forward linear is 0 "
            "or 1, which needs numbers that are never negative. Set student.hidden_act=relu"
        )
    if activations.scheme == "binary" and hidden_act == "relu":
        raise UnsupportedModelError(
            "hidden_act is 'relu', which is never negative: as bits all its outputs are +1. Take a teacher with gelu, "
            "or set student.hidden_act=gelu"
        )


def freeze(
    model: SequenceClassifier,
    policy: Policy,
    out: str | Path,
    *,
    recipe: str,
    packing: str,
    side_data: str = "fp32",
    task: TaskSpec,
    max_length: int,
    tokenizer_files: Mapping[str, bytes],
    card: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write ``model``, with the quantizers that ``policy`` put on it, to the directory ``out``, atomically.

    Args:
        packing: "2bit" or "trits" (five weights to a byte) for ternary tensors.
        side_data: "fp32" or "fp16", of tensors that are not quantized (:func:`is_side_data`); as "fp16" they must hold
            such numbers already (:func:`round_side_data`).
        max_length: longest input in tokens, special ones included, that the model was trained for.
        card: the model card's text; ``provenance``: what made this artifact, stored as JSON.

    Raises:
        RecipeError, UnsupportedModelError: see ``check_freezable``; ArtifactError: ``out`` holds something else.
    """
    check_freezable(model, policy)
    if packing not in PACKINGS:
        raise RecipeError(f"packing is {packing!r}; allowed: {', '.join(PACKINGS)}")
    if has_centres(model):
        raise ValueError("queries and keys are taken off their means; call fold_centres first")
    encoded = encode_weights(model)
    tensors: dict[str, StoredTensor] = {}
    specs: dict[str, TensorSpec] = {}
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if is_quantizers(name) or name.endswith(".second_weight"):  # the latter is stored with the first
            continue
        if name in encoded:
            owner = model.get_submodule(name.removesuffix(".weight"))
            assert isinstance(owner, (Linear, EmbeddingTable)), "encode_weights takes no others"
            quantizer, is_split = owner.weight_quantizer, owner.second_weight is not None
            specs[name] = tensor_spec(quantizer, shape, packing, is_split, _outliers(encoded[name]))
            tensors[name] = _stored(encoded[name], specs[name])
        elif side_data == "fp16" and is_side_data(name):
            tensors[name] = parameter.detach().cpu().numpy().astype(np.float16)
            specs[name] = TensorSpec.fp16(shape)
        else:
            tensors[name] = parameter.detach().cpu().numpy().astype(np.float32, copy=False)
            specs[name] = TensorSpec.fp32(shape)
    activations = policy.activations
    config = ArtifactConfig(
        model=model.config.to_artifact(),
        recipe=recipe,
        activations=_activation_spec(activations),
        task=task,
        max_length=max_length,
        tensors=specs,
    )
    write_artifact(
        out,
        config,
        tensors,
        ranges=activation_ranges(model) if activations.scheme == "uniform" and activations.has_stored_ranges else {},
        elastic=_elastic(model),
        tokenizer_files=dict(tokenizer_files),
        card=card,
        provenance=dict(provenance),
    )


def _activation_spec(policy: ActivationPolicy) -> ActivationSpec:
    if policy.scheme == "binary":
        return ActivationSpec("binary", 1, attention=policy.attention)
    if policy.scheme == "elastic":
        return ActivationSpec("binary", 1, attention="softmax")
    return ActivationSpec(
        scheme=policy.scheme,
        bits=policy.stored_bits,
        symmetric=policy.symmetric,
        range="static" if policy.has_stored_ranges else policy.range,
        clip=policy.clip,
    )


def _elastic(model: SequenceClassifier) -> dict[str, np.ndarray]:
    """Scales, and a shift for each input of a linear, by the names that artifacts give them."""
    entries = {}
    for name, quantizer in elastic_quantizers(model).items():
        entries[f"{name}.scale"] = quantizer.step.reshape(1).cpu().numpy()
        if name.endswith(".input"):
            linear = model.get_submodule(name.removesuffix(".input"))
            assert isinstance(linear, Linear), "elastic_quantizers names them so"
            shift = torch.zeros(1) if quantizer.shift is None else quantizer.shift.detach().cpu()
            entries[f"{name}.shift"] = shift.expand(linear.in_features).contiguous().numpy()
    return entries


def tensor_spec(
    quantizer: object, shape: tuple[int, ...], packing: str, split: bool = False, outliers: int = 0
) -> TensorSpec:
    """How an artifact stores a weight of that shape with that quantizer (None: fp32); ``split``: as two terms;
    ``outliers``: how many of them a codebook does not hold."""
    if isinstance(quantizer, GoboQuantizer):
        return TensorSpec.codebook(shape, quantizer.bits, "matrix", outliers)
    if isinstance(quantizer, BinaryQuantizer):
        return TensorSpec.binary(shape, quantizer.group, quantizer.scale_bits, 2 if split else 1)
    if isinstance(quantizer, UniformWeightQuantizer):
        bits, symmetric = quantizer.bits, quantizer.symmetric
        return TensorSpec.uniform(shape, bits, symmetric, quantizer.group, quantizer.group_size)
    if isinstance(quantizer, TERNARY_QUANTIZERS):
        return TensorSpec.ternary(shape, packing, quantizer.group)
    return TensorSpec.fp32(shape)


def weight_bytes(model: SequenceClassifier, policy: Policy, packing: str = "2bit") -> dict[str, int]:
    """Bytes that an artifact needs for each weight that ``policy`` can quantize, by module name: codes with their
    padding, scales and offsets. ``model`` gives the shapes; nothing is quantized but what has outliers, to count them.

    Raises:
        RecipeError: see :func:`weight_policies`.
    """
    sizes = {}
    for name, wanted in weight_policies(model, policy).items():
        owner = model.get_submodule(name)
        assert isinstance(owner, (Linear, EmbeddingTable)), "weight_policies takes no others"
        quantizer = wanted.quantizer(len(owner.weight))
        outliers = _outliers(quantizer.encode(owner.weight)) if isinstance(quantizer, GoboQuantizer) else 0
        spec = tensor_spec(quantizer, tuple(owner.weight.shape), packing, owner.second_weight is not None, outliers)
        sizes[name] = tensor_bytes(f"{name}.weight", spec)
    return sizes


def _outliers(encoded: tuple[Tensor | None, ...]) -> int:
    """How many outliers a weight quantizer left."""
    return len(encoded.positions) if isinstance(encoded, GoboCodes) else 0


def _stored(encoded: tuple[Tensor | None, ...], spec: TensorSpec) -> StoredTensor:
    """What a weight quantizer encoded, as the artifact takes it."""
    if isinstance(encoded, GoboCodes):
        gobo_codes, gobo_scale, table, positions, values = (part.cpu().numpy() for part in encoded)
        rows, cols = spec.shape
        return CodebookTensor(gobo_codes, table, gobo_scale, Outliers.at(positions, values, (rows, cols)))
    codes, scale, *rest = (None if part is None else part.detach().cpu().numpy() for part in encoded)
    assert codes is not None  # only an offset may be absent
    assert scale is not None
    if spec.scheme == "binary":
        # Half precision is exact: the scales are such numbers.
        return BinaryTensor(codes, scale.astype(np.float16) if spec.scale_bits == 16 else scale)
    if spec.scheme == "ternary":
        return TernaryTensor(codes, scale)
    assert spec.group is not None  # uniform has one
    return UniformTensor(codes, scale, rest[0], spec.code_bits, spec.group, spec.group_size)
