"""Which processes are steps of the runtime: forks of a process outside of the container."""

import os
import subprocess
import time

import pytest

from jaula.features.record import executed_files


def test_a_fork_of_a_process_outside_is_the_runtime() -> None:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        assert executed_files._is_runtime(child, [child])
        assert not executed_files._is_runtime(child, [child, os.getpid()])  # forked inside
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_an_executed_program_is_not_the_runtime() -> None:
    with subprocess.Popen(["sleep", "60"]) as program:
        try:
            assert not executed_files._is_runtime(program.pid, [program.pid])
        finally:
            program.kill()


def test_a_process_that_has_exited_has_no_answer() -> None:
    with subprocess.Popen(["true"]) as program:
        program.wait()
    with pytest.raises(OSError):
        executed_files._is_runtime(program.pid, [program.pid])


MAPS = b"""\
400000-401000 r-xp 00000000 fe:01 12 /bin/sh
500000-501000 rwxp 00000000 00:00 0
501000-502000 r-xp 00000000 00:00 0
600000-601000 rw-p 00000000 00:00 0 [heap]
700000-701000 rwxp 00000000 00:00 0 [heap]
800000-801000 rwxp 00000000 fe:01 13 /lib/a b.so
900000-901000 --xp 00000000 00:00 0 [anon:vdso]
a00000-a01000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
b00000-b01000 rwxp 00000000 00:00 0 [stack]
c00000-c01000 r--p 00000000 fe:01 13 /lib/x
c01000
"""


def test_memory_without_a_file_that_can_be_executed_is_found() -> None:
    found = list(executed_files.executable_memory(MAPS))
    assert found == [
        "anonymous", "anonymous", "[heap]", "writable /lib/a b.so", "anonymous", "[stack]"
    ]  # fmt: skip


def test_an_ordinary_program_has_none() -> None:
    with subprocess.Popen(["sleep", "60"]) as program:
        try:
            with open(f"/proc/{program.pid}/maps", "rb") as maps:
                assert list(executed_files.executable_memory(maps.read())) == []
        finally:
            program.kill()
