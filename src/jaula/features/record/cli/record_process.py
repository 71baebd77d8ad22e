"""The recorder of ``run --record`` and ``create --record``: a process in a session of its own.

It attaches before the container has a process, so no instruction of its first program is lost. It
ends with the container, whatever happens to the client.
"""

from __future__ import annotations

import os
import select
import sys

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client
from jaula.cli.main import Settings
from jaula.cli.signal_events import ENDING, SignalHandler
from jaula.kernel.openat2 import unlink_if_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.command_parser import Options

DEFAULT = "*"  # value of the flag without a file
_READY = b"ready\n"
_POLL = 500  # milliseconds between two looks at the state of the container


def check(client: Client, options: Options) -> None:
    """Check that ``--record`` can be obeyed, before anything is created.

    :raises CliError: when it cannot.
    """
    if not options.is_set("record"):
        return
    path = options.text("record")
    address = client.address.text
    if not address.startswith(("unix://", "/")):
        raise CliError(
            f"--record reads the kernel of this host, and {address} may be another one: "
            "run the command on the engine's host",
            status=125,
        )
    if not path:
        raise CliError("--record= names no file: name one, or omit the equals sign", status=125)
    if path != DEFAULT and os.path.lexists(path):
        raise CliError(f"{path} exists, and a record is never overwritten", status=125)


def listen(options: Options, body: dict[str, Any]) -> str:
    """Choose the mechanism; add a seccomp agent to the request if it is that one.

    Return the path at which the agent will listen, '' without one.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.features.record import mechanism

    name = options.choice("record-mechanism", mechanism.START_NAMES)
    if name == mechanism.EBPF and os.geteuid() != 0:
        raise CliError("--record-mechanism=ebpf needs root: run the command with sudo", status=125)
    if not mechanism.needs_listener(name):
        return ""
    directory = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/tmp")
    path = f"{directory}/jaula-record-{os.urandom(8).hex()}.sock"
    host_config = body.setdefault("HostConfig", {})
    host_config["SecurityOpt"] = [
        *(host_config.get("SecurityOpt") or ()), f"seccomp-listener={path}",
    ]  # fmt: skip
    return path


class RecordProcess:
    """The recorder of one created container; ``path`` is its file, ``listener`` its agent's."""

    def __init__(self, client: Client, container: str, path: str, listener: str) -> None:
        """Fork the recorder and wait until it is attached.

        :raises CliError: when this host cannot record, or the file cannot be created.
        """
        from time import gmtime, strftime

        document = client.get(f"/containers/{container}/json")
        if path == DEFAULT:
            name = document["Name"].lstrip("/")
            path = f"{name}-{strftime('%Y%m%dT%H%M%SZ', gmtime())}.record"
        self.path = path
        self._client = client
        self._container = container
        sys.stdout.flush()
        sys.stderr.flush()
        self._status, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _run(document, os.path.abspath(path), listener, write)
        os.close(write)
        output = b""
        while b"\n" not in output and (data := os.read(self._status, 4096)):
            output += data
        if not output.startswith(_READY):
            os.waitpid(self.pid, 0)
            message = output.decode("utf-8", "replace").strip()
            raise CliError(
                message.removeprefix("jaula: ") or "the recorder ended without an error", status=125
            )
        self._file = os.stat(path)

    def print_started(self) -> None:
        """Say where the record is, and which process writes it."""
        print(f"jaula: process {self.pid} records to {self.path}", file=sys.stderr, flush=True)

    def discard(self) -> None:
        """End the recorder of a container that was not started, and remove its file."""
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        unlink_if_same(self.path, self._file)

    def finish(self) -> None:
        """Print what the recorder says at its end; if the container runs on, that it records."""
        output = b""
        poller = select.poll()
        poller.register(self._status, select.POLLIN)
        while True:
            if not poller.poll(_POLL):
                if self._running():
                    self.print_started()
                    return
                continue
            data = os.read(self._status, 4096)
            if not data:
                break
            output += data
        os.waitpid(self.pid, 0)
        sys.stderr.write(output.decode("utf-8", "replace"))
        sys.stderr.flush()

    def _running(self) -> bool:
        try:
            state = self._client.get(f"/containers/{self._container}/json")["State"]
        except EngineError:
            return False
        return bool(state["Running"])


def start(client: Client, container: str, options: Options, listener: str) -> RecordProcess:
    """Start the recorder of a container that was created for ``--record``.

    :raises CliError: when it cannot; the container is removed.
    """
    try:
        return RecordProcess(client, container, options.text("record"), listener)
    except CliError:
        client.request("DELETE", f"/containers/{container}", (("force", True), ("v", True)))
        raise


def _run(document: dict[str, Any], path: str, listener: str, status: int) -> None:
    """Record in this process, which never returns; ``status`` is the pipe to the client."""
    code = 1
    try:
        os.setsid()
        with open(os.devnull, "r+b", buffering=0) as null:
            for descriptor in (0, 1, 2):
                os.dup2(null.fileno(), descriptor)
        os.closerange(3, status)  # connections of the client
        os.closerange(status + 1, 1 << 12)
        code = _record(document, path, listener, status)
    finally:
        os._exit(code)


def _record(document: dict[str, Any], path: str, listener: str, status: int) -> int:
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.cli.containers.attach_loop import send_wait
    from jaula.errors import JaulaError
    from jaula.features.record import mechanism, recorded_cgroup, recorder
    from jaula.features.record.cli.record_output import container_of, loss_lines
    from jaula.features.record.record_writer import RecordWriter
    from jaula.features.record.seccomp_tracer import SECCOMP

    def report(text: str) -> None:
        try:
            os.write(status, text.encode())
        except BrokenPipeError:
            return  # the client has ended; the file has the same facts

    try:
        waiting = send_wait(Client(Settings.host), document["Id"], "removed")
        waiting.response_head()
        writer = RecordWriter(path)
    except (JaulaError, CliError) as error:
        report(f"jaula: {error}\n")
        return 1
    ready = False

    def started() -> None:
        nonlocal ready
        ready = True
        writer.flush()
        report(_READY.decode())

    try:
        with SignalHandler(ENDING) as signals:
            end = recorder.record(
                container_of(document),
                None if listener else recorded_cgroup.expected(),
                0,
                writer,
                pid=0,
                exit_fd=waiting.fileno(),
                stop_fd=signals.fileno(),
                seconds=None,
                started=started,
                mechanism_name=SECCOMP if listener else mechanism.EBPF,
                listener=listener,
            )
    except JaulaError as error:
        advice = "" if ready or listener else "; --record-mechanism=seccomp may record it"
        report(f"jaula: {error}{advice}\n")
        if not ready:
            writer.remove()
        return 1
    head = writer.head
    report("".join(f"{line}\n" for line in loss_lines(end)))
    report(f"{path}: {head.n} lines, head {head.hash} ({end.reason})\n")
    return 0
