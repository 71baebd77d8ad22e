"""AppArmor: each restored thread has the profile of the spec, never one that the images name."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import checkpoint_edits, containers
from harness.checkpoints import CheckedContainer, thread_labels
from harness.engine import PrivateEngine
from jaula.features.checkpoint.checkpoint_store import CheckpointStore
from jaula.features.checkpoint.runtime.proto import images_pb2
from jaula.security.lsm import apparmor_profile

LOADED = Path("/sys/kernel/security/apparmor/profiles")

pytestmark = [
    pytest.mark.vm,
    pytest.mark.usefixtures("print_denials"),
    pytest.mark.criu,
    pytest.mark.needs(str(LOADED)),
]

DEFAULT = apparmor_profile.loaded_name("unconfined")
OWN = "jaula-checkpoint-test"
CHECKS = ("threads", "tree", "pipes", "unix_sockets", "memory", "timers", "listeners")
RULES = "{ file, capability, network, signal, ptrace peer=@{profile_name}, deny /forbidden/** w, }"


def labels(engine: PrivateEngine, container: str) -> set[str]:
    return thread_labels(engine, container, "attr/apparmor/current")


@pytest.fixture
def profile() -> Iterator[str]:
    """Load a profile of the host."""
    text = f"profile {OWN} {RULES}"
    subprocess.run(["apparmor_parser", "-r", "-K"], input=text, text=True, check=True)
    yield OWN
    subprocess.run(["apparmor_parser", "-R", "-K"], input=text, text=True, check=True)


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


def option(profile: str) -> tuple[str, str]:
    return "--security-opt", f"apparmor={profile}"


def test_all_threads_have_the_default_profile_again(make: Make, engine: PrivateEngine) -> None:
    container = make()
    expected = {f"{DEFAULT} (enforce)"}
    assert labels(engine, container.name) == expected
    for name in ("one", "two"):
        container.create("--tcp-established", name=name)
        container.start(name=name)
        container.advance()
        assert labels(engine, container.name) == expected


def test_a_profile_of_the_host_is_enforced_again(
    make: Make, engine: PrivateEngine, profile: str
) -> None:
    container = make(*option(profile), "--security-opt", "no-new-privileges")
    container.create("--tcp-established")
    container.start()
    container.advance()
    assert labels(engine, container.name) == {f"{profile} (enforce)"}
    done = engine.cli(
        "jaula", "exec", container.name, "sh", "-c", "mkdir /forbidden; >/forbidden/x"
    )
    assert done.returncode != 0
    assert "ermission denied" in done.stderr


def test_a_container_without_a_profile_stays_without(make: Make, engine: PrivateEngine) -> None:
    container = make(*option("unconfined"))
    container.create("--tcp-established")
    container.start()
    container.advance()
    assert labels(engine, container.name) == {"unconfined"}


Edit = Callable[[CheckedContainer, str], None]


@pytest.fixture
def edit(engine: PrivateEngine) -> Edit:
    """Return a function that makes the checkpoint ``edited``, whose threads have a label."""
    store = CheckpointStore(engine.root / "lib/checkpoints")

    def write(container: CheckedContainer, label: str) -> None:
        def each(core: images_pb2.Core) -> None:
            if core.thread_core.HasField("creds"):
                core.thread_core.creds.lsm_profile = label

        def change(made: Path) -> None:
            for path in made.glob("core-*.img"):
                checkpoint_edits.rewrite(path, images_pb2.Core, each)

        identity = containers.inspect(engine, container.name)["Id"]
        checkpoint_edits.sign_again(store, identity, change, "edited")

    return write


def test_an_image_does_not_choose_the_profile(
    make: Make, engine: PrivateEngine, profile: str, edit: Edit
) -> None:
    container = make()
    container.create("--tcp-established")
    store = CheckpointStore(engine.root / "lib/checkpoints")
    identity = containers.inspect(engine, container.name)["Id"]
    for label in (profile, "unconfined", f"{DEFAULT}//&{profile}", f"{DEFAULT}//child"):
        edit(container, label)
        message = container.refused("start", "--checkpoint", "edited", container.name)
        assert f"has the LSM label {label!r}" in message
        assert repr(DEFAULT) in message
        store.remove(identity, "edited")
    edit(container, "")
    container.start(name="edited")
    container.advance()
    assert labels(engine, container.name) == {f"{DEFAULT} (enforce)"}


@pytest.mark.parametrize("label", ["jaula-default", "jaula-default-0123456789ab"])
def test_the_default_profile_of_another_engine_becomes_that_of_this_one(
    make: Make, engine: PrivateEngine, edit: Edit, label: str
) -> None:
    """This kernel has no profile of that name."""
    container = make()
    container.create("--tcp-established")
    edit(container, label)
    container.start(name="edited")
    container.advance()
    assert labels(engine, container.name) == {f"{DEFAULT} (enforce)"}


def test_a_policy_in_the_images_is_refused(make: Make, engine: PrivateEngine) -> None:
    container = make(checks=("memory",))
    container.create()
    store = CheckpointStore(engine.root / "lib/checkpoints")
    identity = containers.inspect(engine, container.name)["Id"]
    before = LOADED.read_text()

    def add(made: Path) -> None:
        (made / "apparmor.img").write_bytes(b"policy")

    checkpoint_edits.sign_again(store, identity, add, "edited")
    message = container.refused("start", "--checkpoint", "edited", container.name)
    assert "unknown file 'apparmor.img'" in message
    assert LOADED.read_text() == before
