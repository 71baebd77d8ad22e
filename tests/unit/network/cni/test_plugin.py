"""One execution of a plugin: its environment, its errors, and plugins that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cni import plugin
from jaula.features.kubernetes.cni.plugin import Invocation, PluginError, PluginExec, environment

from .scripted_plugin import Plugins


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    return Plugins(tmp_path)


def execute(plugins: Plugins, name: str, timeout: float = 30, stdin: bytes = b"{}") -> bytes:
    caller = PluginExec((str(plugins.directory),))
    return asyncio.run(caller.execute(name, Invocation("ADD", "c1"), stdin, timeout))


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.01)


def test_the_environment_has_the_parameters_only() -> None:
    invocation = Invocation("DEL", "c1", "", "eth0", (("A", "1"), ("B", "")))
    assert environment(invocation, ("/a", "/b"), "/bin") == {
        "PATH": "/bin",
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "A=1;B=",
        "CNI_PATH": "/a:/b",
    }
    assert environment(invocation, (), "")["PATH"].endswith("/sbin:/bin")


def test_output_and_input_pass(plugins: Plugins) -> None:
    plugins.write_text("echo", "#!/bin/sh\ncat\necho log >&2\n")
    data = b"x" * (1 << 20)
    assert execute(plugins, "echo", stdin=data) == data


def test_a_plugin_need_not_read_its_input(plugins: Plugins) -> None:
    plugins.write_text("deaf", "#!/bin/sh\nexec <&-\necho '{}'\n")
    assert execute(plugins, "deaf", stdin=b"x" * (4 << 20)) == b"{}\n"


@pytest.mark.parametrize(
    ("text", "message", "code"),
    [
        ("echo '{\"code\": 7, \"msg\": \"bad\", \"details\": \"no subnet\"}'; exit 1",
         "bad: no subnet", 7),
        ("echo '{\"code\": 11, \"msg\": \"later\"}'; exit 1", "later", 11),
        ("echo '{\"code\": null}'; exit 3", "exited with status 3", 0),
        ("echo oops; exit 1", "exited with status 1: oops", 0),
        ("printf 'a\\nb\\033[1m' >&2; exit 2", r"exited with status 2: a b\?\[1m", 0),
        ("exit 1", "exited with status 1: it printed no error", 0),
        ("kill -9 $$", "was killed by signal 9", 0),
        ("head -c 500000 /dev/zero; exit 1", r"exited with status 1: \?+$", 0),
    ],
)  # fmt: skip
def test_a_failure_is_one_line(plugins: Plugins, text: str, message: str, code: int) -> None:
    plugins.write_text("p", f"#!/bin/sh\n{text}\n")
    with pytest.raises(PluginError, match=rf"cni plugin p failed \(ADD\): {message}") as e:
        execute(plugins, "p")
    assert e.value.code == code
    assert e.value.status == (503 if code == plugin.TRY_AGAIN_LATER else 500)
    assert len(e.value.message) < 2500
    assert e.value.message.isprintable()


def test_much_output_is_refused_and_its_program_killed(plugins: Plugins, tmp_path: Path) -> None:
    plugins.write_text("p", f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec head -c 100M /dev/zero\n")
    with pytest.raises(PluginError, match="printed more than 1048576 bytes and was killed"):
        execute(plugins, "p")
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_much_standard_error_is_dropped(plugins: Plugins) -> None:
    plugins.write_text("p", "#!/bin/sh\nhead -c 10M /dev/zero >&2\necho '{}'\n")
    assert execute(plugins, "p") == b"{}\n"


def test_a_plugin_that_hangs_is_killed_with_its_group(plugins: Plugins, tmp_path: Path) -> None:
    plugins.write_text(
        "p", f"#!/bin/sh\nsleep 600 &\necho $! >{tmp_path}/child\necho $$ >{tmp_path}/pid\nwait\n"
    )
    with pytest.raises(PluginError, match=r"has not exited after 0\.5 seconds and was killed"):
        execute(plugins, "p", timeout=0.5)
    for name in ("pid", "child"):
        if (tmp_path / name).exists():  # killed before on a busy machine
            wait_for_end(int((tmp_path / name).read_text()))


def test_a_process_that_holds_the_output_is_an_error(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plugin._OPEN_OUTPUT_WAIT == 1.0
    monkeypatch.setattr(plugin, "_OPEN_OUTPUT_WAIT", 0.05)
    plugins.write_text("p", f"#!/bin/sh\nsleep 600 &\necho $! >{tmp_path}/child\necho '{{}}'\n")
    with pytest.raises(PluginError, match="a process that it started holds its standard output"):
        execute(plugins, "p")
    wait_for_end(int((tmp_path / "child").read_text()))


def test_a_daemon_that_closed_the_output_may_remain(plugins: Plugins, tmp_path: Path) -> None:
    plugins.write_text(
        "p",
        f"#!/bin/sh\nsleep 600 >/dev/null 2>&1 &\necho $! >{tmp_path}/child\necho '{{}}'\n",
    )
    assert execute(plugins, "p") == b"{}\n"
    child = int((tmp_path / "child").read_text())
    assert is_running(child)
    os.kill(child, 9)


def test_a_cancelled_execution_kills_the_plugin(plugins: Plugins, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    plugins.write_text("p", f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 600\n")

    async def cancel() -> int:
        caller = PluginExec((str(plugins.directory),))
        work = asyncio.ensure_future(caller.execute("p", Invocation("ADD"), b"", 60))
        pid = int(await asyncio.to_thread((tmp_path / "pid").read_text))
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return pid

    wait_for_end(asyncio.run(cancel()))


@pytest.mark.parametrize("turns", range(4))
def test_a_start_that_is_cancelled_leaves_no_process(
    plugins: Plugins, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.write_text("p", "#!/bin/sh\nexec sleep 600\n")
    started: list[Any] = []
    spawn = plugin._spawn

    def recorded(*arguments: Any) -> Any:
        started.append(spawn(*arguments))
        return started[-1]

    monkeypatch.setattr(plugin, "_spawn", recorded)

    async def cancel() -> None:
        caller = PluginExec((str(plugins.directory),))
        work = asyncio.ensure_future(caller.execute("p", Invocation("ADD"), b"", 60))
        for _ in range(turns):
            await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        for _ in range(500):
            if turns == 0 or (started and started[0].returncode is not None):
                return
            await asyncio.sleep(0.01)

    asyncio.run(cancel())
    assert [process.returncode for process in started] == ([] if turns == 0 else [-9])


def test_a_plugin_is_found_in_the_first_directory_that_has_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = Plugins(tmp_path / "a"), Plugins(tmp_path / "b")
    (first.directory / "p").mkdir()  # not a regular file
    os.mkfifo(first.directory / "q")
    for name in ("p", "q"):
        second.write_text(name, "#!/bin/sh\necho second\n")
    caller = PluginExec((str(first.directory), str(second.directory)))
    for name in ("p", "q"):
        assert asyncio.run(caller.execute(name, Invocation("ADD"), b"", 30)) == b"second\n"
    with pytest.raises(PluginError, match="it is not in ") as e:
        asyncio.run(caller.find("absent"))
    assert e.value.hint == "install the plugin, or correct the network configuration"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../p", "/bin/sh", "a/b", "a\0", "a\nb", "x" * 256]
)
def test_a_name_with_a_path_is_refused(plugins: Plugins, name: str) -> None:
    with pytest.raises(InvalidRequest, match="must be the file name of a plugin"):
        execute(plugins, name)


@pytest.mark.parametrize("directory", ["", "bin", "/a:/b", "/a\0"])
def test_a_directory_is_an_absolute_path(directory: str) -> None:
    with pytest.raises(InvalidRequest, match="must be an absolute path"):
        PluginExec((directory,))


def test_a_file_that_is_not_a_program_is_one_error(plugins: Plugins) -> None:
    (plugins.directory / "p").write_text("#!/bin/sh\n")
    with pytest.raises(PluginError, match="it cannot be executed: Permission denied"):
        execute(plugins, "p")
    plugins.write_text("p", "no program\n")
    with pytest.raises(PluginError, match="it cannot be executed: Exec format error"):
        execute(plugins, "p")


def test_a_program_that_is_written_is_executed_afterwards(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (plugin._BUSY_RETRIES, plugin._BUSY_DELAY) == (5, 1.0)
    monkeypatch.setattr(plugin, "_BUSY_DELAY", 0.01)
    path = plugins.directory / "p"
    path.write_bytes(Path("/bin/true").read_bytes())
    path.chmod(0o755)
    with path.open("ab"), pytest.raises(PluginError, match="Text file busy"):
        execute(plugins, "p")

    async def close_later() -> bytes:
        file = path.open("ab")
        asyncio.get_running_loop().call_later(0.02, file.close)
        caller = PluginExec((str(plugins.directory),))
        return await caller.execute("p", Invocation("ADD"), b"", 30)

    assert asyncio.run(close_later()) == b""


def test_versions(plugins: Plugins) -> None:
    def versions(name: str) -> frozenset[str]:
        return asyncio.run(PluginExec((str(plugins.directory),)).versions(name, 30))

    plugins.write("new", VERSION='echo \'{"supportedVersions": ["0.4.0", "1.0.0"]}\'')
    assert versions("new") == {"0.4.0", "1.0.0"}
    error = json.dumps({"code": 4, "msg": "unknown CNI_COMMAND: VERSION"})
    plugins.write("old", VERSION=f"echo '{error}'; exit 1")
    assert versions("old") == {"0.1.0"}
    plugins.write("odd", VERSION="echo '[]'")
    with pytest.raises(PluginError, match=r"odd failed \(VERSION\): the output is not a version"):
        versions("odd")
    plugins.write("broken", VERSION="exit 1")
    with pytest.raises(PluginError, match="exited with status 1"):
        versions("broken")


def test_no_descriptor_is_left(plugins: Plugins) -> None:
    plugins.write_text("p", "#!/bin/sh\necho '{}'\n")
    plugins.write_text("q", "#!/bin/sh\nexec sleep 600\n")

    async def repeat() -> tuple[list[str], list[str]]:
        caller = PluginExec((str(plugins.directory),))
        await caller.execute("p", Invocation("ADD"), b"", 30)
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            await caller.execute("p", Invocation("ADD"), b"", 30)
            with pytest.raises(PluginError):
                await caller.execute("q", Invocation("ADD"), b"", 0.2)
        return before, os.listdir("/proc/self/fd")

    before, after = asyncio.run(repeat())
    assert len(after) == len(before)
