"""Run code in a forked child, which a kernel facility may confine permanently."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

import pytest


def child(act: Callable[[], None]) -> None:
    """Run ``act`` in a forked child; its failure is the test's."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:  # noqa: BLE001 - reported to the parent
            os.write(writing, traceback.format_exc().encode()[-4000:])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        output = answers.read().decode()
    _, status = os.waitpid(pid, 0)
    assert not output, output
    assert status == 0


def refused(number: int, act: Callable[[], object]) -> None:
    """Assert that ``act`` fails with the errno ``number``."""
    with pytest.raises(OSError) as caught:
        act()
    assert caught.value.errno == number
