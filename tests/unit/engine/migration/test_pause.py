"""The expected pause of a migration."""

from __future__ import annotations

import pytest

from jaula.features.migration.pause_estimate import ASSUMED_RATE, FIXED, Rates

MIB = 1 << 20


def test_a_first_move_has_an_assumed_rate() -> None:
    pause = Rates().expect("b:2376", 1000 * MIB)
    assert pause.seconds == pytest.approx(FIXED + 1000 * MIB / ASSUMED_RATE)
    assert str(pause) == "about 10.5 s (1000MiB of memory at 100MiB/s, assumed)"


def test_the_last_move_to_a_target_tells_its_rate() -> None:
    rates = Rates()
    rates.add("b:2376", 400 * MIB, FIXED + 1.0)
    rates.add("c:2376", 100 * MIB, FIXED + 1.0)
    rates.add("b:2376", 800 * MIB, FIXED + 1.0)
    pause = rates.expect("b:2376", 400 * MIB)
    assert pause.seconds == pytest.approx(FIXED + 0.5)
    assert str(pause) == "about 1.0 s (400MiB of memory at 800MiB/s, as in the last move there)"
    assert not rates.expect("d:2376", MIB).is_measured


@pytest.mark.parametrize(("sent", "pause"), [(MIB, 9.0), (64 * MIB, FIXED), (0, 0.0)])
def test_a_move_that_tells_nothing_is_not_counted(sent: int, pause: float) -> None:
    rates = Rates()
    rates.add("b:2376", sent, pause)
    assert not rates.expect("b:2376", MIB).is_measured
