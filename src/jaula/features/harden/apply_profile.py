"""``jaula harden apply``: create a container again under a profile, or keep the old one.

The new container is created first, so a request that the engine refuses changes nothing. The old
one is stopped and renamed. If the new one does not start, exits or becomes unhealthy, it is removed
and the old one has its name back and runs. The old container is removed only after success.

Volumes are those of the old container. What is in the old container's writable layer stays there:
if files were changed in it, the old container is kept, stopped.

:mod:`jaula.features.harden.apply_recovery` ends what was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaula.errors import Conflict, JaulaError
from jaula.features.harden import hardened_request, narrow
from jaula.features.harden.apply_recovery import REPLACES, Api, Replacement, finish, undo
from jaula.spec.confinement_profile import Profile

POLL = 0.25  # seconds between two reads of the state
SETTLE = 5.0  # seconds that a container without a health check must run


class Applied(NamedTuple):
    """The new container. ``kept`` is the name of the old one if it has changed files, else ''."""

    id: str
    warnings: tuple[str, ...]
    kept: str


class NotApplied(JaulaError):
    """The new container failed; the old one has its name back."""


def apply(
    api: Api,
    ref: str,
    text: str,
    profile: Profile,
    *,
    timeout: float,
    recorded: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Applied:
    """Create a container again under a profile; ``timeout`` is for its health check, in seconds.

    ``text`` is the profile as it is sent. ``recorded``: a record made it, and no person has read
    it. ``report`` gets one line for each step.

    :raises Conflict: when this container cannot be created again, or the profile would give it
        something that it does not have.
    :raises NotApplied: when the new container failed and the old one is back.
    """
    old = api.document("GET", f"/containers/{ref}/json")
    hardened_request.check(old)
    name, running = hardened_request.name_of(old), bool(old["State"]["Running"])
    if old["State"].get("Paused"):
        raise Conflict(f"container {name} is paused", hint=f"jaula unpause {name}")
    image = api.document("GET", f"/images/{old['Image']}/json")
    had = narrow.accesses(old, image, without_former=not recorded)
    narrow.refuse(name, profile, narrow.given(profile, had))
    body = hardened_request.of_container(old, image, text, profile)
    replacement = Replacement(name, str(old["Id"]), running)
    host = body["HostConfig"]
    host["Annotations"] = {**(host.get("Annotations") or {}), REPLACES: replacement.old}
    query = (("name", replacement.new_name),)
    created = api.document("POST", "/containers/create", query, body)
    new = str(created["Id"])
    warnings = tuple(created.get("Warnings") or ())
    report(f"created {new[:12]} under the profile {profile.name}")
    try:
        if running:
            report(f"stopping {name}")
            api.request("POST", f"/containers/{old['Id']}/stop")
        query = (("name", replacement.old_name),)
        api.request("POST", f"/containers/{old['Id']}/rename", query)
        api.request("POST", f"/containers/{new}/rename", (("name", name),))
        made = narrow.access(api.document("GET", f"/containers/{new}/json"))
        narrow.refuse(name, profile, narrow.beyond(made, had))  # before its first instruction
        if running:
            api.request("POST", f"/containers/{new}/start")
            report(f"started {name}; waiting until it is {_goal(old)}")
            await_healthy(api, new, timeout)
    except BaseException as error:
        reason, hint = _roll_back(api, replacement, new), ""
        if not reason:
            report(f"{name} is the old container again")
            hint = f"jaula harden check FILE {name} says what the profile lacks"
        if isinstance(error, JaulaError):
            raise NotApplied(
                f"the profile was not applied to {name}: {error.message}{reason}",
                hint=hint or f"jaula harden apply --recover {name} restores it",
            ) from error
        raise
    return Applied(new, warnings, finish(api, replacement, old))


def _roll_back(api: Api, replacement: Replacement, new: str) -> str:
    """Restore the old container. Return what failed as the rest of a sentence, '' if nothing."""
    try:
        failed = undo(api, replacement, new)
    except JaulaError as error:  # the error to report is another one
        failed = [error.message]
    if not failed:
        return ""
    return f"; the old container {replacement.old[:12]} is not restored: {'; '.join(failed)}"


def _goal(inspect: Mapping[str, Any]) -> str:
    return "healthy" if _has_health_check(inspect) else f"running for {SETTLE:g} seconds"


def _has_health_check(inspect: Mapping[str, Any]) -> bool:
    test = (inspect["Config"].get("Healthcheck") or {}).get("Test") or ["NONE"]
    return bool(test[0] != "NONE")


def await_healthy(api: Api, identity: str, timeout: float) -> None:
    """Wait until a container is healthy, or has run for ``SETTLE`` without a health check.

    :raises Conflict: when it exits, restarts, becomes unhealthy, or the time is over.
    """
    start = time.monotonic()
    while True:
        document = api.document("GET", f"/containers/{identity}/json")
        state = document["State"]
        if document.get("RestartCount") or not state["Running"] or state.get("Restarting"):
            code = state.get("ExitCode")
            raise Conflict(f"the new container has exited with status {code}{_last(api, identity)}")
        health = (state.get("Health") or {}).get("Status")
        elapsed = time.monotonic() - start
        if health == "healthy" or (not _has_health_check(document) and elapsed >= SETTLE):
            return
        if health == "unhealthy":
            output = str((state["Health"].get("Log") or [{}])[-1].get("Output") or "").strip()
            raise Conflict(f"the new container is unhealthy: {output[-300:] or 'no output'}")
        if elapsed > max(timeout, SETTLE):
            raise Conflict(f"the new container is not healthy after {timeout:g} seconds")
        time.sleep(POLL)


def _last(api: Api, identity: str) -> str:
    """Return the last lines of the log, '' if it cannot be read."""
    query = (("stdout", "1"), ("stderr", "1"), ("tail", "5"))
    try:
        data = api.request("GET", f"/containers/{identity}/logs", query)
    except JaulaError:  # the error to report is another one
        return ""
    return f": {tail}" if (tail := unframed(data).strip()[-500:]) else ""


def unframed(data: bytes) -> str:
    """Return the text of a log stream; one of a terminal has no frames."""
    if data[:1] not in (b"\0", b"\1", b"\2"):
        return data.decode(errors="replace")
    text = b""
    while len(data) >= 8:
        length = int.from_bytes(data[4:8], "big")
        text += data[8 : 8 + length]
        data = data[8 + length :]
    return text.decode(errors="replace")
