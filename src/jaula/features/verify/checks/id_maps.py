"""User namespace id maps: the container's root must be an unprivileged user of the host.

Evidence: /proc/<pid>/uid_map, gid_map and the Uid and Gid lines of status, which show host ids to a
reader in the initial user namespace (user_namespaces(7)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, verdict_of
from jaula.spec.runtime_spec import IDMapping

Map = list[tuple[int, int, int]]


INFO = CheckInfo(
    id="users",
    layer="users",
    title="User mapping",
    reason=(
        "Root in the container that is an unprivileged user of the host has no privileges on "
        "what it reaches by a flaw in another layer."
    ),
    references=("I8", "I9", "CIS 2.9", "CIS 5.31", "user_namespaces(7)"),
    evidence="/proc/<pid>/uid_map, gid_map, status",
    advice="start it without --userns=host",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for both maps, and one for the init process's user on the host."""
    host = container.text("UsernsMode") == "host"
    if not host and container.rootless is not None:
        yield from _rootless(container, container.rootless)
        return
    by: str | None
    for name, mappings in (
        ("uid_map", container.linux.uid_mappings),
        ("gid_map", container.linux.gid_mappings),
    ):
        actual = parse(container.read(name))
        identity = any(outside == 0 for _, outside, _ in actual)
        if host:
            by = container.flag("--userns=host")
            requested, holds = f"the host's ids ({by})", identity
        else:
            requested = _text(_map(mappings)) if mappings else "host ids other than 0"
            holds, by = not identity and bool(actual), None
            if mappings:
                holds = holds and actual == _map(mappings)
        yield Result(
            name,
            "users",
            requested,
            _text(actual) or "no map",
            container.path(name),
            verdict_of(holds, by),
        )
    uids, gids = container.status("Uid").split(), container.status("Gid").split()
    effective = f"uid {uids[1]}, gid {gids[1]}"
    if host:
        yield Result("host user", "users", container.flag("--userns=host"), effective,
                     container.path("status"), Verdict.RELAXED)  # fmt: skip
        return
    yield Result(
        "host user", "users", "not root of the host", effective, container.path("status"),
        verdict_of("0" not in uids and "0" not in gids, None),
    )  # fmt: skip


def _rootless(container: AuditedContainer, by: str) -> Iterator[Result]:
    """Yield the rows of a rootless container: its root is the engine's user.

    They are read from the engine's user namespace.
    """
    for name, mappings in (
        ("uid_map", container.linux.uid_mappings),
        ("gid_map", container.linux.gid_mappings),
    ):
        actual = parse(container.read(name))
        holds = bool(actual) and actual == _map(mappings)
        yield Result(
            name, "users", f"{_text(_map(mappings))} ({by})", _text(actual) or "no map",
            container.path(name), verdict_of(holds, by),
        )  # fmt: skip
    own = container.link("ns/user") != os.readlink(f"{container.proc_root}/self/ns/user")
    yield Result(
        "host user", "users", f"root inside is the user ({by})",
        "a user namespace of its own" if own else "the engine's user namespace",
        container.path("ns/user"), verdict_of(own, by),
    )  # fmt: skip


def parse(text: str) -> Map:
    """Return rows of (inside, outside, length)."""
    rows = [line.split() for line in text.splitlines()]
    return [(int(inside), int(outside), int(length)) for inside, outside, length in rows]


def _map(mappings: Sequence[IDMapping]) -> Map:
    return [(row.container_id, row.host_id, row.size) for row in mappings]


def _text(rows: Map) -> str:
    return ", ".join(f"{inside}->{outside} x {length}" for inside, outside, length in rows)
