"""Which containers can be checkpointed, by their spec."""

from __future__ import annotations

import msgspec
import pytest

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.runtime.expected import (
    check_spec,
    inherited_namespaces,
    joined_namespaces,
)
from jaula.spec.runtime_spec import Linux, Namespace, Process, Spec, User

POD = {
    "mount": "",
    "pid": "",
    "cgroup": "",
    "user": "/proc/7/ns/user",
    "network": "/proc/7/ns/net",
    "ipc": "/proc/7/ns/ipc",
    "uts": "/proc/7/ns/uts",
}
OWN = dict.fromkeys(POD, "")


def spec(kinds: dict[str, str]) -> Spec:
    linux = Linux(namespaces=tuple(Namespace(kind, path) for kind, path in kinds.items()))
    return Spec(
        oci_version="1.2.0", process=Process(user=User(0, 0), args=("sh",), cwd="/"), linux=linux
    )


def without(kinds: dict[str, str], *names: str) -> dict[str, str]:
    return {kind: path for kind, path in kinds.items() if kind not in names}


@pytest.mark.parametrize(
    ("kinds", "inherited"),
    [
        (OWN, set()),
        (POD, {"network", "ipc", "uts"}),
        (without(POD, "user"), {"network", "ipc", "uts"}),
        (OWN | {"network": "/proc/7/ns/net", "user": "/proc/7/ns/user"}, {"network"}),
        (without(OWN, "uts"), {"uts"}),
        (without(OWN, "user", "network", "ipc"), {"network", "ipc"}),
    ],
    ids=["own", "pod", "pod of the host's users", "network", "host's UTS", "host's network"],
)
def test_a_container_has_namespaces_from_criu(kinds: dict[str, str], inherited: set[str]) -> None:
    made = spec(kinds)
    check_spec(made)
    assert inherited_namespaces(made) == inherited
    assert joined_namespaces(made) == {kind for kind, path in kinds.items() if path}


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (POD | {"pid": "/proc/7/ns/pid"}, "shares its pid namespace"),
        (without(OWN, "pid"), "shares its pid namespace"),
        (without(OWN, "cgroup"), "shares its cgroup namespace"),
        (OWN | {"mount": "/proc/7/ns/mnt"}, "shares its mount namespace"),
        (without(OWN, "network"), "shares its network namespace"),
        (without(POD, "network"), "shares its network namespace"),
        (without(OWN, "ipc"), "shares its ipc namespace"),
    ],
)
def test_a_container_that_criu_cannot_restore_is_refused(kinds: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        check_spec(spec(kinds))


@pytest.mark.parametrize("name", ["of host", "a//child", ":namespace:a", "a//&b"])
def test_a_profile_that_criu_does_not_write_as_it_is_is_refused(name: str) -> None:
    made = spec(OWN)
    assert made.process is not None
    check_spec(with_profile(made, "docker-default"))
    with pytest.raises(InvalidRequest, match="CRIU cannot restore the AppArmor profile"):
        check_spec(with_profile(made, name))


def with_profile(made: Spec, name: str) -> Spec:
    process = msgspec.structs.replace(made.process, apparmor_profile=name)
    return msgspec.structs.replace(made, process=process)
