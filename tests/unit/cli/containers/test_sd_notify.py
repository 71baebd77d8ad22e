"""Messages of a container that the service manager gets."""

import pytest

from jaula.cli.containers.container_sd_notify import relayed


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"READY=1\nSTATUS=up", b"READY=1\nSTATUS=up"),
        (b"MAINPID=1\nREADY=1", b"READY=1"),
        (b"FDSTORE=1\nFDNAME=x", b""),
        (b"BARRIER=1", b""),
        (b"WATCHDOG=trigger", b"WATCHDOG=trigger"),
        (b"STATUS=a\0b\nREADY=1", b"READY=1"),
        (b"X_OWN=1\nNOTIFYACCESS=all", b""),
        (b"READY", b"READY"),
        (b"", b""),
    ],
)
def test_a_message_says_nothing_about_the_host(message: bytes, expected: bytes) -> None:
    assert relayed(message) == expected
