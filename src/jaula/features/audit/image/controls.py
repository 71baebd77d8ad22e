"""The controls of ``jaula image audit``.

Evidence: configuration, history and annotations of an image, the files of its layers, its
databases of packages, and the advisories that the user gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from jaula.features.audit.benchmark import images
from jaula.features.audit.benchmark.control import (
    Control,
    Judgement,
    Kind,
    Profile,
    Scope,
    State,
    judged,
    manual,
    passes,
    unknown,
)
from jaula.features.audit.benchmark.images import ImageState
from jaula.features.audit.image import secrets
from jaula.features.audit.image.advisories import Matches
from jaula.features.audit.image.files import ImageFiles
from jaula.features.trust.sbom.package import Inventory
from jaula.features.verify.model.result import quantity

BASE_NAME, BASE_DIGEST = (
    "org.opencontainers.image.base.name",
    "org.opencontainers.image.base.digest",
)
MAX_SIZE = 1 << 30  # bytes
MAX_CACHED = 1 << 20  # bytes
SHOWN = 5  # items of a list in evidence
MAX_DETAILS = 2000
SECTIONS = {
    "configuration": "configuration",
    "files": "files",
    "secrets": "secrets",
    "packages": "packages",
}


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image; a part that cannot be read is None, and ``error`` or ``package_error`` says why.

    ``annotations`` are those of its manifest and its labels. ``matches`` is None without
    advisories.
    """

    state: ImageState
    annotations: Mapping[str, str] = {}
    size: int = 0  # bytes
    layers: int = 0
    files: ImageFiles | None = None
    error: str = ""
    inventory: Inventory | None = None
    package_error: str = ""
    matches: Matches | None = None


def annotations_of(inspect: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of an image, and the annotations of its manifest. Pure."""
    labels = (inspect.get("Config") or {}).get("Labels") or {}
    own = manifest.get("annotations")
    merged = {**labels, **(own if isinstance(own, dict) else {})}
    return {str(name): str(value) for name, value in merged.items()}


def _listed(items: Sequence[str], none: str, noun: str, remediation: str) -> Judgement:
    """Return a judgement that holds if a list is empty; every item is a detail."""
    if not items:
        return passes(none)
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return Judgement(
        State.FAIL,
        f"{quantity(len(items), noun)}: {', '.join(items[:SHOWN])}{more}",
        remediation,
        details=tuple(items[:MAX_DETAILS]) if len(items) > SHOWN else (),
    )


def _of_files(
    none: str, noun: str, remediation: str, items: Callable[[ImageFiles], Sequence[str]]
) -> Callable[[Image], Judgement]:
    def judge(image: Image) -> Judgement:
        if image.files is None:
            return unknown(f"its layers cannot be read: {image.error}")
        return _listed(items(image.files), none, noun, remediation)

    return judge


def _pinned_base(image: Image) -> Judgement:
    name = image.annotations.get(BASE_NAME, "")
    digest = image.annotations.get(BASE_DIGEST, "")
    if digest or "@sha256:" in name:
        return passes(f"base {name or 'without a name'} with digest {digest or 'in its name'}")
    if name:
        return judged(False, f"base {name} has no digest", "FROM NAME@sha256:DIGEST")
    return manual("the image does not say what its base is",
                  "read its Dockerfile: FROM NAME@sha256:DIGEST; build it with the annotations "
                  f"{BASE_NAME} and {BASE_DIGEST}")  # fmt: skip


def _size(image: Image) -> Judgement:
    megabytes = f"{image.size / 1e6:.1f} MB in {quantity(image.layers, 'layer')}"
    if image.files is not None:
        megabytes += f", {quantity(image.files.files, 'file')}"
    return judged(image.size <= MAX_SIZE, megabytes,
                  "use a smaller base, and build in a stage of its own")  # fmt: skip


def _caches(image: Image) -> Judgement:
    if image.files is None:
        return unknown(f"its layers cannot be read: {image.error}")
    cached = f"{image.files.cached / 1e6:.1f} MB of caches of package managers"
    holds = image.files.cached <= MAX_CACHED
    return Judgement(
        State.PASS if holds else State.FAIL,
        cached + ("" if holds else f": {', '.join(image.files.caches[:3])}"),
        "" if holds else "remove them in the RUN that fills them, or use RUN --mount=type=cache",
    )


def _environment(image: Image) -> Judgement:
    found = secrets.of_variables(image.state.environment)
    return _listed(
        found,
        "no variable has the name or form of a secret",
        "variable",
        "remove it; give secrets when a container starts, and change this one",
    )


def _history(image: Image) -> Judgement:
    found = secrets.of_steps(image.state.steps)
    return _listed(found, "no step has the name or form of a secret", "secret",
                   "use RUN --mount=type=secret, and change this one")  # fmt: skip


def _secret_files(files: ImageFiles) -> list[str]:
    return [
        f"/{path} ({kind}{', removed by a higher layer' if hidden else ''})"
        for path, kind, hidden in files.secrets
    ]


def _vulnerabilities(image: Image) -> Judgement:
    if image.inventory is None:
        return unknown(f"its packages cannot be read: {image.package_error}")
    count = quantity(len(image.inventory.packages), "package")
    if image.matches is None:
        return manual(f"{count}; no advisories are given", "give a file with --advisories")
    found = image.matches.vulnerabilities
    rest = ""
    if image.matches.incomparable:
        rest = f"; {quantity(image.matches.incomparable, 'advisory entrie')} not comparable"
    if not found:
        return passes(f"none of {count} is in the advisories{rest}")
    fixed = sum(bool(each.fixed) for each in found)
    ids, packages = {each.id for each in found}, {each.package for each in found}
    texts = list(map(str, found))
    shown = "; ".join(texts[:SHOWN])
    return Judgement(
        State.FAIL,
        f"{len(ids)} vulnerabilities of {len(packages)} of {count}, {fixed} entries have a fixed "
        f"version{rest}: {shown}",
        "update these packages, and build it anew" if fixed else "watch for a fixed version",
        details=tuple(texts[:MAX_DETAILS]),
    )


def _of_state(judge: Callable[[ImageState], Judgement]) -> Callable[[Image], Judgement]:
    return lambda image: judge(image.state)


def _controls() -> Iterable[Control]:
    rows: tuple[tuple[str, int, str, str, Callable[[Image], Judgement]], ...] = (
        ("user", 1, "configuration", "Programs do not run as root", _of_state(images.other_user)),
        ("health-check", 1, "configuration", "The image has a health check",
         _of_state(images.health_checked)),
        ("pinned-base", 2, "configuration", "The base is pinned by its digest", _pinned_base),
        ("copy-not-add", 1, "configuration", "The image is built with COPY, not ADD",
         _of_state(images.without_add)),
        ("verified-packages", 2, "configuration", "Packages are verified",
         _of_state(images.verified_packages)),
        ("size", 2, "configuration", "The image is small", _size),
        ("set-user-id", 1, "files", "No program has set-user-ID or set-group-ID",
         _of_files("no program has the bits", "program", "RUN chmod a-s FILE",
                   lambda files: [f"/{path}" for path in files.set_id])),
        ("file-capabilities", 1, "files", "No program has capabilities",
         _of_files("no program has capabilities", "program", "RUN setcap -r FILE",
                   lambda files: [f"/{path}" for path in files.capabilities])),
        ("world-writable", 1, "files", "Not every user may write files",
         _of_files("every path is closed to other users", "path", "RUN chmod o-w PATH",
                   lambda files: [f"/{path}" for path in files.writable])),
        ("devices", 2, "files", "The image has no device nodes",
         _of_files("no device node", "node", "remove them; the engine creates /dev",
                   lambda files: [f"/{path}" for path in files.devices])),
        ("package-caches", 2, "files", "Caches of package managers are removed", _caches),
        ("environment-secrets", 1, "secrets", "Variables have no secrets", _environment),
        ("history-secrets", 1, "secrets", "The history has no secrets", _history),
        ("file-secrets", 1, "secrets", "No layer has a file with a secret",
         _of_files("no file has the form of a key or token", "file",
                   "build it anew without the file, and change this secret", _secret_files)),
        ("updates", 1, "packages", "No step only updates the list of packages",
         _of_state(images.no_lone_update)),
        ("vulnerabilities", 1, "packages", "No package has a known vulnerability",
         _vulnerabilities),
    )  # fmt: skip
    for id, level, section, title, judge in rows:
        yield Control(id, level, (Scope.IMAGES,), title, {Kind.IMAGE: judge}, section)


PROFILE = Profile("image", "jaula image audit", SECTIONS, tuple(_controls()))
