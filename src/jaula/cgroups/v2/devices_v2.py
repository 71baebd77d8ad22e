"""Device rules on v2: a BPF program that the kernel runs at each open and mknod.

Source: OCI config-linux.md "Device allow list"; kernel ``admin-guide/cgroup-v2.rst`` "Device
controller"; ``struct bpf_cgroup_dev_ctx`` in ``linux/bpf.h``. The last rule that matches a device
and an access letter decides; without a match access is denied. For lists that begin with "deny all"
this is what v1's files do.

The program keeps in R2 the letters that are not yet granted and goes through the rules from the
last to the first. A denying rule that names one of them returns 0. An allowing rule removes its
letters and returns 1 when none is left.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from jaula.cgroups.device_rules import DeviceRule
from jaula.cgroups.v2 import device_bpf
from jaula.errors import JaulaError, Unsupported

_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_KIND = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_NAME = b"jaula_devices"
_MAX_RULES = 1000  # a program may have 4096 instructions without CAP_BPF, 1 million with it

_DENY = device_bpf.set_value(device_bpf.R0, 0) + device_bpf.exit_()
_ALLOW = device_bpf.set_value(device_bpf.R0, 1) + device_bpf.exit_()


def assemble(rules: Sequence[DeviceRule]) -> bytes:
    """Assemble the program for ``rules``. Pure.

    :raises Unsupported: when there are more than a thousand rules.
    """
    if len(rules) > _MAX_RULES:
        raise Unsupported(f"{len(rules)} device rules exceed the maximum of {_MAX_RULES}")
    code = [
        device_bpf.load_word(device_bpf.R3, device_bpf.R1, 0),  # access << 16 | kind
        device_bpf.move(device_bpf.R2, device_bpf.R3),
        device_bpf.shift_right(device_bpf.R2, 16),
        device_bpf.and_value(device_bpf.R3, 0xFFFF),
        device_bpf.load_word(device_bpf.R4, device_bpf.R1, 4),  # major
        device_bpf.load_word(device_bpf.R5, device_bpf.R1, 8),  # minor
    ]
    for rule in reversed(rules):
        code.append(_block(rule))
        if rule.everything:
            break  # earlier rules have no effect
    code.append(_DENY)
    return b"".join(code)


def _block(rule: DeviceRule) -> bytes:
    letters = sum(_ACCESS[letter] for letter in rule.access)
    if rule.allow:
        body = device_bpf.and_value(device_bpf.R2, 7 & ~letters)
        body += device_bpf.jump_unless_equal(device_bpf.R2, 0, 2) + _ALLOW
    else:
        body = device_bpf.move(device_bpf.R0, device_bpf.R2) + device_bpf.and_value(
            device_bpf.R0, letters
        )
        body += device_bpf.jump_if_equal(device_bpf.R0, 0, 2) + _DENY
    conditions = [
        (register, value)
        for register, value in (
            (device_bpf.R3, _KIND[rule.kinds[0]] if len(rule.kinds) == 1 else None),
            (device_bpf.R4, rule.major),
            (device_bpf.R5, rule.minor),
        )
        if value is not None
    ]
    block = body
    for register, value in reversed(conditions):
        block = device_bpf.jump_unless_equal(register, value, len(block) // 8) + block
    return block


def apply(directory: int, path: str, rules: Sequence[DeviceRule]) -> None:
    """Replace the device programs of the cgroup; at no moment is the cgroup without rules.

    :raises Unsupported: when the kernel lacks such programs or denies them to the caller.
    """
    try:
        program = device_bpf.load(assemble(rules), _NAME)
    except OSError as error:
        raise _refused(path, "load", error) from error
    try:
        previous = device_bpf.attached(directory)
        device_bpf.attach(directory, program)
        for program_id in previous:
            _detach(directory, program_id)
    except OSError as error:
        raise _refused(path, "attach", error) from error
    finally:
        os.close(program)


def _detach(directory: int, program_id: int) -> None:
    program = device_bpf.by_id(program_id)
    try:
        device_bpf.detach(directory, program)
    finally:
        os.close(program)


def attached_programs(directory: int) -> str | None:
    """Return ids and digests of the cgroup's programs, or None if there are none.

    A digest can be compared with that of :func:`assemble`.
    """
    programs: list[str] = []
    try:
        for program_id in device_bpf.attached(directory):
            program = device_bpf.by_id(program_id)
            try:
                programs.append(f"program {program_id} tag {device_bpf.tag(program)}")
            finally:
                os.close(program)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EINVAL, errno.ENOSYS):
            return None
        raise
    return ", ".join(programs) or None


def _refused(path: str, step: str, error: OSError) -> JaulaError:
    return Unsupported(
        f"cannot {step} the device rules of cgroup {path}: {os.strerror(error.errno or 0)}",
        hint="the kernel needs CONFIG_CGROUP_BPF, the engine CAP_BPF or CAP_SYS_ADMIN",
    )
