"""The configuration of a process before it executes the user's program."""

import pytest

from jaula.runtime.init import process_setup
from jaula.spec.runtime_spec import Capabilities, Process, User


def test_everything_is_encoded_beforehand() -> None:
    prepared = process_setup.encode_process(
        Process(
            cwd="/srv",
            args=("printf", "ü"),
            env=("PATH=/bin", "EMPTY=", "broken"),
            user=User(uid=7, gid=8, additional_gids=(9,)),
            capabilities=Capabilities(bounding=("CAP_CHOWN", "CAP_KILL")),
        ),
        None,
    )
    assert prepared.arguments == (b"printf", "ü".encode())
    assert prepared.environment == {b"PATH": b"/bin", b"EMPTY": b""}
    assert (prepared.uid, prepared.gid, prepared.groups) == (7, 8, (9,))
    assert prepared.bounding == 1 << 0 | 1 << 5
    assert prepared.umask == 0o022


@pytest.mark.parametrize(
    "cwd", ["relative", "/proc/self/fd/7", "//proc/self/fd/7", "/x/../proc/1/root", "/proc"]
)
def test_a_working_directory_that_could_leave_the_root_is_refused(cwd: str) -> None:
    with pytest.raises(process_setup.ExecError, match="working directory"):
        process_setup.encode_process(Process(cwd=cwd, args=("true",)), None)


def test_a_missing_command_is_an_error() -> None:
    with pytest.raises(process_setup.ExecError, match="no command"):
        process_setup.encode_process(Process(cwd="/"), None)


def test_capabilities_that_cannot_be_set_are_skipped() -> None:
    sets = Capabilities(
        bounding=("CAP_NOSUCH", "CAP_KILL"),
        permitted=("CAP_KILL", "CAP_CHOWN"),
        inheritable=("CAP_KILL",),
        ambient=("CAP_KILL", "CAP_CHOWN"),
    )
    prepared = process_setup.encode_process(
        Process(cwd="/", args=("true",), capabilities=sets), None
    )
    assert prepared.bounding == 1 << 5
    assert prepared.ambient == 1 << 5
