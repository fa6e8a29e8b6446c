"""ONNX Runtime as a peer: a Hugging Face BERT classifier as fused fp32 and dynamic int8 ONNX models.

The settings are the ones that serve ONNX Runtime best: TorchScript export of a wrapper with a plain mask, so that its
optimizer fuses Attention, BiasGelu and SkipLayerNormalization; signed 8-bit weights per channel with reduced range,
which costs nothing and avoids the saturation of 16-bit pair sums on CPUs without VNNI.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path


def export(checkpoint: Path, out: Path) -> dict[str, Path]:
    """Write ``fp32.onnx`` and ``int8.onnx`` of the classifier in ``checkpoint`` to ``out``; existing ones are kept."""
    files = {"fp32": out / "fp32.onnx", "int8": out / "int8.onnx"}
    if all(file.is_file() for file in files.values()):
        return files
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer
    from transformers import AutoModelForSequenceClassification

    out.mkdir(parents=True, exist_ok=True)
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
    raw = out / "raw.onnx"
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
    fused = optimizer.optimize_model(
        str(raw),
        model_type="bert",
        num_heads=model.config.num_attention_heads,
        hidden_size=model.config.hidden_size,
    )
    fused.save_model_to_file(str(files["fp32"]))
    import onnx

    quantize_dynamic(
        str(files["fp32"]),
        str(files["int8"]),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    raw.unlink()
    return files
