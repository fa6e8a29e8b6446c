"""ONNX Runtime as a peer: a Hugging Face BERT classifier as fused fp32, dynamic int8, and 4- and 2-bit ONNX models.

The settings are the ones that serve ONNX Runtime best: TorchScript export of a wrapper with a plain mask, so that its
optimizer fuses Attention, BiasGelu and SkipLayerNormalization; signed 8-bit weights per channel with reduced range,
which costs nothing and avoids the saturation of 16-bit pair sums on CPUs without VNNI. 4- and 2-bit weights are its
MatMulNBits, blocks of 128 inputs, int8 products (accuracy level 4); that operator takes no weights of a fused
Attention, so there attention is fused as MultiHeadAttention, which leaves the products outside.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any


def export(checkpoint: Path, out: Path) -> dict[str, Path]:
    """Write ``fp32.onnx``, ``int8.onnx``, ``int4.onnx`` and ``int2.onnx`` of the classifier in ``checkpoint`` to
    ``out``; if all are there, they are kept."""
    files = {kind: out / f"{kind}.onnx" for kind in ("fp32", "int8", "int4", "int2")}
    if all(file.is_file() for file in files.values()):
        return files
    raw = out / "raw.onnx"
    out.mkdir(parents=True, exist_ok=True)
    config = _export_raw(checkpoint, raw)
    _fuse(raw, config).save_model_to_file(str(files["fp32"]))
    _dynamic_int8(files["fp32"], files["int8"])
    for bits in (4, 2):
        _few_bits(_fuse(raw, config, separate_products=True).model, bits, files[f"int{bits}"])
    raw.unlink()
    return files


def _export_raw(checkpoint: Path, raw: Path) -> Any:
    """The graph as torch writes it; the model's configuration."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()

    class PlainMask(torch.nn.Module):
        """Positional arguments, an additive mask built the way the fusion recognises, one output."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):  # type: ignore[no-untyped-def]
            mask = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * -10000.0
            bert = self.model.bert
            hidden = bert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
            for layer in bert.encoder.layer:
                context = self.attend(layer.attention.self, hidden, mask)
                attended = layer.attention.output(context, hidden)
                hidden = layer.output(layer.intermediate(attended), attended)
            return self.model.classifier(bert.pooler(hidden))

        @staticmethod
        def attend(layer, hidden, mask):  # type: ignore[no-untyped-def]
            """Self-attention in the spelling that the Attention fusion looks for."""
            heads, size = layer.num_attention_heads, layer.attention_head_size
            query, key, value = (
                linear(hidden).view(hidden.size(0), hidden.size(1), heads, size).permute(0, 2, 1, 3)
                for linear in (layer.query, layer.key, layer.value)
            )
            scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(size) + mask
            context = torch.matmul(torch.nn.functional.softmax(scores, dim=-1), value)
            context = context.permute(0, 2, 1, 3).contiguous()
            return context.view(context.size(0), context.size(1), heads * size)

    ids = torch.ones(1, 8, dtype=torch.long)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            PlainMask(),
            (ids, ids, ids * 0),
            raw,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
            opset_version=17,
            dynamo=False,
        )
    return model.config


def _fuse(raw: Path, config: Any, separate_products: bool = False) -> Any:
    """``separate_products``: fuse attention without the products that make queries, keys and values."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    options.use_multi_head_attention = separate_products
    return optimizer.optimize_model(
        str(raw),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=options,
    )


def _dynamic_int8(fused: Path, out: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(fused),
        str(out),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _few_bits(model: Any, bits: int, out: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=128, is_symmetric=False, accuracy_level=4, bits=bits)
    quantizer = MatMulNBitsQuantizer(model, algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out), use_external_data_format=False)
