"""The public functions of the recipes in one place, for the command line and for ``import bitpress``."""

from __future__ import annotations

from bitpress.augment import Variation
from bitpress.recipes.augmentation import AugmentResult, augment
from bitpress.recipes.compress import CompressResult, compress
from bitpress.recipes.estimate import post_training_artifact
from bitpress.recipes.evaluation import evaluate_checkpoint
from bitpress.recipes.finetune import FinetuneResult, finetune
from bitpress.recipes.inputs import DataOptions
from bitpress.recipes.pack import PackResult, pack
from bitpress.recipes.pretrain import PretrainResult, pretrain
from bitpress.recipes.sensitivity import Probes, SensitivityResult, sensitivity
from bitpress.sensitivity import SensitivitySettings

__all__ = [
    "AugmentResult",
    "CompressResult",
    "DataOptions",
    "FinetuneResult",
    "PackResult",
    "PretrainResult",
    "Probes",
    "SensitivityResult",
    "SensitivitySettings",
    "Variation",
    "augment",
    "compress",
    "evaluate_checkpoint",
    "finetune",
    "pack",
    "post_training_artifact",
    "pretrain",
    "sensitivity",
]
