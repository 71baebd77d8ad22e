"""Validation of a spec, before anything is created.

Pure, except :mod:`jaula.runtime.validation.validate_host`.

Follows runtime-spec config.md and config-linux.md. Where they are silent, a value that the kernel
would refuse later with a bare errno is refused here with the name of the field.

Each error is one line that starts with the field. What other runtimes tolerate is tolerated here
too, with a warning.
"""

from __future__ import annotations

import msgspec

from jaula.runtime.validation import linux, validate_process, validate_resources
from jaula.runtime.validation.field import absolute, between, quote, refuse
from jaula.spec.runtime_spec import Hooks, Mount, Process, Resources, Spec

_UTS_MAX = 64  # bytes of a host or domain name, include/uapi/linux/utsname.h
_MAX_KEY = 64  # characters of an annotation's or sysctl's name that an error shows in full
_MAX_TIMEOUT = (1 << 63) - 1  # seconds
_DIGITS = frozenset("0123456789")


def check(spec: Spec) -> tuple[str, ...]:
    """Validate a spec; return warnings.

    :raises InvalidRequest: when a field is invalid.
    :raises Unsupported: when a field asks for something that this runtime does not support.
    """
    warnings: list[str] = []
    _no_nul(spec)
    _version(spec.oci_version)
    if spec.root is None or not spec.root.path:
        raise refuse("root.path", "is missing")
    if spec.process is None:
        raise refuse("process", "is missing")
    warnings += validate_process.check(spec.process)
    kinds = linux.check(spec)
    for field, name in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if not name:
            continue
        if "uts" not in kinds:
            raise refuse(field, "can only be set with a namespace of type 'uts'")
        if len(name.encode()) > _UTS_MAX:
            raise refuse(field, f"is longer than {_UTS_MAX} bytes")
    for index, mount in enumerate(spec.mounts):
        _mount(f"mounts[{index}]", mount)
    if spec.hooks is not None:
        _hooks(spec.hooks)
    return tuple(warnings)


def check_process(process_spec: Process) -> tuple[str, ...]:
    """Validate a process that is added to a running container; see :func:`check`."""
    _no_nul(process_spec)
    return validate_process.check(process_spec)


def check_resources(limits: Resources) -> None:
    """Validate new limits of a container; see :func:`check`."""
    _no_nul(limits)
    validate_resources.check(limits, "resources")


def _no_nul(document: Spec | Process | Resources) -> None:
    """Refuse a NUL byte: the kernel would read a shorter string."""
    try:
        if b"\\u0000" not in msgspec.json.encode(document):
            return
    except UnicodeEncodeError:
        pass  # a string that is not UTF-8
    if path := _find_nul(msgspec.to_builtins(document), ""):
        raise refuse(path.removeprefix("."), "holds a NUL byte")


def _find_nul(value: object, path: str) -> str | None:
    if isinstance(value, str):
        return path if "\0" in value else None
    if isinstance(value, dict):
        for key, item in value.items():
            printable = len(key) <= _MAX_KEY and key.isprintable()
            key_path = f"{path}.{key if printable else quote(key)}"
            if "\0" in key:
                return key_path
            if nested := _find_nul(item, key_path):
                return nested
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if nested := _find_nul(item, f"{path}[{index}]"):
                return nested
    return None


def _version(text: str) -> None:
    numbers = text.partition("-")[0].partition("+")[0].split(".")
    if len(numbers) != 3 or not all(number and set(number) <= _DIGITS for number in numbers):
        raise refuse("ociVersion", f"{quote(text)} is not a version such as 1.2.0")
    if numbers[0] != "1":
        raise refuse("ociVersion", f"{quote(text)} is not supported, this runtime supports 1.x")


def _mount(field: str, mount: Mount) -> None:
    absolute(f"{field}.destination", mount.destination)
    if mount.uid_mappings or mount.gid_mappings:
        if not mount.uid_mappings or not mount.gid_mappings:
            raise refuse(field, "has only one of uidMappings and gidMappings")
        if mount.type != "bind" and not {"bind", "rbind"} & set(mount.options):
            raise refuse(f"{field}.uidMappings", "requires a bind mount")
        linux.mappings(f"{field}.uidMappings", mount.uid_mappings)
        linux.mappings(f"{field}.gidMappings", mount.gid_mappings)


def _hooks(hooks: Hooks) -> None:
    for point, entries in (
        ("prestart", hooks.prestart),
        ("createRuntime", hooks.create_runtime),
        ("createContainer", hooks.create_container),
        ("startContainer", hooks.start_container),
        ("poststart", hooks.poststart),
        ("poststop", hooks.poststop),
    ):
        for index, hook in enumerate(entries):
            absolute(f"hooks.{point}[{index}].path", hook.path)
            if hook.timeout is not None and hook.timeout <= 0:
                raise refuse(
                    f"hooks.{point}[{index}].timeout", f"{hook.timeout} is not greater than zero"
                )
            if hook.timeout is not None:
                between(f"hooks.{point}[{index}].timeout", hook.timeout, 1, _MAX_TIMEOUT)
