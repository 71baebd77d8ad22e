"""Selection of a record's mechanism."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from jaula.errors import Unsupported
from jaula.features.record import mechanism
from jaula.features.record.ebpf_events import Event
from jaula.features.record.mechanism import Receiver, Target, Tracer

TARGET = Target(1, None, 0, "0" * 64)


def ignore(event: Event) -> None:
    """Receive no event: nothing is attached."""


def refusing(reason: str) -> mechanism.Opener:
    def opener(target: Target, receive: Receiver) -> Tracer:
        raise Unsupported(reason)

    return opener


def accepting(target: Target, receive: Receiver) -> Tracer:
    return cast("Tracer", SimpleNamespace(name="last"))


def test_each_mechanism_before_the_selected_one_has_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    openers = {"a": refusing("no types"), "b": refusing("no root"), "c": accepting}
    monkeypatch.setattr(mechanism, "_OPENERS", openers)
    reasons: list[str] = []
    tracer = mechanism.open_tracer(mechanism.AUTO, TARGET, ignore, refused=reasons.append)
    assert tracer.name == "last"
    assert reasons == ["a: no types", "b: no root"]


def test_no_mechanism_is_one_error_with_all_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanism, "_OPENERS", {"a": refusing("x"), "b": refusing("y")})
    with pytest.raises(Unsupported, match="a: x; b: y"):
        mechanism.open_tracer(mechanism.AUTO, TARGET, ignore)
