"""Signs and masks by arithmetic. Oracle: torch's comparisons."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bitpress.quantize.elementwise import passed_below, passed_within, signs

ONE = torch.tensor(1.0)
AFTER, BEFORE = float(torch.nextafter(ONE, ONE * 2)), float(torch.nextafter(ONE, ONE * 0))


def numbers() -> Tensor:
    special = [0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 1.0, -1.0, AFTER, -AFTER, BEFORE, -BEFORE, math.inf, -math.inf]
    return torch.cat([torch.tensor(special), torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 2])


def test_signs() -> None:
    x = numbers()
    assert torch.equal(signs(x), torch.where(x >= 0, 1.0, -1.0))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-2.0, 1.0), (0, 15), (-0.5, 0.5)])
def test_masks_include_their_bounds(low: float, high: float) -> None:
    x, gradient = numbers(), torch.arange(1014.0) + 1
    assert torch.equal(passed_within(gradient, x, low, high), gradient * ((x >= low) & (x <= high)))
    assert torch.equal(passed_below(gradient, x, low, high), gradient * ((x >= low) & (x < high)))
