"""SELinux: restored threads have the label of the spec; containers that it confines are refused."""

from __future__ import annotations

import pytest

from harness import checkpoint_edits, containers
from harness.checkpoints import thread_labels
from harness.engine import PrivateEngine
from jaula.features.checkpoint.checkpoint_store import CheckpointStore

pytestmark = [
    pytest.mark.vm,
    pytest.mark.usefixtures("print_denials"),
    pytest.mark.criu,
    pytest.mark.needs("/sys/fs/selinux/enforce"),
]

LOOP = "while :; do sleep 1; done"
OTHER = "system_u:system_r:kernel_t:s0"
DISABLED = ("--security-opt", "label=disable")
LABEL = "system_u:system_r:spc_t:s0"


def labels(engine: PrivateEngine, container: str) -> set[str]:
    return thread_labels(engine, container, "attr/current")


def restore(engine: PrivateEngine, name: str) -> None:
    for words in (("checkpoint", "create", name, "one"), ("start", "--checkpoint", "one", name)):
        done = engine.cli("jaula", *words)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flags", [DISABLED, ("--privileged",)], ids=["disabled", "privileged"])
def test_all_processes_have_the_label_again(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    with containers.running(engine, busybox, "sh", "-c", LOOP, flags=flags) as name:
        assert labels(engine, name) == {LABEL}
        restore(engine, name)
        assert labels(engine, name) == {LABEL}


def test_a_confined_container_is_refused_and_runs_on(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        done = engine.cli("jaula", "checkpoint", "create", name, "one")
        assert done.returncode != 0
        assert "SELinux label (system_u:system_r:container_t:s0:c" in done.stderr
        assert "label=disable" in done.stderr
        assert containers.inspect(engine, name)["State"]["Running"]


def test_an_image_does_not_choose_the_label(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, "sh", "-c", LOOP, flags=DISABLED) as name:
        done = engine.cli("jaula", "checkpoint", "create", name, "one")
        assert done.returncode == 0, done.stderr
        store = CheckpointStore(engine.root / "lib/checkpoints")
        identity = containers.inspect(engine, name)["Id"]
        for field in ("lsm_profile", "lsm_sockcreate"):
            edit = checkpoint_edits.creds(lambda each, field=field: setattr(each, field, OTHER))
            checkpoint_edits.sign_again(store, identity, edit, "edited")
            done = engine.cli("jaula", "start", "--checkpoint", "edited", name)
            assert done.returncode != 0
            assert f"LSM label {OTHER!r}" in done.stderr
            store.remove(identity, "edited")
