"""The user mapping: which host ids the container's ids are, and that its root is nobody here.

Evidence: /proc/<pid>/uid_map, gid_map and the Uid and Gid lines of status, which show host ids to
a reader in the initial user namespace (user_namespaces(7)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, Verdict, verdict_of
from jaula.spec.runtime import IDMapping

Map = list[tuple[int, int, int]]


INFO = CheckInfo(
    id="users",
    layer="users",
    title="User mapping",
    reason=(
        "Root inside that is a nobody on the host has no power over what it reaches by a "
        "hole in another layer."
    ),
    references=("I8", "I9", "CIS 2.9", "CIS 5.31", "user_namespaces(7)"),
    evidence="/proc/<pid>/uid_map, gid_map, status",
    advice="start it without --userns=host",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Both maps, and who the first process is on the host."""
    host = container.text("UsernsMode") == "host"
    if not host and container.rootless is not None:
        yield from _of_user(container, container.rootless)
        return
    for name, wanted in (
        ("uid_map", container.linux.uid_mappings),
        ("gid_map", container.linux.gid_mappings),
    ):
        found = parse(container.read(name))
        identity = any(outside == 0 for _, outside, _ in found)
        if host:
            requested, holds, by = "the host's ids (--userns=host)", identity, "--userns=host"
        else:
            requested = _text(_map(wanted)) if wanted else "host ids other than 0"
            holds, by = not identity and bool(found), None
            if wanted:
                holds = holds and found == _map(wanted)
        yield Result(
            name,
            "users",
            requested,
            _text(found) or "no map",
            container.path(name),
            verdict_of(holds, by),
        )
    uids, gids = container.status("Uid").split(), container.status("Gid").split()
    effective = f"uid {uids[1]}, gid {gids[1]}"
    if host:
        yield Result("host user", "users", "--userns=host", effective, container.path("status"),
                  Verdict.RELAXED)  # fmt: skip
        return
    yield Result(
        "host user", "users", "not root of the host", effective, container.path("status"),
        verdict_of("0" not in uids and "0" not in gids, None),
    )  # fmt: skip


def _of_user(container: AuditedContainer, by: str) -> Iterator[Result]:
    """Seen from the engine's user namespace, whose root is the user: root inside is that user."""
    for name, wanted in (
        ("uid_map", container.linux.uid_mappings),
        ("gid_map", container.linux.gid_mappings),
    ):
        found = parse(container.read(name))
        holds = bool(found) and found == _map(wanted)
        yield Result(
            name, "users", f"{_text(_map(wanted))} ({by})", _text(found) or "no map",
            container.path(name), verdict_of(holds, by),
        )  # fmt: skip
    own = container.link("ns/user") != os.readlink(f"{container.proc_root}/self/ns/user")
    yield Result(
        "host user", "users", f"root inside is the user ({by})",
        "a user namespace of its own" if own else "the engine's user namespace",
        container.path("ns/user"), verdict_of(own, by),
    )  # fmt: skip


def parse(text: str) -> Map:
    """Rows of (inside, outside, length)."""
    rows = [line.split() for line in text.splitlines()]
    return [(int(inside), int(outside), int(length)) for inside, outside, length in rows]


def _map(wanted: Sequence[IDMapping]) -> Map:
    return [(row.container_id, row.host_id, row.size) for row in wanted]


def _text(rows: Map) -> str:
    return ", ".join(f"{inside}->{outside} x {length}" for inside, outside, length in rows)
