"""Controls of a benchmark, the profile that has them, and the values that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec


class State(StrEnum):
    """State of a control for a subject, or of all its subjects together."""

    PASS = "pass"
    FAIL = "fail"
    EXCEPTED = "excepted"  # it fails, and an exception accepts that
    MANUAL = "manual"  # a person decides
    UNKNOWN = "unknown"  # the evidence cannot be read
    NOT_APPLICABLE = "not-applicable"  # the host or the engine has no such thing


class Scope(StrEnum):
    """A part of the report; the flags of ``jaula audit`` have these names."""

    HOST = "host"
    ENGINE = "engine"
    IMAGES = "images"
    CONTAINERS = "containers"


class Kind(StrEnum):
    """Kind of a subject."""

    HOST = "host"
    ENGINE = "engine"
    ENGINE_FILES = "engine files"
    IMAGE = "image"
    CONTAINER = "container"


class FileFix(msgspec.Struct, frozen=True, tag="file"):
    """A change of owner or mode of a path; a member that is None stays as it is."""

    path: str
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


class AuditRuleFix(msgspec.Struct, frozen=True, tag="audit-rule"):
    """A path to be recorded by the kernel's audit subsystem.

    ``volatile``: the path is below a directory that does not exist at boot.
    """

    path: str
    volatile: bool = False


Fix = FileFix | AuditRuleFix


class Judgement(msgspec.Struct, frozen=True):
    """Finding of a control for one subject; ``evidence`` has the fact and where it was read.

    ``remediation`` tells a person what to do. ``fixes`` are what ``--fix`` does. ``details`` has
    every item of evidence that is shortened; JSON and HTML have them.
    """

    state: State
    evidence: str
    remediation: str = ""
    fixes: tuple[Fix, ...] = ()
    details: tuple[str, ...] = ()


Judge = Callable[[Any], Judgement]


class Control(msgspec.Struct, frozen=True):
    """A control; ``judges`` has a pure function for each kind of subject.

    ``section`` is a key of the profile's sections.
    """

    id: str
    level: int
    scopes: tuple[Scope, ...]
    title: str
    judges: Mapping[Kind, Judge]
    section: str = ""


class Profile(msgspec.Struct, frozen=True):
    """A benchmark: its controls in the order of the report, and the titles of its sections.

    ``pods_only``: it judges the containers of pods and no other.
    """

    name: str
    title: str
    sections: Mapping[str, str]
    controls: tuple[Control, ...]
    pods_only: bool = False


def passes(evidence: str) -> Judgement:
    """Return a judgement that holds."""
    return Judgement(State.PASS, evidence)


def fails(evidence: str, remediation: str, *fixes: Fix) -> Judgement:
    """Return a judgement that fails."""
    return Judgement(State.FAIL, evidence, remediation, fixes)


def judged(holds: bool, evidence: str, remediation: str) -> Judgement:
    """Return a judgement that passes or fails; ``remediation`` is for the latter."""
    return passes(evidence) if holds else fails(evidence, remediation)


def manual(evidence: str, remediation: str) -> Judgement:
    """Return a judgement that a person makes from the evidence."""
    return Judgement(State.MANUAL, evidence, remediation)


def unknown(evidence: str) -> Judgement:
    """Return a judgement without evidence."""
    return Judgement(State.UNKNOWN, evidence)


def not_applicable(evidence: str) -> Judgement:
    """Return a judgement about something that does not exist."""
    return Judgement(State.NOT_APPLICABLE, evidence)
