"""Containers of pods go on from an archive, as confined as their pod says, or not at all."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.pod_node import Node, running_node
from harness.pods import Cri, container_config, refused, sandbox_config, until
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code

pytestmark = [pytest.mark.criu, pytest.mark.needs("/usr/lib/cni/bridge")]

COUNT = (
    "echo kept >/root/f; echo shared >/dev/shm/f; exec 3</dev/shm/f; umask 022;"
    " i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
)
FIRST_ID, IDS = 65536 * 60, 65536
LABEL = "org.criu.checkpoint.container.name"
ANNOTATION = "io.kubernetes.cri-o.annotations.checkpoint.name"
NAMESPACES = ("user", "net", "ipc", "uts")


@pytest.fixture(scope="module")
def node(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("cni")
    with running_node((worker_index + 109) % 250 + 1, directory) as made:
        yield made


class Restores:
    """Makes an archive of a container in one pod, and containers from it in others."""

    def __init__(
        self, node: Node, cri: Cri, directory: Path, *, userns: bool = False, host: bool = False
    ) -> None:
        """``host`` is for pods on the network of the host."""
        self.node, self.cri, self.directory, self.userns = node, cri, directory, userns
        self.host = host
        self.archive = directory / "main.tar"

    async def run_pod(self, name: str) -> str:
        logs = self.directory / name
        config = sandbox_config(name, api_pb2.CONTAINER, log_directory=str(logs))
        options = config.linux.security_context.namespace_options
        if not self.host:
            options.network, config.hostname = api_pb2.POD, name
        if self.userns:
            options.userns_options.mode = api_pb2.POD
            for rows in (options.userns_options.uids, options.userns_options.gids):
                rows.add(container_id=0, host_id=FIRST_ID, length=IDS)
        return str((await self.cri.call("RunPodSandbox", config=config)).pod_sandbox_id)

    def config(self, image: str = "busybox", **context: Any) -> api_pb2.ContainerConfig:
        config = container_config("main", "sh", "-c", COUNT, log_path="main.log")
        config.image.image = image
        security = config.linux.security_context
        security.seccomp.profile_type = context.get(
            "seccomp", api_pb2.SecurityProfile.RuntimeDefault
        )
        security.capabilities.drop_capabilities.extend(context.get("drop", ()))
        security.readonly_rootfs = context.get("readonly", False)
        termination = self.directory / "termination"
        termination.touch()
        mount = api_pb2.Mount(container_path="/dev/termination-log", host_path=str(termination))
        for rows in (mount.uidMappings, mount.gidMappings) if self.userns else ():
            rows.add(container_id=0, host_id=FIRST_ID, length=IDS)
        config.mounts.append(mount)
        return config

    async def save(self) -> None:
        """Run a container, and write its archive; its pod is removed."""
        pod = await self.run_pod("first")
        created = await self.cri.call("CreateContainer", pod_sandbox_id=pod, config=self.config())
        id = created.container_id
        await self.cri.call("StartContainer", container_id=id)
        await until(lambda: len(self.numbers("first")) > 5)
        self.confinement = self._confinement(id)
        await self.cri.call("CheckpointContainer", container_id=id, location=str(self.archive))
        await self.cri.call("RemovePodSandbox", pod_sandbox_id=pod)

    async def restore(self, pod: str, image: str = "", **context: Any) -> str:
        config = self.config(image or str(self.archive), **context)
        created = await self.cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        await self.cri.call("StartContainer", container_id=created.container_id)
        return str(created.container_id)

    def numbers(self, pod: str) -> list[int]:
        try:
            text = (self.directory / pod / "main.log").read_text()
        except FileNotFoundError:
            return []
        return [int(number) for number in re.findall(r" F (\d+)\n", text)]

    async def goes_on(self, pod: str, id: str) -> None:
        """Check that a container goes on where it was dumped."""
        await until(lambda: len(self.numbers(pod)) > 5)
        numbers = self.numbers(pod)
        first = numbers[0]
        assert first - 1 in self.numbers("first")  # the last one that the former container printed
        assert numbers == list(range(first, first + len(numbers)))
        assert await self.cri.run(id, "cat", "/root/f", "/dev/shm/f") == "kept\nshared\n"
        name = os.uname().nodename if self.host else pod
        assert await self.cri.run(id, "hostname") == f"{name}\n"
        assert self._confinement(id) == self.confinement
        assert not self.left()

    def _confinement(self, id: str) -> tuple[object, ...]:
        pid = self.pid(id)
        status = containers.status(pid)
        names = ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid", "Gid")
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        return (
            tuple(status[name] for name in names),
            sorted((fields[4], fields[5]) for fields in (line.split() for line in lines)),
            Path(f"/proc/{pid}/uid_map").read_text(),
        )

    def pid(self, id: str) -> int:
        return int(self.node.engine.request("GET", f"/containers/{id}/json").json()["State"]["Pid"])

    def namespaces(self, id: str) -> dict[str, str]:
        pid = self.pid(id)
        return {kind: str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in NAMESPACES}

    def left(self) -> list[Path]:
        """Return what the store has of checkpoints, besides its key."""
        root = self.node.engine.root / "lib/checkpoints"
        return [path for path in root.rglob("*") if path.is_file() and path.name != ".key"]


def with_archive(
    node: Node, directory: Path, work: Callable[[Restores], Awaitable[None]], **kind: bool
) -> None:
    async def run(cri: Cri) -> None:
        restores = Restores(node, cri, directory, **kind)
        await restores.save()
        await work(restores)

    node.calls(run)


@pytest.mark.parametrize("kind", [{}, {"userns": True}, {"host": True}], ids=str)
def test_a_container_goes_on_in_another_pod(
    node: Node, tmp_path: Path, kind: dict[str, bool]
) -> None:
    async def work(restores: Restores) -> None:
        for name in ("second", "third"):  # an archive can be used more than once
            pod = await restores.run_pod(name)
            id = await restores.restore(pod)
            await restores.goes_on(name, id)
            assert restores.namespaces(id) == restores.namespaces(pod)
            status = await restores.cri.container(id)
            assert (status.state, status.image.image) == (api_pb2.CONTAINER_RUNNING, "busybox")
            await restores.cri.call("StopContainer", container_id=id, timeout=0)
            assert (await restores.cri.container(id)).exit_code == 137

    with_archive(node, tmp_path, work, **kind)


@pytest.mark.parametrize("form", ["label", "annotation"])
def test_an_image_carries_a_checkpoint(node: Node, tmp_path: Path, form: str) -> None:
    async def work(restores: Restores) -> None:
        image = f"carried-{form}:1"
        if form == "label":
            _build(restores, image)
        else:
            _load_annotated(restores, image)
        pod = await restores.run_pod("second")
        await restores.goes_on("second", await restores.restore(pod, image))
        node.engine.cli("jaula", "rmi", "-f", image)

    with_archive(node, tmp_path, work, userns=True)


def _build(restores: Restores, image: str, archive: Path | None = None) -> None:
    context = restores.directory / "context"
    context.mkdir()
    (context / "main.tar").write_bytes((archive or restores.archive).read_bytes())
    (context / "Dockerfile").write_text(f"FROM scratch\nADD main.tar /\nLABEL {LABEL}=main\n")
    done = restores.node.engine.cli("jaula", "build", "-t", image, str(context))
    assert done.returncode == 0, done.stderr


def _load_annotated(restores: Restores, image: str) -> None:
    """Load an index of one image whose manifest has the annotation, as a pull stores it."""
    import hashlib

    blobs: dict[str, bytes] = {}

    def add(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    oci = "application/vnd.oci.image"
    layer = add(restores.archive.read_bytes(), f"{oci}.layer.v1.tar")
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.manifest.v1+json",
        "config": add(json.dumps(config).encode(), f"{oci}.config.v1+json"),
        "layers": [layer],
        "annotations": {ANNOTATION: "main"},
    }
    described = add(json.dumps(manifest).encode(), f"{oci}.manifest.v1+json")
    described["platform"] = {"architecture": config["architecture"], "os": "linux"}
    inner = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.index.v1+json",
        "manifests": [described],
    }
    listed = add(json.dumps(inner).encode(), f"{oci}.index.v1+json")
    listed["annotations"] = {"io.containerd.image.name": f"docker.io/library/{image}"}
    index = {"schemaVersion": 2, "manifests": [listed]}
    path = restores.directory / "image.tar"
    with tarfile.open(path, "w") as tar:
        files = {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}
        files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
        files["index.json"] = json.dumps(index).encode()
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    done = restores.node.engine.cli("jaula", "load", "-i", str(path))
    assert done.returncode == 0, done.stderr


def test_another_confinement_is_not_restored(node: Node, tmp_path: Path) -> None:
    contexts: dict[str, dict[str, Any]] = {
        "has capabilities that the container does not get": {"drop": ["ALL"]},
        "is not ro": {"readonly": True},
    }

    async def work(restores: Restores) -> None:
        for number, (words, context) in enumerate(contexts.items()):
            pod = await restores.run_pod(f"p{number}")
            error = await refused(restores.restore(pod, **context))
            assert words in str(error), str(error)
            (listed,) = (await restores.cri.call("ListContainers")).containers
            status = await restores.cri.container(listed.id)
            assert status.state == api_pb2.CONTAINER_EXITED
            assert not restores.numbers(f"p{number}")
            run = restores.node.engine.run / "containers" / pod / "shm"
            assert not list(run.glob("*"))
            await restores.cri.call("RemovePodSandbox", pod_sandbox_id=pod)
            assert not restores.left()

    with_archive(node, tmp_path, work, userns=False)


def test_a_pod_without_the_user_namespace_of_the_checkpoint_is_refused(
    node: Node, tmp_path: Path
) -> None:
    async def work(restores: Restores) -> None:
        restores.userns = False
        pod = await restores.run_pod("second")
        error = await refused(restores.restore(pod))
        assert "user namespace" in str(error)
        assert not restores.numbers("second")

    with_archive(node, tmp_path, work, userns=True)


def _members(archive: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(archive) as tar:
        members = []
        for entry in tar:
            file = tar.extractfile(entry) if entry.isfile() else None
            members.append((entry, file.read() if file is not None else b""))
        return members


def _write(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for entry, data in members:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def test_hostile_archives_are_refused_and_leave_nothing(node: Node, tmp_path: Path) -> None:
    async def work(restores: Restores) -> None:
        archive, bad = restores.archive, tmp_path / "bad.tar"
        members = _members(archive)
        fifo, directory, link = (tmp_path / name for name in ("fifo", "directory", "link"))
        os.mkfifo(fifo)
        directory.mkdir()
        link.symlink_to(tmp_path / "absent")

        def changed(name: str, change: Callable[[bytes], bytes]) -> Path:
            _write(bad, [(e, change(d) if e.name == name else d) for e, d in members])
            return bad

        def cut() -> Path:
            bad.write_bytes(archive.read_bytes()[:-40000])
            return bad

        def text() -> Path:
            bad.write_text("no archive")
            return bad

        pod = await restores.run_pod("second")
        for words, make in {
            "No such file": lambda: tmp_path / "absent.tar",
            "is not a regular file": lambda: fifo,
            "is not a regular file ": lambda: directory,
            "No such file ": lambda: link,
            "File name too long": lambda: Path("/" + "x" * 300),
            "inside a header": text,
            "trusted|signed|signature": lambda: changed(
                "manifest.json", lambda data: data.replace(b'"linux"', b'"Linux"') + b" "
            ),
            "was changed": lambda: changed(
                "checkpoint/pstree.img", lambda data: data[:-1] + bytes([data[-1] ^ 1])
            ),
            "bytes; the manifest says": lambda: changed(
                "rootfs-diff.tar", lambda data: data + bytes(512)
            ),
            "truncated|lacks": cut,
        }.items():
            error = await refused(restores.restore(pod, str(make())))
            assert re.search(words.strip(), str(error)), (words, str(error))
            assert error.code is not Code.INTERNAL
            assert not (await restores.cri.call("ListContainers")).containers
            assert not restores.left()
        id = await restores.restore(pod)  # the archive itself is still good
        await restores.goes_on("second", id)

    with_archive(node, tmp_path, work, userns=False)


def test_an_image_whose_checkpoint_was_changed_is_refused(node: Node, tmp_path: Path) -> None:
    async def work(restores: Restores) -> None:
        bad = tmp_path / "bad.tar"
        members = _members(restores.archive)
        name = "checkpoint/pstree.img"
        _write(bad, [(e, d[::-1] if e.name == name else d) for e, d in members])
        _build(restores, "changed:1", bad)
        pod = await restores.run_pod("second")
        error = await refused(restores.restore(pod, "changed:1"))
        assert "was changed" in str(error)
        assert not (await restores.cri.call("ListContainers")).containers
        assert not restores.left()
        node.engine.cli("jaula", "rmi", "-f", "changed:1")

    with_archive(node, tmp_path, work, userns=False)


def test_an_archive_of_a_pod_is_not_imported_as_a_container(node: Node, tmp_path: Path) -> None:
    async def work(restores: Restores) -> None:
        done = node.engine.cli("jaula", "checkpoint", "import", "-i", str(restores.archive))
        assert done.returncode == 1
        assert "is of a container in a pod" in done.stderr
        assert not restores.left()

    with_archive(node, tmp_path, work)


def test_a_container_is_restored_by_the_next_engine(node: Node, tmp_path: Path) -> None:
    pods: dict[str, str] = {}

    async def create(restores: Restores) -> None:
        pod = pods["pod"] = await restores.run_pod("second")
        config = restores.config(str(restores.archive))
        created = await restores.cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
        pods["main"] = created.container_id
        node.engine.kill()
        node.start()

    async def first(cri: Cri) -> None:
        restores = Restores(node, cri, tmp_path)
        await restores.save()
        await create(restores)

    async def second(cri: Cri) -> None:
        restores = Restores(node, cri, tmp_path)
        await cri.call("StartContainer", container_id=pods["main"])
        await until(lambda: len(restores.numbers("second")) > 5)
        assert restores.numbers("second")[0] - 1 in restores.numbers("first")
        assert not restores.left()

    _without_removal(node, first)
    node.calls(second)


def _without_removal(node: Node, work: Callable[[Cri], Awaitable[None]]) -> None:
    import asyncio

    from harness.pods import connected

    async def run() -> None:
        async with connected(node.engine) as cri:
            await work(cri)

    asyncio.run(run())
