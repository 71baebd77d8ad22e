"""Quantities of Kubernetes: ``500m``, ``1.5``, ``64Mi``, ``2G``, ``1e3``. Pure."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from jaula.features.kubernetes.kube.kube_documents import InvalidDocument

_FACTORS = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18),
    "Ki": Fraction(1 << 10), "Mi": Fraction(1 << 20), "Gi": Fraction(1 << 30),
    "Ti": Fraction(1 << 40), "Pi": Fraction(1 << 50), "Ei": Fraction(1 << 60),
}  # fmt: skip
_MAX_LENGTH = 32  # characters
_MAX = Fraction(1 << 62)


def parse(value: Any, path: str) -> Fraction:
    """Return a quantity.

    :raises InvalidDocument: when it is not one, or negative, or does not fit.
    """
    text = str(value)
    number = text.rstrip("numkMGTPEi")
    suffix = text[len(number) :]
    if number[-1:] in ("e",) or "e" in number or "E" in number:
        number, suffix = text, ""
    plain = number.replace(".", "", 1).replace("e", "", 1).replace("E", "", 1)
    plain = plain.replace("+", "").replace("-", "")
    if (
        isinstance(value, bool)
        or len(text) > _MAX_LENGTH
        or suffix not in _FACTORS
        or not (plain.isascii() and plain.isdigit())
    ):
        raise InvalidDocument(f"{path} is not a quantity: {text[:_MAX_LENGTH]!r}")
    mantissa, _, exponent = number.lower().partition("e")
    try:
        power = int(exponent or 0)
        if not -18 <= power <= 18:
            raise ValueError(exponent)
        result = Fraction(mantissa) * Fraction(10) ** power * _FACTORS[suffix]
    except ValueError:
        raise InvalidDocument(f"{path} is not a quantity: {text!r}") from None
    if not 0 <= result <= _MAX:
        raise InvalidDocument(f"{path} is out of range: {text!r}")
    return result
