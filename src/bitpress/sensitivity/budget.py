"""A limit for the allocation of bits, as people write it: "30.5MB", "12MiB", "1/13", 0.08, "40ms"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from bitpress.errors import RecipeError

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_ALLOWED = (
    "bytes such as 30.5MB, 12MiB or 1000000, milliseconds such as 40ms, or a share of fp32 such as 1/13, 8% or 0.08"
)
_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]+)")
_SHARE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:/\s*(\d+(?:\.\d*)?|\.\d+)|(%))?")


@dataclass(frozen=True)
class Budget:
    """At most ``amount`` of ``unit``: "bytes" or "ms"."""

    amount: float
    unit: str = "bytes"

    @classmethod
    def parse(cls, value: object, fp32_bytes: int) -> Budget:
        """A number with a unit (MB = 10⁶ bytes, MiB = 2²⁰ bytes, ms), an integer of bytes above 1, or a share of
        ``fp32_bytes`` up to 1: a fraction, a decimal or per cent.

        Raises:
            RecipeError: anything else.
        """
        error = RecipeError(f"allocation.budget is {value!r}; allowed: {_ALLOWED}")
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise error
        if not isinstance(value, str) and not math.isfinite(value):
            raise error
        text = str(value).strip()
        if found := _AMOUNT.fullmatch(text):
            unit = found[2].lower()
            if unit == "ms":
                amount, name = float(found[1]), "ms"
            elif unit in _UNITS:
                amount, name = float(Fraction(found[1]) * _UNITS[unit]), "bytes"
            else:
                raise error
        elif found := _SHARE.fullmatch(text):
            number = Fraction(found[1])
            if found[2] is not None and Fraction(found[2]) == 0:
                raise error
            number /= 100 if found[3] else Fraction(found[2] or 1)
            whole_bytes = not found[2] and not found[3] and number > 1 and number.denominator == 1
            if number > 1 and not whole_bytes:
                raise error
            amount, name = float(number if whole_bytes else math.floor(number * fp32_bytes)), "bytes"
        else:
            raise error
        if not amount > 0:
            raise error
        return cls(amount, name)

    def shown(self, amount: float) -> str:
        """``amount`` of the budget's unit, for people."""
        if self.unit == "ms":
            return f"{amount:.3f} ms"
        return f"{amount:,.0f} bytes ({amount / 2**20:.2f} MiB)"
