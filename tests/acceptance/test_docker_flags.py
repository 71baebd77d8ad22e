"""jaula has Docker's commands and flags: compared with the help of the docker command."""

from __future__ import annotations

import functools
import os
import re
import subprocess

import pytest

from harness.engine import PROJECT
from jaula.cli.main import main

pytestmark = [pytest.mark.client(name="docker command"), pytest.mark.needs("docker")]

NOT_HERE = {
    "plugin": "no plugins",
    **dict.fromkeys(("swarm", "node", "service", "stack"), "no orchestration"),
}
"""Commands that the help of ``jaula`` does not have, with the reason."""

CLUSTER = {
    *("--availability", "--group", "--limit-bytes", "--required-bytes", "--scope"),
    *("--secret", "--sharing", "--topology-preferred", "--topology-required", "--type"),
}
DRIVER = {"--driver", "-d", "--template-driver"}
FLAGS_NOT_HERE = {
    "volume create": CLUSTER,
    "volume ls": {"--cluster"},
    "volume update": None,  # for volumes of a cluster alone
    "secret create": DRIVER,  # there is one way to keep them
    "config create": DRIVER,
    "run": {"--help"},  # there as in every command, listed nowhere
    "create": {"--help"},
}
"""Flags that are not there, or None for the whole command."""


@functools.cache
def help_of(program: str, *words: str) -> str:
    """Return the help of a command, which a process of its own prints.

    The docker command describes its classic builder instead of the plugin buildx. It reads no
    configuration of the user, which could name aliases and plugins.
    """
    done = subprocess.run(
        [program, *words, "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": "/nonexistent"},
    )
    return done.stdout


def commands(*words: str) -> list[tuple[str, ...]]:
    """Return every command of docker at and below ``words``.

    A plugin has an asterisk after its name. The set of plugins depends on the machine.
    """
    result: list[tuple[str, ...]] = []
    groups = re.findall(r"^[\w ]*Commands:\n((?:  .*\n)+)", help_of("docker", *words), re.MULTILINE)
    for name in re.findall(r"^  ([\w-]+) ", "".join(groups), re.MULTILINE):
        if name not in NOT_HERE and name != "trust":
            result += commands(*words, name) or [(*words, name)]
    return result


def flags(text: str) -> set[str]:
    long = re.findall(r"^ +(?:-\w, )?(--[\w-]+)", text, re.MULTILINE)
    return {*long, *re.findall(r"^ +(-\w), --", text, re.MULTILINE)}


@pytest.mark.slow
def test_every_command_has_dockers_flags(capsys: pytest.CaptureFixture[str]) -> None:
    missing = {}
    result = commands()
    assert len(result) > 70, result
    for words in result:
        name = " ".join(words).removeprefix("container ")
        without = FLAGS_NOT_HERE.get(name, set())
        if without is None:
            continue
        main([*words, "--help"])
        ours = capsys.readouterr().out
        lost = flags(help_of("docker", *words)) - flags(ours) - without
        if "Usage:" not in ours or lost:
            missing[name] = sorted(lost) or "no such command"
    assert missing == {}
    main(["container", "create", "--help"])
    ours = help_of(str(PROJECT / "jaula"), "container", "create")
    assert ours == capsys.readouterr().out, "the help of a process is another one"
