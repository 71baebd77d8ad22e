"""Which processes are steps of the runtime: forks of a process outside of the container."""

import os
import subprocess
import time

import pytest

from jaula.record import executed_files


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
