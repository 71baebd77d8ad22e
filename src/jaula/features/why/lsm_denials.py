"""Denials of AppArmor and SELinux, from the kernel's audit records.

Source: security/lsm_audit.c, security/apparmor/audit.c. :mod:`jaula.kernel.kernel_audit` receives
the records.

Facts about the text: a record has ``key=value`` pairs. A value with a space, a quote or a byte that
is not printable is hexadecimal without quotes. A program chooses its name and its paths, so
anything can be in these values, but no pair can be added.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence

import msgspec

from jaula.features.record.record_document import text_of
from jaula.features.why.layers import Explanation, Layer
from jaula.kernel.kernel_audit import AUDIT_AVC, RecordSocket

_MAX_DENIALS = 4096
_PAIR = re.compile(r'(\w+)=("[^"]*"|\S+)')
_AVC_TEXT = re.compile(r"avc:\s+denied\s+\{ ([\w ]{1,200}) \} for\s")
_HEX = re.compile(r"(?:[0-9A-F]{2})+\Z")
_UNTRUSTED = frozenset({"name", "path", "comm", "exe", "profile", "target"})


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that an LSM refused. ``pid`` is the host's, ``path`` is '' if there is none.

    ``operation`` is AppArmor's name of it, or SELinux' permissions.
    """

    lsm: str  # apparmor, selinux
    operation: str
    pid: int
    path: str = ""
    profile: str = ""  # AppArmor's profile, or the type of the process
    target: str = ""  # the type of the object, of SELinux
    kind: str = ""  # the class of the object, of SELinux
    access: str = ""  # the refused letters, of AppArmor
    program: str = ""  # the name of the thread, which it chooses itself
    level: str = ""  # of the process, of SELinux
    uid: int = -1  # of the process on the host, of AppArmor


def parse(text: str) -> Denial | None:
    """Return the denial of an audit record, None if it is another record or malformed."""
    fields = {key: _value(key, value) for key, value in _PAIR.findall(text)}
    pid = _number(fields.get("pid", ""))
    if pid < 0:
        return None
    path = fields.get("path") or fields.get("name") or ""
    if fields.get("apparmor") == "DENIED":
        return Denial(
            lsm="apparmor",
            operation=fields.get("operation", ""),
            pid=pid,
            path=path,
            profile=fields.get("profile", ""),
            access=fields.get("denied_mask") or fields.get("denied") or "",
            program=fields.get("comm", ""),
            uid=_uid(fields.get("fsuid", "")),
        )
    permissions = _AVC_TEXT.search(text)
    if permissions is None or fields.get("permissive") == "1":
        return None
    return Denial(
        lsm="selinux",
        operation=permissions[1],
        pid=pid,
        path=path,
        profile=_type(fields.get("scontext", "")),
        target=_type(fields.get("tcontext", "")),
        kind=fields.get("tclass", ""),
        program=fields.get("comm", ""),
        level=":".join(fields.get("scontext", "").split(":")[3:]),
    )


def _value(key: str, value: str) -> str:
    if value.startswith('"'):
        return value[1:-1]
    if key in _UNTRUSTED and _HEX.match(value):
        return text_of(bytes.fromhex(value))
    return value


def _number(value: str) -> int:
    """Return an id of 32 bits; -1 if it is not one."""
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 11 else -1
    return number if number < 1 << 32 else -1


def _uid(value: str) -> int:
    """Return a user id; -1 if it is not one. AppArmor writes ids from 2^31 on as negative ones."""
    number = _number(value.removeprefix("-"))
    return (1 << 32) - number if number > 0 and value.startswith("-") else number


def _type(context: str) -> str:
    """Return the type of a label ``user:role:type:level``."""
    parts = context.split(":")
    return parts[2] if len(parts) > 2 else context


def explanation(denial: Denial) -> Explanation:
    """Return the explanation of a denial: the rule that is missing, and where to add it."""
    if denial.lsm == "apparmor":
        item = f"{denial.path} {denial.access}," if denial.path else f"{denial.operation},"
        return Explanation(
            layer=Layer.LSM,
            rule=f"the AppArmor profile {denial.profile} has no rule for {denial.operation}"
            + (f" of {denial.path} ({denial.access})" if denial.path else ""),
            proof=f"audit record of the kernel: apparmor DENIED {denial.operation}, "
            f"pid {denial.pid}",
            flag="--security-opt apparmor=PROFILE",
            gives_away="what the other profile allows",
            advice=f"a profile with the rule '{item}'",
        )
    allow = f"allow {denial.profile} {denial.target}:{denial.kind} {{ {denial.operation} }};"
    file = denial.kind in ("file", "dir", "lnk_file", "sock_file", "fifo_file")
    return Explanation(
        layer=Layer.LSM,
        rule=f"no rule of SELinux allows {denial.profile} to {denial.operation} a {denial.kind} "
        f"of type {denial.target}" + (f" ({denial.path})" if denial.path else ""),
        proof=f"audit record of the kernel: avc denied {{ {denial.operation} }}, pid {denial.pid}",
        flag="--security-opt label=type:TYPE",
        gives_away="what the other type allows",
        advice=("-v SOURCE:TARGET:z labels the files of a bind for containers; " if file else "")
        + f"a policy module with '{allow}'",
    )


def by_pid(denials: Sequence[Denial]) -> dict[int, list[Denial]]:
    """Return the denials of each process."""
    result: dict[int, list[Denial]] = {}
    for denial in denials:
        result.setdefault(denial.pid, []).append(denial)
    return result


def of(denials: Mapping[int, Sequence[Denial]], pid: int, error: str, path: str) -> Denial | None:
    """Return the denial of a refused call, None if no record is of its process and object.

    SELinux names the last component of a path only. A record without an object is of a call
    without a path.
    """
    if error not in ("EACCES", "EPERM"):
        return None
    name = path.rpartition("/")[2]
    for denial in denials.get(pid, ()):
        if denial.path in ((path, name) if path else ("",)):
            return denial
    return None


class DenialReader:
    """The audit records of denials, from the creation of this object on. Not thread safe."""

    def __init__(self) -> None:
        """Open the socket.

        :raises OSError: when this kernel has no audit, or the caller may not read its records.
        """
        self._socket = RecordSocket((AUDIT_AVC,))  # of both LSMs
        self.denials: list[Denial] = []

    def fileno(self) -> int:
        """Return a descriptor that is readable while records wait."""
        return self._socket.fileno()

    def receive(self) -> None:
        """Read the waiting records."""
        while True:
            try:
                record = self._socket.receive()
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # records were lost, and the next ones follow
                    continue
                raise
            if record is None:
                return
            denial = parse(record.text)
            if denial is not None and len(self.denials) < _MAX_DENIALS:
                self.denials.append(denial)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
