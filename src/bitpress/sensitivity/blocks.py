"""Blocks: the parts of an encoder whose sensitivity is measured one by one, and among which bits are divided."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bitpress.encoder import EmbeddingTable, Linear
from bitpress.encoder.layers import is_quantizers
from bitpress.errors import RecipeError

GRANULARITIES = ("layer", "module", "matrix")
INCLUDED = ("matrices", "all")
# The head stays fp32 under every policy (quantize/apply.py), and the table of positions is small beside the words'.
_HEAD, _POSITIONS = "classifier", "embeddings.position"


@dataclass(frozen=True)
class Block:
    """Parameters that are measured together. ``name`` is a prefix, by whole dotted parts, of each of ``parameters``,
    which are the model's own names: "layers.3.ffn" of "layers.3.ffn.output.weight"."""

    name: str
    parameters: tuple[str, ...]


def encoder_blocks(model: nn.Module, by: str = "layer", include: str = "matrices") -> tuple[Block, ...]:
    """The blocks of ``model`` in the order of its parameters; no parameter is in two.

    Args:
        by: "layer", ``layers.N`` only, the blocks of Q-BERT (Shen et al. 2020, §3); "module", ``embeddings.word``,
            ``layers.N.attention``, ``layers.N.ffn`` and ``pooler``; "matrix", each matrix on its own.
        include: "matrices", what a policy quantizes: the weights of linears but the classifier and, where the blocks
            are no layers, the word embedding. "all": also biases, LayerNorm, the other tables and the classifier; by
            "matrix", a matrix is then with its bias.

    Raises:
        RecipeError: another ``by`` or ``include``.
    """
    if by not in GRANULARITIES:
        raise RecipeError(f"by is {by!r}; allowed: {', '.join(GRANULARITIES)}")
    if include not in INCLUDED:
        raise RecipeError(f"include is {include!r}; allowed: {', '.join(INCLUDED)}")
    found: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters():
        if is_quantizers(name) or not parameter.requires_grad:
            continue
        if include == "matrices" and not _is_quantized(model, name):
            continue
        block = _block_name(name, by, include)
        if block is not None:
            found.setdefault(block, []).append(name)
    return tuple(Block(name, tuple(parameters)) for name, parameters in found.items())


def block_tensors(model: nn.Module, block: Block) -> list[Tensor]:
    """The parameters of ``block``, in its order; RecipeError names one that the model does not have."""
    own = dict(model.named_parameters())
    missing = [name for name in block.parameters if name not in own]
    if missing:
        raise RecipeError(f"block {block.name!r} has the parameter {missing[0]!r}, which this model does not have")
    return [own[name] for name in block.parameters]


def find_block(blocks: tuple[Block, ...], name: str) -> Block:
    """The block called ``name``; RecipeError lists those there are."""
    for block in blocks:
        if block.name == name:
            return block
    raise RecipeError(f"there is no block {name!r}; allowed: {', '.join(block.name for block in blocks)}")


def _is_quantized(model: nn.Module, name: str) -> bool:
    owner, _, attribute = name.rpartition(".")
    if owner in (_HEAD, _POSITIONS) or attribute not in ("weight", "second_weight"):
        return False
    return isinstance(model.get_submodule(owner), (Linear, EmbeddingTable))


def _block_name(parameter: str, by: str, include: str) -> str | None:
    """The block that a parameter belongs to; None: to none."""
    parts = parameter.split(".")
    if by == "matrix":
        return ".".join(parts[:-1])
    if parts[0] == "layers":
        return ".".join(parts[: 2 if by == "layer" else 3])
    if by == "layer":
        return None
    if parts[0] == "embeddings" and include == "matrices":
        return "embeddings.word"
    return parts[0]
