"""Quantities."""

from fractions import Fraction

import pytest

from jaula.features.kubernetes.kube.kube_documents import InvalidDocument
from jaula.features.kubernetes.kube.quantity import parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500m", Fraction(1, 2)), (2, 2), (0.5, Fraction(1, 2)), ("64Mi", 1 << 26), ("1k", 1000),
     ("1e3", 1000), ("1.5Gi", 3 << 29), ("2E", 2 * 10**18), ("12E2", 1200), ("0", 0)],
)  # fmt: skip
def test_a_quantity_is_exact(text: object, expected: object) -> None:
    assert parse(text, "x") == expected


@pytest.mark.parametrize(
    "text", ["", "m", "1x", "-1", "1e99999", "1.2.3", "0x1", True, "1" * 40, "1Ki2", "E", "9E9E"]
)
def test_another_text_is_refused(text: object) -> None:
    with pytest.raises(InvalidDocument):
        parse(text, "x")
