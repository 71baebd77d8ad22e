"""CheckpointContainer: archives at a path of the host, of containers that run on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.pod_node import Node, running_node
from harness.pods import Cri, container_config, refused, sandbox_config, until
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code

pytestmark = [pytest.mark.criu, pytest.mark.needs("/usr/lib/cni/bridge")]

COUNT = "echo kept >/root/f; i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
FIRST_ID, IDS = 65536 * 50, 65536


@pytest.fixture(scope="module")
def node(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("cni")
    with running_node((worker_index + 83) % 250 + 1, directory) as made:
        yield made


@pytest.fixture
def target(node: Node, tmp_path: Path) -> Path:
    """Return a location whose directory is not accessible by other users."""
    directory = tmp_path / "checkpoints"
    directory.mkdir(mode=0o700)
    return directory / "main.tar"


def sandbox(name: str, logs: Path, *, userns: bool = False) -> api_pb2.PodSandboxConfig:
    config = sandbox_config(name, api_pb2.CONTAINER, log_directory=str(logs))
    options = config.linux.security_context.namespace_options
    options.network = api_pb2.POD
    if userns:
        options.userns_options.mode = api_pb2.POD
        for rows in (options.userns_options.uids, options.userns_options.gids):
            rows.add(container_id=0, host_id=FIRST_ID, length=IDS)
    return config


async def run_pod(cri: Cri, logs: Path, *, userns: bool = False) -> str:
    config = sandbox("web", logs, userns=userns)
    return str((await cri.call("RunPodSandbox", config=config)).pod_sandbox_id)


async def run_counter(cri: Cri, pod: str, name: str = "main") -> str:
    linux = api_pb2.LinuxContainerConfig()
    linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    return await cri.run_container(
        pod, name, "sh", "-c", COUNT, log_path=f"{name}.log", linux=linux
    )


def counted(logs: Path, name: str = "main") -> list[int]:
    return [int(n) for n in re.findall(r" F (\d+)\n", (logs / f"{name}.log").read_text())]


async def counts_on(logs: Path, name: str = "main") -> None:
    """Wait for five more lines, none of which is missing."""
    last = len(counted(logs, name))
    await until(lambda: len(counted(logs, name)) >= last + 5)
    numbers = counted(logs, name)
    assert numbers == list(range(1, len(numbers) + 1))


def left_in(node: Node) -> list[Path]:
    """Return what the store has of checkpoints, besides its key and empty directories."""
    root = node.engine.root / "lib/checkpoints"
    return [path for path in root.rglob("*") if path.is_file() and path.name != ".key"]


@pytest.mark.parametrize("userns", [False, True])
def test_an_archive_has_the_layout_that_other_programs_read(
    node: Node, tmp_path: Path, target: Path, *, userns: bool
) -> None:
    async def work(cri: Cri) -> None:
        pod = await run_pod(cri, tmp_path, userns=userns)
        id = await run_counter(cri, pod)
        await until(lambda: len(counted(tmp_path)) > 3)
        pid = node.engine.request("GET", f"/containers/{id}/json").json()["State"]["Pid"]
        await cri.call("CheckpointContainer", container_id=id, location=str(target))
        await counts_on(tmp_path)
        status = await cri.container(id)
        assert status.state == api_pb2.CONTAINER_RUNNING
        assert node.engine.request("GET", f"/containers/{id}/json").json()["State"]["Pid"] == pid
        assert node.engine.request("GET", f"/containers/{id}/checkpoints").json() == []
        assert target.stat().st_mode & 0o777 == 0o600
        assert os.listdir(target.parent) == ["main.tar"]
        assert not left_in(node)
        read_archive(target, id)

    node.calls(work)


def read_archive(path: Path, id: str) -> None:
    with tarfile.open(path) as archive:
        members = {member.name: member for member in archive}

        def content(name: str) -> bytes:
            file = archive.extractfile(members[name])
            assert file is not None
            return file.read()

        assert {"checkpoint", "checkpoint/pstree.img", "stats-dump"} <= members.keys()
        assert json.loads(content("config.dump"))["id"] == id
        assert json.loads(content("spec.dump"))["process"]["args"][0] == "sh"
        assert b" stdout F 1\n" in content("container.log")
        (path.parent / "diff.tar").write_bytes(content("rootfs-diff.tar"))
    with tarfile.open(path.parent / "diff.tar") as diff:
        kept = diff.extractfile("root/f")
        assert kept is not None
        assert kept.read() == b"kept\n"


def test_hostile_locations_are_refused_and_the_container_runs_on(
    node: Node, tmp_path: Path, target: Path
) -> None:
    target.write_text("precious")
    link, dangling, loop = (target.with_name(name) for name in ("link", "dangling", "loop"))
    link.symlink_to(target)
    dangling.symlink_to(target.with_name("absent"))
    loop.symlink_to(loop)
    own = target.with_name("own")
    own.symlink_to(node.engine.root / "lib")
    places = {
        "": "is not the absolute path of a file",
        "/": "is not the absolute path of a file",
        "main.tar": "is not the absolute path of a file",
        f"{target.parent}/../x.tar": "is not the absolute path of a file",
        f"{target.parent}//x.tar": "is not the absolute path of a file",
        f"{target.parent}/": "is not the absolute path of a file",
        f"{target}\0x": "is not the absolute path of a file",
        f"/{'x' * 5000}": "is not the absolute path of a file",
        f"{target.parent}/{'x' * 300}": "File name too long",
        str(target): "exists",
        str(target.parent): "exists",
        str(link): "exists",
        str(dangling): "exists",
        f"{target.parent}/absent/x.tar": "No such file or directory",
        f"{target}/x.tar": "Not a directory",
        f"{loop}/x.tar": "Too many levels of symbolic links",
        f"{node.engine.root}/lib/containers/x.tar": "is in a directory of the engine",
        f"{node.engine.run}/x.tar": "is in a directory of the engine",
        f"{own}/x.tar": "is in a directory of the engine",
        "/proc/x.tar": "cannot write the checkpoint",
    }

    async def work(cri: Cri) -> None:
        pod = await run_pod(cri, tmp_path)
        id = await run_counter(cri, pod)
        for place, words in places.items():
            error = await refused(cri.call("CheckpointContainer", container_id=id, location=place))
            assert words in str(error), (place, str(error))
            assert error.code is not Code.INTERNAL, place
        await counts_on(tmp_path)
        assert target.read_text() == "precious"
        assert sorted(os.listdir(target.parent)) == [
            *("dangling", "link", "loop", "main.tar", "own")
        ]
        assert not left_in(node)

    node.calls(work)


def test_a_checkpoint_that_takes_too_long_is_given_up(
    node: Node, tmp_path: Path, target: Path
) -> None:
    # tail keeps what it cannot write yet
    large = f"head -c 900000000 /dev/zero | tail -c 800000000 | sleep 1000 & {COUNT}"

    async def work(cri: Cri) -> None:
        pod = await run_pod(cri, tmp_path)
        id = await cri.run_container(pod, "main", "sh", "-c", large, log_path="main.log")
        await until(lambda: _memory(node, id) > 700_000_000)
        error = await refused(
            cri.call("CheckpointContainer", container_id=id, location=str(target), timeout=1)
        )
        assert error.code is Code.DEADLINE_EXCEEDED
        assert "the container runs on" in str(error)
        await counts_on(tmp_path)
        assert not target.exists()
        await until(lambda: not left_in(node))

    node.calls(work)


def _memory(node: Node, id: str) -> int:
    """Return the bytes of memory of the container's processes."""
    total = 0
    for row in node.engine.request("GET", f"/containers/{id}/top").json()["Processes"]:
        with contextlib.suppress(FileNotFoundError):  # it has exited
            total += int(Path(f"/proc/{row[1]}/statm").read_text().split()[1]) * 4096
    return total


def test_two_checkpoints_at_once_are_both_complete(
    node: Node, tmp_path: Path, target: Path
) -> None:
    second = target.with_name("second.tar")

    async def work(cri: Cri) -> None:
        pod = await run_pod(cri, tmp_path)
        id = await run_counter(cri, pod)
        await asyncio.gather(
            *(
                cri.call("CheckpointContainer", container_id=id, location=str(place))
                for place in (target, second)
            )
        )
        for place in (target, second):
            read_archive(place, id)
        third = str(target.with_name("third.tar"))
        outcomes = await asyncio.gather(
            *(cri.call("CheckpointContainer", container_id=id, location=third) for _ in range(2)),
            return_exceptions=True,
        )
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert len(failed) == 1
        assert "exists" in str(failed[0])
        await counts_on(tmp_path)

    node.calls(work)


def test_a_container_that_ends_meanwhile_has_no_checkpoint(
    node: Node, tmp_path: Path, target: Path
) -> None:
    async def work(cri: Cri) -> None:
        pod = await run_pod(cri, tmp_path)
        for delay in (0.0, 0.05, 0.1, 0.2, 0.3):
            name = f"c{int(delay * 100)}"
            id = await run_counter(cri, pod, name)
            await until(lambda name=name: len(counted(tmp_path, name)) > 1)  # type: ignore[misc]

            async def stop(id: str = id, delay: float = delay) -> None:
                await asyncio.sleep(delay)
                await cri.call("StopContainer", container_id=id, timeout=0)

            outcome, _ = await asyncio.gather(
                cri.call("CheckpointContainer", container_id=id, location=str(target)),
                stop(),
                return_exceptions=True,
            )
            if isinstance(outcome, Exception):
                assert not target.exists(), outcome
            else:
                read_archive(target, id)
                shutil.rmtree(target.parent)
                target.parent.mkdir()
            assert (await cri.container(id)).state == api_pb2.CONTAINER_EXITED
            assert not left_in(node)
            error = await refused(
                cri.call("CheckpointContainer", container_id=id, location=str(target))
            )
            assert error.code is Code.FAILED_PRECONDITION

    node.calls(work)


def test_commands_in_the_container_run_on_and_are_not_in_the_checkpoint(
    node: Node, tmp_path: Path, target: Path
) -> None:
    async def work(cri: Cri) -> None:
        pod = await run_pod(cri, tmp_path)
        id = await run_counter(cri, pod)
        command = ("sh", "-c", "sleep 3; echo done")
        running = asyncio.ensure_future(cri.call("ExecSync", container_id=id, cmd=command))
        await asyncio.sleep(1)
        await cri.call("CheckpointContainer", container_id=id, location=str(target))
        assert (await running).stdout == b"done\n"
        await counts_on(tmp_path)

    node.calls(work)


def test_a_sandbox_and_an_unknown_container_have_no_checkpoint(
    node: Node, tmp_path: Path, target: Path
) -> None:
    async def work(cri: Cri) -> None:
        pod = await run_pod(cri, tmp_path)
        for id, code in (
            (pod, Code.NOT_FOUND),
            ("f" * 64, Code.NOT_FOUND),
            ("", Code.INVALID_ARGUMENT),
        ):
            error = await refused(
                cri.call("CheckpointContainer", container_id=id, location=str(target))
            )
            assert error.code is code, id
        created = await cri.call(
            "CreateContainer", pod_sandbox_id=pod, config=container_config("main", "true")
        )
        error = await refused(
            cri.call("CheckpointContainer", container_id=created.container_id, location=str(target))
        )
        assert error.code is Code.FAILED_PRECONDITION
        assert not target.exists()

    node.calls(work)
