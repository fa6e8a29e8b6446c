"""How much a model's loss depends on each of its blocks: Hessian eigenvalues and trace, measured drops, probes."""

from __future__ import annotations

from bitpress.sensitivity.attention_kl import attention_kl
from bitpress.sensitivity.blocks import Block, encoder_blocks, find_block
from bitpress.sensitivity.landscape import Landscape, landscape
from bitpress.sensitivity.measure import SensitivityProgress, measure_sensitivity
from bitpress.sensitivity.measured import (
    Agreement,
    BlockDrop,
    group_wise,
    measure_drop,
    quantize_in_place,
    quantized,
    rank_agreement,
)
from bitpress.sensitivity.report import (
    BlockSensitivity,
    SampleMeasurement,
    SensitivityReport,
    SensitivitySettings,
)
from bitpress.sensitivity.report_file import load_sensitivity, save_sensitivity

__all__ = [
    "Agreement",
    "Block",
    "BlockDrop",
    "BlockSensitivity",
    "Landscape",
    "SampleMeasurement",
    "SensitivityProgress",
    "SensitivityReport",
    "SensitivitySettings",
    "attention_kl",
    "encoder_blocks",
    "find_block",
    "group_wise",
    "landscape",
    "load_sensitivity",
    "measure_drop",
    "measure_sensitivity",
    "quantize_in_place",
    "quantized",
    "rank_agreement",
    "save_sensitivity",
]
