"""Whether a spec asks for something that a container can be: decided before anything is made.

Follows runtime-spec config.md and config-linux.md; where they are silent, what the kernel would
refuse later with a bare errno is refused here with the name of the field. Pure, except
:mod:`jaula.runtime.validation.host`.

Each error is one line that starts with the field. What other runtimes tolerate is tolerated, and
told as a warning.
"""

from __future__ import annotations

import msgspec

from jaula.runtime.validation import linux, process, resources
from jaula.runtime.validation.field import absolute, refuse, shown
from jaula.spec.runtime import Hooks, Mount, Process, Resources, Spec

_UTS_MAX = 64  # bytes of a host or domain name, include/uapi/linux/utsname.h
_LONGEST_KEY = 64  # characters of an annotation's or sysctl's name that are shown as they are
_DIGITS = frozenset("0123456789")


def check(spec: Spec) -> tuple[str, ...]:
    """Warnings about a spec; raises ``InvalidRequest`` or ``Unsupported`` where it cannot be."""
    warnings: list[str] = []
    _no_nul(spec)
    _version(spec.oci_version)
    if spec.root is None or not spec.root.path:
        raise refuse("root.path", "is missing")
    if spec.process is None:
        raise refuse("process", "is missing")
    warnings += process.check(spec.process)
    kinds = linux.check(spec)
    for field, name in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if not name:
            continue
        if "uts" not in kinds:
            raise refuse(field, "can only be set with a namespace of type 'uts'")
        if len(name.encode()) > _UTS_MAX:
            raise refuse(field, f"is longer than {_UTS_MAX} bytes")
    for index, mount in enumerate(spec.mounts):
        warnings += _mount(f"mounts[{index}]", mount)
    if spec.hooks is not None:
        _hooks(spec.hooks)
    return tuple(warnings)


def check_process(wanted: Process) -> tuple[str, ...]:
    """As :func:`check`, for a process that is added to a container."""
    _no_nul(wanted)
    return process.check(wanted)


def check_resources(wanted: Resources) -> None:
    """As :func:`check`, for limits that a container is to have from now on."""
    _no_nul(wanted)
    resources.check(wanted, "resources")


def _no_nul(document: Spec | Process | Resources) -> None:
    """The kernel would see a text with a NUL byte as a shorter one."""
    if b"\\u0000" not in msgspec.json.encode(document):
        return
    if place := _find_nul(msgspec.to_builtins(document), ""):
        raise refuse(place.removeprefix("."), "holds a NUL byte")


def _find_nul(value: object, place: str) -> str | None:
    if isinstance(value, str):
        return place if "\0" in value else None
    if isinstance(value, dict):
        for key, item in value.items():
            plain = len(key) <= _LONGEST_KEY and key.isprintable()
            below = f"{place}.{key if plain else shown(key)}"
            if "\0" in key:
                return below
            if found := _find_nul(item, below):
                return found
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if found := _find_nul(item, f"{place}[{index}]"):
                return found
    return None


def _version(text: str) -> None:
    numbers = text.partition("-")[0].partition("+")[0].split(".")
    if len(numbers) != 3 or not all(number and set(number) <= _DIGITS for number in numbers):
        raise refuse("ociVersion", f"{shown(text)} is not a version such as 1.2.0")
    if numbers[0] != "1":
        raise refuse("ociVersion", f"{shown(text)} is not 1.x, which this runtime follows")


def _mount(field: str, mount: Mount) -> tuple[str, ...]:
    if not mount.destination:
        raise refuse(f"{field}.destination", "is empty")
    if mount.uid_mappings or mount.gid_mappings:
        if not mount.uid_mappings or not mount.gid_mappings:
            raise refuse(field, "has only one of uidMappings and gidMappings")
        if mount.type != "bind" and not {"bind", "rbind"} & set(mount.options):
            raise refuse(f"{field}.uidMappings", "are only possible on a bind mount")
        linux.mappings(f"{field}.uidMappings", mount.uid_mappings)
        linux.mappings(f"{field}.gidMappings", mount.gid_mappings)
    if not mount.destination.startswith("/"):
        place = f"{field}.destination: {shown(mount.destination)}"
        return (f"{place} is not absolute, taken as relative to the root",)
    return ()


def _hooks(hooks: Hooks) -> None:
    for point, several in (
        ("prestart", hooks.prestart),
        ("createRuntime", hooks.create_runtime),
        ("createContainer", hooks.create_container),
        ("startContainer", hooks.start_container),
        ("poststart", hooks.poststart),
        ("poststop", hooks.poststop),
    ):
        for index, hook in enumerate(several):
            absolute(f"hooks.{point}[{index}].path", hook.path)
            if hook.timeout is not None and hook.timeout <= 0:
                raise refuse(
                    f"hooks.{point}[{index}].timeout", f"{hook.timeout} is not greater than zero"
                )
