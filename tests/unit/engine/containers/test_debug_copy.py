"""The create request of a debug session with a copy of files."""

from __future__ import annotations

import msgspec
import pytest

from jaula.features.debug.debug_copy import LABEL, Origin, request
from jaula.features.debug.debug_session import DEFAULT_PATH, PreparedImage
from jaula.spec.api_documents import (
    ContainerCreate,
    DebugCreate,
    HostConfig,
    PortBinding,
    RestartPolicy,
)
from jaula.spec.image_documents import ImageConfig
from jaula.state.container_records import ContainerRecord, MountRecord

TOOLS = PreparedImage("/bin:/sbin", "ash", launched=True)
HOST = HostConfig(
    cap_drop=("ALL",),
    security_opt=("no-new-privileges",),
    memory=1 << 26,
    readonly_rootfs=True,
    network_mode="host",
    port_bindings={"80/tcp": (PortBinding(),)},
    restart_policy=RestartPolicy(name="always"),
    binds=("/srv:/www",),
)


def origin(*mounts: MountRecord) -> Origin:
    body = ContainerCreate(user="5", working_dir="/w", env=("A=1", "PATH=/own"), host_config=HOST)
    record = ContainerRecord("id", "web", 0, body, "sha256:1", mounts=mounts)
    return Origin("web", "app:1", body, record)


def test_a_session_has_the_confinement_but_not_the_network_of_the_container() -> None:
    made = request(origin(), TOOLS, DebugCreate(cmd=("ls",), tty=True))
    host = made.host_config
    assert (host.cap_drop, host.security_opt, host.memory) == (
        HOST.cap_drop, HOST.security_opt, HOST.memory,
    )  # fmt: skip
    assert (host.network_mode, host.auto_remove, host.readonly_rootfs) == ("none", True, False)
    assert host.port_bindings == {}
    assert host.restart_policy == RestartPolicy()
    assert host.binds == ()
    assert (made.image, made.entrypoint, made.tty, made.user) == ("app:1", ("ls",), True, "5")
    assert made.labels == {LABEL: "web"}
    assert made.healthcheck is not None
    assert made.healthcheck.test == ("NONE",)


def test_mounts_are_read_only_and_the_tools_are_where_a_session_has_them() -> None:
    mounts = (
        MountRecord(type="bind", source="/srv", destination="/www"),
        MountRecord(type="volume", source="/v/_data", destination="/data", name="data"),
        MountRecord(type="tmpfs", source="", destination="/t"),
        MountRecord(type="bind", source="/evil", destination="/.debug"),
    )
    made = request(origin(*mounts), TOOLS, DebugCreate(image="tools:1"))
    assert [(m.type, m.source, m.target, m.read_only) for m in made.host_config.mounts] == [
        ("image", "tools:1", "/.debug", True),
        ("bind", "/srv", "/www", True),
        ("volume", "data", "/data", True),
    ]


@pytest.mark.parametrize(("launched", "first"), [(True, "/.debug/.jaula-launch:"), (False, "")])
def test_the_tools_come_first_in_the_path(launched: bool, first: str) -> None:
    tools = msgspec.convert((*TOOLS[:2], launched), PreparedImage)
    made = request(origin(), tools, DebugCreate(env=("B=2",)))
    assert made.env[:3] == ("A=1", "PATH=/own", "B=2")
    assert made.env[-1] == f"PATH={first}/.debug/bin:/.debug/sbin:/own"
    assert made.entrypoint == ("ash",)
    image = Origin("app", "app", ImageConfig(user="7"), None)
    made = request(image, tools, DebugCreate(user="9", working_dir="/x"))
    assert made.env[-1].endswith(f"/.debug/sbin:{DEFAULT_PATH}")
    assert (made.user, made.working_dir) == ("9", "/x")
