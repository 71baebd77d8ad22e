"""The features of this runtime: runtime-spec features.md and features-linux.md, version 1.2.

Every list comes from the code that implements it, so the document cannot promise more. As
specified, it lists what the runtime implements. What depends on the kernel is listed where the
document has a field for it: capabilities, and the supported filter flags.
"""

from __future__ import annotations

import ctypes

from jaula import __version__
from jaula.cgroups.systemd.unit_annotations import PREFIX as UNIT_PROPERTIES
from jaula.kernel import capabilities, numa, seccomp
from jaula.runtime.create import mount_plan
from jaula.runtime.validation.linux import NAMESPACES
from jaula.security.seccomp import constants
from jaula.spec.annotations import LANDLOCK_ANNOTATION
from jaula.spec.runtime_spec import OCI_VERSION, Hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_VERSION_MIN = "1.0.0"
VERSION_ANNOTATION = "jaula.runtime.version"
_NEWER = frozenset(
    {"SCMP_ARCH_LOONGARCH64"}
)  # supported here, but only a later specification names it
LIBSECCOMP_ANNOTATION = "io.github.seccomp.libseccomp.version"


def features() -> dict[str, Any]:
    """Return the document as plain values."""
    return {
        "ociVersionMin": OCI_VERSION_MIN,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(Hooks.__struct_encode_fields__),
        "mountOptions": list(mount_plan.known_options()),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(capabilities.NAMES[: capabilities.last_cap() + 1]),
            "cgroup": _cgroup(),
            "seccomp": _seccomp(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {"modes": sorted(numa.MODES), "flags": sorted(numa.FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": _annotations(),
        "potentiallyUnsafeConfigAnnotations": [UNIT_PROPERTIES, LANDLOCK_ANNOTATION],
    }


def _cgroup() -> dict[str, bool]:
    from importlib.util import find_spec

    from jaula.cgroups.v1.cgroup_v1 import CONTROLLERS as V1
    from jaula.cgroups.v2.cgroup_v2 import CONTROLLERS as V2

    systemd = find_spec("jeepney") is not None  # D-Bus library of jaula.cgroups.systemd
    return {
        "v1": bool(V1),
        "v2": bool(V2),
        "systemd": systemd,
        "systemdUser": systemd,
        "rdma": "rdma" in V1 or any(controller.name == "rdma" for controller in V2),
    }


def _seccomp() -> dict[str, Any]:
    if _libseccomp() is None:
        return {"enabled": False}
    return {
        "enabled": True,
        "actions": sorted(constants.ACTIONS),
        "operators": sorted(constants.COMPARISONS),
        "archs": sorted(set(seccomp.ARCHITECTURES) - _NEWER),
        "knownFlags": sorted(constants.FLAGS),
        "supportedFlags": sorted(
            name for name, flag in constants.FLAGS.items() if seccomp.filter_flag_available(flag)
        ),
    }


def _annotations() -> dict[str, str]:
    annotations = {VERSION_ANNOTATION: __version__}
    if version := _libseccomp():
        annotations[LIBSECCOMP_ANNOTATION] = version
    return annotations


class _scmp_version(ctypes.Structure):
    """struct scmp_version of seccomp.h."""

    _fields_ = [(name, ctypes.c_uint) for name in ("major", "minor", "micro")]


def _libseccomp() -> str | None:
    """Return the version of libseccomp; None without it, since no filter can be compiled then."""
    try:
        function = seccomp.library().seccomp_version
    except OSError:
        return None
    function.restype = ctypes.POINTER(_scmp_version)
    version = function().contents
    return f"{version.major}.{version.minor}.{version.micro}"
