"""Console blocks of the documents: their commands, run against a private engine, and their output.

A block is a fence named ``console``. A line that begins with ``# `` is typed by root, one with
``$ `` by an ordinary user, and ``> `` continues the line above. Other lines are the output.

A comment before the block changes how it is run:

``<!-- replay: setup COMMAND -->``
    COMMAND runs first, and is not shown to the reader. May be repeated.
``<!-- replay: rows -->``
    The lines of the output are among the printed ones, in this order.
``<!-- replay: registry -->``
    ``registry.example.com`` is a registry of this machine, from this block on.
``<!-- replay: engine FLAGS -->``
    The page's engine has these flags too. It applies to the whole page.
``<!-- replay: peer -->``
    ``b.example:2376`` is a second engine, and both are TLS servers that may move containers to each
    other. It applies to the whole page.
``<!-- replay: policy -->``
    The page's engine has a policy, ``/etc/jaula/policy.toml``, which is a file of the test.
``<!-- replay: host network -->``
    The page's engine is in the network of the host, since its images are built from packages.
``<!-- replay: needs PROGRAM -->``
    The page is not replayed on a machine without this program: the test is skipped by name.
``<!-- not replayed: REASON -->``
    The block is an illustration: the reason says what this machine lacks.

The blocks of a page share one directory and one engine, from the first to the last one.
``$PROJECT`` is the directory of the source tree.

Output is compared line by line. Ids, times, process ids, sizes, addresses of containers and the
number of rows of ``verify`` that hold are equal to others of their kind. Blanks are equal to
blanks. ``...`` stands for any text: in a line, or for any lines if it is the whole line. A command
without output, or with ``...`` alone, must succeed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.engine import PROJECT, PrivateEngine

REGISTRY = "localhost:5000"
PEER = "b.example:2376"
ADDRESS = "127.0.0.1:23751"  # of the first engine, if the page has two
PEER_ADDRESS = "127.0.0.1:23752"
TIMEOUT = 180.0  # seconds for one command
SETUP_TIMEOUT = 600.0  # seconds; packages of an image are downloaded

_FENCE = re.compile(r"^```console\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY_CONSOLE = re.compile(r"^\s*```+\s*console", re.MULTILINE)
_COMMENTS = re.compile(r"(?:<!--(?:(?!-->).)*-->\s*)+\Z", re.DOTALL)
_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)


@dataclass
class Step:
    """One typed command, and the lines below it."""

    command: str
    expected: list[str] = field(default_factory=list)


@dataclass
class Block:
    """One console block of a page."""

    page: str
    line: int
    steps: list[Step]
    setup: list[str]
    reason: str = ""  # why it is not replayed; empty if it is
    rows: bool = False  # the output has more lines than the document
    registry: bool = False
    engine: list[str] = field(default_factory=list)  # flags of the page's engine
    peer: bool = False  # the page has a second engine
    host_network: bool = False
    policy: bool = False  # the page's engine has a policy
    needs: list[str] = field(default_factory=list)  # programs

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


class BlockError(ValueError):
    """A block or its comment does not have the form that the reader of blocks knows."""


def blocks(path: Path) -> list[Block]:
    """Return the console blocks of a page.

    :raises BlockError: when a comment is unknown, or a block does not begin with a command.
    """
    text = path.read_text()
    page = str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else path.name
    found = list(_FENCE.finditer(text))
    if len(found) != len(_ANY_CONSOLE.findall(text)):
        raise BlockError(f"{page}: a console block is indented or has no end")
    return [_block(page, text[: match.start()], match["body"].splitlines()) for match in found]


def _block(page: str, before: str, lines: Sequence[str]) -> Block:
    setup: list[str] = []
    block = Block(page, before.count("\n") + 1, [], setup)
    if comments := _COMMENTS.search(before):
        for comment in _COMMENT.findall(comments[0]):
            kind, _, text = comment.partition(": ")
            if kind == "not replayed" and text:
                block.reason = " ".join(text.split())
            elif (kind, text) == ("replay", "rows"):
                block.rows = True
            elif (kind, text) == ("replay", "registry"):
                block.registry = True
            elif (kind, text) == ("replay", "peer"):
                block.peer = True
            elif (kind, text) == ("replay", "policy"):
                block.policy = True
            elif (kind, text) == ("replay", "host network"):
                block.host_network = True
            elif kind == "replay" and text.startswith("setup "):
                setup.append(text.removeprefix("setup "))
            elif kind == "replay" and text.startswith("engine "):
                block.engine += shlex.split(text.removeprefix("engine "))
            elif kind == "replay" and text.startswith("needs "):
                block.needs.append(text.removeprefix("needs "))
            else:
                raise BlockError(f"{block}: unknown comment {comment!r}")
    for line in lines:
        if line[:2] in ("# ", "$ "):
            block.steps.append(Step(line[2:]))
        elif not block.steps:
            raise BlockError(f"{block}: the first line must be a command")
        elif line.startswith("> ") and not block.steps[-1].expected:
            block.steps[-1].command += "\n" + line[2:]
        else:
            block.steps[-1].expected.append(line)
    if not block.steps:
        raise BlockError(f"{block}: the block is empty")
    return block


# --- comparison ---------------------------------------------------------------------------------

_PERIOD = "(?:second|minute|hour|day|week|month|year)"
_UNIT = r"(?:[kKMGT]i?)?B"
_KINDS: tuple[tuple[str, str], ...] = (
    (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| ?[+-]\d\d:?\d\d(?: [A-Z]+)?)?", "TIME"),
    (r"\b(?:sha256:)?[0-9a-f]{64}\b|\bsha256:[0-9a-f]{6,}\b", "ID"),
    (r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{8,40}\b(?:\.\.\.)?", "ID"),
    (r"\b[0-9]{12}\b|\b[0-9a-z]{25}\b", "ID"),  # 25 characters: ids of secrets and configs
    (r"\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d\b", "TIME"),  # ls -l
    (rf"(?:Less than a second|About an? {_PERIOD}|\d+ {_PERIOD}s?)(?= ago|$|\s|\))", "AGE"),
    (rf"\b\d+(?:\.\d+)?{_UNIT}\b", "SIZE"),
    (r"\b\d+\.\d+%", "PERCENT"),
    (r"\b(?:10\.\d+|172\.\d+)\.\d+\.\d+\b", "ADDRESS"),
    (r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b", "MAC"),
    (r"^\d+ rows: \d+ holds", "ROWS"),  # of verify: a kernel without weights of disks has two less
    (
        r"(?<=/proc/)\d+|(?<=GET_FILTER )\d+|(?<=\()\d+(?=[,)])|(?<![.\w-])\d{4,11}(?![.\w%])",
        "NUMBER",
    ),
)
_ELLIPSIS = "\0"
_PROGRESS = re.compile(r"[a-z]+: (?:\d+m)?\d+s")  # a command that takes more than 10 s prints one


def normalized(line: str) -> str:
    """Return a line with one word for each id, time, size and address, and single blanks."""
    for pattern, word in _KINDS:
        line = re.sub(pattern, word, line)
    return " ".join(line.split())


def line_matches(expected: str, actual: str) -> bool:
    """Return whether a line of output is as the document says."""
    parts = re.split(r"\.\.\.|…", re.sub(r"(?<=[0-9a-f])\.\.\.", "\0", expected))
    parts = [part for piece in parts for part in piece.split("\0")]
    pattern = ".*".join(re.escape(normalized(part)) for part in parts)
    pattern = pattern.replace(r"\ ", r"\s*")
    return re.fullmatch(pattern, normalized(actual)) is not None or (
        normalized(expected) == normalized(actual)
    )


def output_matches(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Return whether the lines of a command's output are as the document says."""
    if not expected:
        return not actual
    if expected[0].strip() == "...":
        return any(output_matches(expected[1:], actual[n:]) for n in range(len(actual) + 1))
    if not actual:
        return False
    return line_matches(expected[0], actual[0]) and output_matches(expected[1:], actual[1:])


# --- execution ----------------------------------------------------------------------------------


class Replay:
    """One page's commands in a directory of their own, with one engine."""

    def __init__(
        self, engine: PrivateEngine, directory: Path, peer: PrivateEngine | None = None
    ) -> None:
        assert engine.process is not None
        self._engine = engine
        self._peer = peer
        self._directory = directory / "work"
        self._directory.mkdir()
        self._status = 0
        self._registry: subprocess.Popen[bytes] | None = None
        programs = directory / "bin"
        programs.mkdir()
        scripts = {
            name: f'exec {shlex.quote(program)} "$@"'
            for name, program in (
                ("jaula", str(PROJECT / "jaula")),
                ("jaula-runtime", str(PROJECT / "jaula-runtime")),
                ("docker", "/usr/bin/docker"),
            )
        }
        scripts["sudo"] = 'exec "$@"'  # it is not installed everywhere, and root needs none
        if peer is not None:  # ssh b.example COMMAND
            scripts["ssh"] = f'shift\nJAULA_HOST={peer.host} exec sh -c "$*"'
        for name, script in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        home = directory / "home"
        home.mkdir()
        self._environment = engine.environment() | {
            "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            "COSIGN_PASSWORD": "secret",
            "PROJECT": str(PROJECT),
            "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }
        del self._environment["DOCKER_BUILDKIT"]

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._registry is not None:
            self._registry.terminate()
            self._registry.wait(10)

    def _start_registry(self) -> None:
        """Start the distribution project's server in the engine's network namespace."""
        directory = self._directory.parent / "registry"
        directory.mkdir()
        settings = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(directory)}},
            "http": {"addr": REGISTRY},
        }
        file = directory / "config.yml"
        file.write_text(json.dumps(settings))  # JSON is YAML
        log = directory / "log"
        with log.open("wb") as output:
            self._registry = subprocess.Popen(
                [*self._in_namespace(), "docker-registry", "serve", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"OTEL_TRACES_EXPORTER": "none"},
            )
        deadline = time.monotonic() + TIMEOUT
        while (done := self._shell(f"curl -sSf http://{REGISTRY}/v2/")).returncode:
            report = f"{done.stdout}{log.read_text(errors='replace')}"
            assert self._registry.poll() is None, report
            assert time.monotonic() < deadline, report
            time.sleep(0.05)

    def _in_namespace(self) -> tuple[str, ...]:
        """Return a prefix that enters the engine's network namespace.

        It is not taken from /proc/PID: the engine's first thread enters namespaces of containers.
        """
        netns = self._engine.netns
        return ("nsenter", f"--net=/run/netns/{netns}") if netns else ()

    def run(self, block: Block) -> Iterator[str]:
        """Run a block; yield what differs from the document."""
        if block.registry and self._registry is None:
            self._start_registry()
        for command in block.setup:
            done = self._shell(command, SETUP_TIMEOUT)
            if done.returncode:
                yield f"{block}: setup {command!r} failed: {done.stdout}"
                return
        for number, step in enumerate(block.steps):
            done = self._shell(step.command)
            self._status = done.returncode
            following = block.steps[number + 1].command if number + 1 < len(block.steps) else ""
            actual = [
                self._documented(line).rstrip()
                for line in done.stdout.splitlines()
                if not _PROGRESS.fullmatch(line)
            ]
            expected = [line.rstrip() for line in step.expected]
            if block.rows:
                expected = [word for line in expected for word in ("...", line)] + ["..."]
            if expected and not output_matches(expected, actual):
                yield f"{block}: {step.command}\n" + _difference(expected, actual)
                continue
            unseen = all(line.strip() == "..." for line in step.expected)  # the output says nothing
            if unseen and done.returncode and not following.startswith("echo $?"):
                yield f"{block}: {step.command}\nexit status {done.returncode}\n" + "\n".join(
                    actual
                )

    def _shell(self, command: str, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
        command = command.replace("/run/jaula/jaula.sock", str(self._engine.socket))
        command = command.replace("/etc/jaula/", f"{self._directory.parent}/")
        command = command.replace("registry.example.com", REGISTRY).replace(PEER, PEER_ADDRESS)
        if re.match(r"jaula (run|exec) -it ", command):  # at a terminal, whose user types exit
            typed = "(sleep 0.5; printf 'exit\\r'; sleep 1)"
            command = f"{typed} | timeout 20 script -qec {shlex.quote(command)} /dev/null"
        return subprocess.run(
            [*self._in_namespace(), "bash", "-c", f"(exit {self._status})\n{command}"],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )  # fmt: skip

    def _documented(self, line: str) -> str:
        """Return a line with the paths and names of an engine with default settings."""
        engine = self._engine
        for own, documented in (
            (str(engine.root / "lib"), "/var/lib/jaula"),
            (str(engine.run), "/run/jaula"),
            (f"{self._directory.parent}/policy.toml", "/etc/jaula/policy.toml"),
            (REGISTRY, "registry.example.com"),
            (PEER_ADDRESS, PEER),
            (engine.bridge, "jaula0"),
            (f"/{engine.cgroup_parent}/", "/jaula/"),
            (str(self._directory), os.fspath("/root")),
        ):
            line = line.replace(own, documented)
        return line


def _difference(expected: Sequence[str], actual: Sequence[str]) -> str:
    absent = [
        line
        for line in expected
        if not any(line_matches(line, output) for output in actual) and line.strip() != "..."
    ]
    if absent and len(actual) > 20:  # a table of which the document shows some rows
        own = [line for line in actual if not line.endswith("holds")]
        return "\n".join([*(f"  document: {line}" for line in absent), *own])
    document = "\n".join(f"  document: {line}" for line in expected)
    output = "\n".join(f"  output:   {line}" for line in actual[:60])
    return f"{document}\n{output}"
