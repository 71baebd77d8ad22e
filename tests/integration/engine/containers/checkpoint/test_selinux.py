"""SELinux: restored threads have the label of the spec; containers that it confines are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import checkpoint_edits, containers
from harness.checkpoints import CheckedContainer, processes
from harness.engine import PrivateEngine
from harness.lsm_denials import Denials
from jaula.runtime.checkpoint.proto import images_pb2 as pb
from jaula.storage.checkpoints import CheckpointStore

pytestmark = [pytest.mark.vm, pytest.mark.criu, pytest.mark.needs("/sys/fs/selinux/enforce")]

CHECKS = ("threads", "tree", "pipes", "unix_sockets", "memory", "timers", "listeners")
DISABLED = ("--security-opt", "label=disable")
LABEL = "system_u:system_r:spc_t:s0"


def labels(engine: PrivateEngine, container: str) -> set[str]:
    """Return the labels of all threads of a container."""
    return {
        (task / "attr/current").read_text().rstrip("\0\n")
        for pid in processes(containers.pid(engine, container))
        for task in Path(f"/proc/{pid}/task").iterdir()
        if "\nState:\tZ" not in (task / "status").read_text()
    }


@pytest.fixture(autouse=True)
def _denials() -> Iterator[None]:
    """Print the denials of a failed test."""
    denials = Denials()
    yield
    print("\n".join(denials.containing()))


Make = Callable[..., CheckedContainer]


@pytest.fixture
def make(engine: PrivateEngine) -> Iterator[Make]:
    made: list[CheckedContainer] = []

    def start(*flags: str, checks: tuple[str, ...] = CHECKS) -> CheckedContainer:
        made.append(CheckedContainer(engine, ("--tmpfs", "/work", *flags), checks))
        made[-1].rounds(3)
        return made[-1]

    yield start
    for container in made:
        container.remove()


@pytest.mark.parametrize("flags", [DISABLED, ("--privileged",)], ids=["disabled", "privileged"])
def test_all_threads_have_the_label_again(
    make: Make, engine: PrivateEngine, flags: tuple[str, ...]
) -> None:
    container = make(*flags)
    assert labels(engine, container.name) == {LABEL}
    container.create("--tcp-established")
    container.start()
    container.advance()
    assert labels(engine, container.name) == {LABEL}


def test_a_confined_container_is_refused_and_runs_on(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "checkpoint", "create", name, "one")
        assert done.returncode != 0
        assert "its SELinux label (system_u:system_r:container_t:s0:c" in done.stderr
        assert "label=disable" in done.stderr
        assert containers.inspect(engine, name)["State"]["Running"]


def test_an_image_does_not_choose_the_label(make: Make, engine: PrivateEngine) -> None:
    container = make(*DISABLED)
    container.create("--tcp-established")
    store = CheckpointStore(engine.root / "lib/checkpoints")
    identity = containers.inspect(engine, container.name)["Id"]

    def edit(field: str) -> None:
        def each(core: pb.Core) -> None:
            if core.thread_core.HasField("creds"):
                setattr(core.thread_core.creds, field, "system_u:system_r:kernel_t:s0")

        def change(made: Path) -> None:
            for path in made.glob("core-*.img"):
                checkpoint_edits.rewrite(path, pb.Core, each)

        checkpoint_edits.sign_again(store, identity, change, "edited")

    for field in ("lsm_profile", "lsm_sockcreate"):
        edit(field)
        message = container.refused("start", "--checkpoint", "edited", container.name)
        assert "LSM label 'system_u:system_r:kernel_t:s0'" in message
        store.remove(identity, "edited")
    container.start()
    assert labels(engine, container.name) == {LABEL}
