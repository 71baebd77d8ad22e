"""One execution of a network plugin: environment, standard input, output, time limit.

Source: CNI specification 1.1, sections 2 and 5; libcni's pkg/invoke.

A plugin is a program of the host and runs as root in the host's mount namespace, which is not the
engine's. A thread of its own enters that namespace and starts the program with ``subprocess``. That
calls vfork(2): the child shares the memory until it executes, runs no Python, and inherits the
namespaces of this thread. So the engine, which has threads, is never forked. The plugin gets
descriptors 0, 1 and 2 only, and no variable of the engine except PATH.

Facts about process groups: the kernel keeps the number of a group as long as a process is in it or
its leader is not reaped. So a group is killed before its leader is reaped.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from jaula.errors import InvalidRequest, JaulaError
from jaula.features.kubernetes.cni import cni_version
from jaula.features.kubernetes.cni.cni_config import check_plugin_name
from jaula.kernel.namespace_threads import in_unshared_thread
from jaula.kernel.namespaces import CLONE, setns, unshare

BIN_DIRS: Final = ("/opt/cni/bin", "/usr/lib/cni")

INCOMPATIBLE_VERSION = 1  # codes of the specification that callers distinguish
UNKNOWN_CONTAINER = 3
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51

_OUTPUT_LIMIT = 1 << 20  # bytes of standard output
_STDERR_LIMIT = 64 << 10  # bytes of standard error that are kept
_MESSAGE_LIMIT = 1000  # characters of a plugin's text in an error
_OPEN_OUTPUT_WAIT = 1.0  # seconds that standard output may stay open after the plugin's exit
_KILL_WAIT = 5.0  # seconds for a killed plugin to exit
_BUSY_RETRIES = 5  # of a program that is being written
_BUSY_DELAY = 1.0  # seconds
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_Value = TypeVar("_Value")


class PluginError(JaulaError):
    """A plugin failed. ``code`` is that of the specification; 0 if the plugin printed no code."""

    def __init__(
        self,
        plugin: str,
        command: str,
        reason: str,
        *,
        code: int = 0,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"cni plugin {plugin} failed ({command}): {reason}", hint=hint)
        self.plugin = plugin
        self.command = command
        self.code = code
        if code in (TRY_AGAIN_LATER, NOT_AVAILABLE, LIMITED_CONNECTIVITY):
            self.status = 503


class Invocation(NamedTuple):
    """The parameters of one execution: an operation and the attachment that it is for."""

    command: str
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: tuple[tuple[str, str], ...] = ()


def environment(invocation: Invocation, bin_dirs: Sequence[str], path: str) -> dict[str, str]:
    """Return the whole environment of a plugin; ``path`` is the PATH of the engine. Pure."""
    return {
        "PATH": path or _PATH,
        "CNI_COMMAND": invocation.command,
        "CNI_CONTAINERID": invocation.container_id,
        "CNI_NETNS": invocation.netns,
        "CNI_IFNAME": invocation.ifname,
        "CNI_ARGS": ";".join(f"{name}={value}" for name, value in invocation.args),
        "CNI_PATH": ":".join(bin_dirs),
    }


class _ErrorDocument(msgspec.Struct, frozen=True):
    code: int | None = None
    msg: str | None = None
    details: str | None = None


def reported_error(
    plugin: str, command: str, status: int, stdout: bytes, stderr: bytes
) -> PluginError:
    """Return the error of a plugin that did not exit with 0.

    A negative ``status`` is the number of a signal. Pure.
    """
    end = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
    try:
        document = msgspec.json.decode(stdout, type=_ErrorDocument)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        text = _one_line((stdout if stdout.strip() else stderr).decode(errors="replace"))
        return PluginError(plugin, command, f"{end}: {text or 'it printed no error'}")
    parts = [_one_line(part) for part in (document.msg, document.details) if part]
    return PluginError(plugin, command, ": ".join(parts) or end, code=document.code or 0)


def _one_line(text: str) -> str:
    """Return the beginning of a text without line ends and other control characters."""
    line = " ".join(text[: 4 * _MESSAGE_LIMIT].split())
    return "".join(c if c.isprintable() else "?" for c in line[:_MESSAGE_LIMIT])


class PluginExec:
    """Finds plugins in directories of the host and executes them.

    ``host_mounts`` is a descriptor of the host's mount namespace, -1 if it is the engine's own. The
    caller keeps it open.

    :raises InvalidRequest: when a directory is not an absolute path, or has a colon.
    """

    def __init__(self, bin_dirs: Sequence[str] = BIN_DIRS, *, host_mounts: int = -1) -> None:
        for directory in bin_dirs:
            if not directory.startswith("/") or ":" in directory or "\0" in directory:
                raise InvalidRequest(
                    f"plugin directory {directory!r} must be an absolute path without ':'"
                )
        self._bin_dirs = tuple(bin_dirs)
        self._host_mounts = host_mounts

    async def execute(
        self, plugin: str, invocation: Invocation, stdin: bytes, timeout: float
    ) -> bytes:
        """Execute a plugin and return its standard output, at most 1 MiB.

        ``timeout`` is in seconds. The plugin and its process group are killed when the time is over
        and when the calling task is cancelled.

        :raises PluginError: when the plugin is absent, fails, prints too much, leaves a process
            that holds its output, or exceeds the time.
        """
        command = invocation.command
        check_plugin_name(plugin, "plugin")
        variables = environment(invocation, self._bin_dirs, os.environ.get("PATH", ""))
        try:
            async with asyncio.timeout(timeout):
                child = await self._start(plugin, command, variables, stdin)
                try:
                    await child.finish()
                finally:
                    await child.close()
        except TimeoutError:
            raise PluginError(
                plugin, command, f"it has not exited after {timeout:.3g} seconds and was killed"
            ) from None
        except _OutputError as error:
            raise PluginError(plugin, command, str(error)) from None
        if status := child.status:
            raise reported_error(plugin, command, status, child.stdout, child.stderr)
        return child.stdout

    async def find(self, plugin: str, command: str = "ADD") -> None:
        """Check that a plugin is in one of the directories.

        :raises PluginError: when it is absent; ``command`` is named in the error.
        """
        check_plugin_name(plugin, "plugin")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._on_host, lambda: self._path(plugin, command))
        except OSError as error:
            raise _not_executable(plugin, command, error) from None

    async def versions(self, plugin: str, timeout: float) -> frozenset[str]:
        """Return the versions of the protocol that a plugin supports (operation VERSION).

        :raises PluginError: when the plugin is absent, fails, or does not print versions.
        """
        # Old plugins require all parameters for VERSION too; libcni has the same words.
        invocation = Invocation("VERSION", netns="dummy", ifname="dummy")
        request = msgspec.json.encode({"cniVersion": cni_version.NEWEST})
        try:
            output = await self.execute(plugin, invocation, request, timeout)
            return cni_version.decode_version_result(output)
        except InvalidRequest as error:
            raise PluginError(plugin, "VERSION", error.message) from None
        except PluginError as error:
            if "unknown CNI_COMMAND" in error.message:  # before 0.2.0
                return frozenset({cni_version.OLDEST})
            raise

    async def _start(
        self, plugin: str, command: str, variables: Mapping[str, str], stdin: bytes
    ) -> _Child:
        for attempt in range(_BUSY_RETRIES):
            try:
                return await self._start_once(plugin, command, variables, stdin)
            except OSError as error:
                if error.errno != errno.ETXTBSY or attempt == _BUSY_RETRIES - 1:
                    raise _not_executable(plugin, command, error) from None
            await asyncio.sleep(_BUSY_DELAY)
        raise AssertionError("unreachable: the last attempt raises")

    async def _start_once(
        self, plugin: str, command: str, variables: Mapping[str, str], stdin: bytes
    ) -> _Child:
        loop = asyncio.get_running_loop()

        def spawn() -> subprocess.Popen[bytes]:
            return _spawn(self._path(plugin, command), variables, stdin)

        process = loop.run_in_executor(None, self._on_host, spawn)
        try:
            return _Child(await asyncio.shield(process))
        except BaseException:  # cancelled, or no descriptor is free
            process.add_done_callback(_discard)
            await asyncio.wait({process})
            raise

    def _on_host(self, work: Callable[[], _Value]) -> _Value:
        """Run ``work`` in a thread in the host's mount namespace."""

        def run() -> _Value:
            if self._host_mounts >= 0:
                unshare(CLONE.FS)
                setns(self._host_mounts, CLONE.NEWNS)
            return work()

        return in_unshared_thread(run)

    def _path(self, plugin: str, command: str) -> str:
        for directory in self._bin_dirs:
            path = os.path.join(directory, plugin)
            try:
                if stat.S_ISREG(os.stat(path).st_mode):
                    return path
            except OSError:
                continue  # absent, or a link to nothing: another directory may have it
        raise PluginError(
            plugin,
            command,
            f"it is not in {', '.join(self._bin_dirs)}",
            hint="install the plugin, or correct the network configuration",
        )


def _not_executable(plugin: str, command: str, error: OSError) -> PluginError:
    return PluginError(plugin, command, f"it cannot be executed: {error.strerror}")


class _OutputError(Exception):
    """The output of a plugin cannot be read to its end."""


def _spawn(path: str, variables: Mapping[str, str], stdin: bytes) -> subprocess.Popen[bytes]:
    """Start a program with ``stdin`` in memory, so that it need not be written while it runs."""
    fd = os.memfd_create("cni-request", os.MFD_CLOEXEC)
    with open(fd, "wb", buffering=0) as file:
        view = memoryview(stdin)
        while view:
            view = view[file.write(view) :]
        file.seek(0)
        return subprocess.Popen(
            [path],
            env=variables,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            umask=0o022,
            start_new_session=True,  # its pid is the number of its process group
        )


def _discard(process: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    """Kill and reap a program whose start was not waited for."""
    if process.cancelled() or process.exception() is not None:
        return
    child = process.result()
    _kill_group(child.pid)
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    threading.Thread(target=child.wait, daemon=True).start()  # reaps it


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # a process group of zombies only


class _Output:
    """A pipe that is read while the program writes.

    ``ended`` is done at its end. With ``strict`` it is done at the limit too, otherwise bytes
    beyond the limit are dropped.
    """

    def __init__(self, fd: int, limit: int, *, strict: bool) -> None:
        self._fd = fd
        self._limit = limit
        self._strict = strict
        self._loop = asyncio.get_running_loop()
        self.data = bytearray()
        self.exceeded = False
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        room = self._limit - len(self.data)
        self.data += chunk[:room]
        self.exceeded |= len(chunk) > room
        if not chunk or (self.exceeded and self._strict):
            self._loop.remove_reader(self._fd)
            self.ended.set_result(None)

    def drain(self) -> None:
        """Read what is in the pipe."""
        for _ in range(32):  # more than the capacity of a pipe
            if self.ended.done():
                return
            self._read()

    def close(self) -> None:
        """Stop reading; the owner closes the descriptor."""
        self._loop.remove_reader(self._fd)
        self.ended.cancel()


class _Child:
    """A running plugin. The caller calls :meth:`close`, whatever happened before."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._stdout = _Output(process.stdout.fileno(), _OUTPUT_LIMIT, strict=True)
        self._stderr = _Output(process.stderr.fileno(), _STDERR_LIMIT, strict=False)
        self._pidfd = os.pidfd_open(process.pid)
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._complete = False
        self._loop.add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._exited.set_result(None)

    @property
    def status(self) -> int:
        """Return the exit status; a negative one is the number of a signal."""
        return self._process.returncode or 0

    @property
    def stdout(self) -> bytes:
        """Return the standard output."""
        return bytes(self._stdout.data)

    @property
    def stderr(self) -> bytes:
        """Return the beginning of the standard error."""
        return bytes(self._stderr.data)

    async def finish(self) -> None:
        """Wait for the exit of the plugin and the end of its standard output.

        :raises _OutputError: when it prints too much, or another process holds the output open.
        """
        ended = self._stdout.ended
        await asyncio.wait({ended, self._exited}, return_when=asyncio.FIRST_COMPLETED)
        if not self._stdout.exceeded:
            await asyncio.wait({self._exited})
            await asyncio.wait({ended}, timeout=_OPEN_OUTPUT_WAIT)
        if self._stdout.exceeded:
            raise _OutputError(f"it printed more than {_OUTPUT_LIMIT} bytes and was killed")
        if not ended.done():
            raise _OutputError(
                "it has exited, but a process that it started holds its standard output open"
            )
        self._complete = True

    async def close(self) -> None:
        """Kill the process group unless the plugin has finished, and reap the plugin."""
        try:
            if not self._complete:
                _kill_group(self._process.pid)
                await asyncio.wait({self._exited}, timeout=_KILL_WAIT)
        finally:
            self._stderr.drain()
            for output, pipe in (
                (self._stdout, self._process.stdout),
                (self._stderr, self._process.stderr),
            ):
                output.close()
                if pipe is not None:
                    pipe.close()
            if self._exited.done():
                self._process.wait()
            else:  # in an uninterruptible sleep of the kernel
                self._exited.add_done_callback(lambda _: self._process.wait())
