"""The executable of a launcher, on this machine and on others by an emulator of user programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import capstone
import pytest

from jaula.engine.containers.launcher_elf import MACHINES, Machine, Words, launcher

DISASSEMBLERS = {
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
    "riscv64": (capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64),
}


class Runner:
    """Runs launchers of one machine; those of another machine by ``qemu-MACHINE``."""

    def __init__(self, name: str, directory: Path) -> None:
        self.machine = MACHINES[name]
        self.file = directory / "launcher"
        emulator = shutil.which(f"qemu-{name}") or shutil.which(f"qemu-{name}-static")
        self._prefix: tuple[str, ...] = ()
        if os.uname().machine != name:
            if emulator is None:
                pytest.skip(f"needs qemu-{name}, an emulator of user programs")
            self._prefix = (emulator,)

    def __call__(self, path: str, words: Words, *more: str) -> subprocess.CompletedProcess[str]:
        self.file.write_bytes(launcher(self.machine, path, words))
        self.file.chmod(0o755)
        return subprocess.run(
            [*self._prefix, self.file, *more],
            capture_output=True,
            text=True,
            check=False,
            env={"OF_THE_CALLER": "1"},
        )


@pytest.fixture(params=sorted(MACHINES))
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    return Runner(str(request.param), tmp_path)


def test_a_launcher_executes_a_program_with_words_and_its_own(run: Runner) -> None:
    words = ("printf", "<%s>")
    assert run("/usr/bin/printf", words, "one", "", "three").stdout == "<one><><three>"
    assert run("/usr/bin/printf", words).stdout == "<>"
    assert run.file.stat().st_size < 500


def test_a_launcher_passes_the_environment_and_its_name_on(run: Runner) -> None:
    assert run("/usr/bin/env", ("env",)).stdout == "OF_THE_CALLER=1\n"
    done = run("/bin/sh", ("sh", "-c", "echo $0 $1", None), "word")
    assert done.stdout == f"{run.file} word\n"


@pytest.mark.parametrize("number", [1, 2, 3, 5000])
def test_all_arguments_arrive(run: Runner, number: int) -> None:
    arguments = [*map(str, range(number))]
    done = run("/bin/sh", ("sh", "-c", "echo $# $1; eval echo \\${$#}", "sh"), *arguments)
    assert done.stdout == f"{number} 0\n{number - 1}\n"


def test_a_launcher_without_its_program_has_the_status_126(run: Runner) -> None:
    assert run("/no/such/program", (None,)).returncode == 126


@pytest.mark.parametrize("name", sorted(MACHINES))
@pytest.mark.parametrize("address", [0x400000, 0x4007FF, 0x400800, 0x40FFFF, 0x412FFF])
def test_the_code_consists_of_instructions_and_loads_the_addresses(name: str, address: int) -> None:
    """A system call comes last, so execution never leaves the code."""
    machine: Machine = MACHINES[name]
    code = machine.code(address, (address, 0), ("word", None))
    lines = list(capstone.Cs(*DISASSEMBLERS[name]).disasm(code, 0))
    assert sum(line.size for line in lines) == len(code)
    assert lines[-1].mnemonic in ("syscall", "svc", "ecall")
    assert sum(line.mnemonic in ("syscall", "svc", "ecall") for line in lines) == 2
    halves = {
        "x86_64": {f"{address:#x}"},
        "aarch64": {f"{address & 0xFFFF:#x}", f"{address >> 16:#x}"} - {"0x0"},
        "riscv64": {f"{(address + 0x800) >> 12:#x}"},
    }[name]
    shown = " ".join(line.op_str for line in lines)
    assert all(half in shown for half in halves), shown
