"""How much a model's loss depends on each of its blocks: Hessian eigenvalues and trace, measured drops, probes."""

from __future__ import annotations

from bitpress.sensitivity.blocks import Block, encoder_blocks, find_block
from bitpress.sensitivity.measure import SensitivityProgress, measure_sensitivity
from bitpress.sensitivity.report import (
    BlockSensitivity,
    SampleMeasurement,
    SensitivityReport,
    SensitivitySettings,
)
from bitpress.sensitivity.report_file import load_sensitivity, save_sensitivity

__all__ = [
    "Block",
    "BlockSensitivity",
    "SampleMeasurement",
    "SensitivityProgress",
    "SensitivityReport",
    "SensitivitySettings",
    "encoder_blocks",
    "find_block",
    "load_sensitivity",
    "measure_sensitivity",
    "save_sensitivity",
]
