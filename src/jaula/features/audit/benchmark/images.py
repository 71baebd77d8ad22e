"""Section 4: images, and the policy on images.

Evidence: the configuration and the history of an image, by the API; the files of its layers for
set-user-ID programs; the image policy in its file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from jaula.features.audit.benchmark.container_state import ContainerState
from jaula.features.audit.benchmark.control import (
    Control,
    Judge,
    Judgement,
    Kind,
    Scope,
    fails,
    judged,
    manual,
    passes,
    unknown,
)
from jaula.features.audit.benchmark.engine import EngineState
from jaula.features.audit.image import secrets
from jaula.features.verify.checks.set_user_id import privileged_files

ROOT_USERS = ("", "0", "root")
OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
MAX_STEPS = 2000  # of a history
MAX_STEP = 1 << 16  # characters of a step that are searched

_UPDATE = re.compile(
    r"\b(apt-get|apt|aptitude|apk|yum|dnf|microdnf|zypper)\s+(?:-\S+\s+)*"
    r"(?:update|check-update|refresh|makecache)\b"
)
_INSTALL = re.compile(
    r"\b(?:apt-get|apt|aptitude|apk|yum|dnf|microdnf|zypper)\s+(?:-\S+\s+)*"
    r"(?:install|add|upgrade|dist-upgrade|full-upgrade|in)\b"
)
_UNVERIFIED = re.compile(
    r"--allow-unauthenticated|--allow-untrusted|--force-yes|--nogpgcheck|--no-gpg-checks"
    r"|trusted=yes|\b(?:curl|wget)\b[^|;&]*\|\s*(?:sudo\s+)?(?:ba|da|a|z)?sh\b"
)


class ImageState(msgspec.Struct, frozen=True, kw_only=True):
    """An image; ``steps`` are the commands of its history, newest first.

    ``set_user_id`` is None if its layers cannot be read.
    """

    name: str
    id: str = ""
    user: str = ""
    health_check: bool = False
    environment: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    created: str = ""
    set_user_id: tuple[str, ...] | None = ()


class LayerScan:
    """Set-user-ID files of layers, each of which is read once."""

    def __init__(self, layers: str) -> None:
        """``layers`` has ``<diff id in hex>/fs`` for each unpacked layer."""
        self._layers = layers
        self._files: dict[str, tuple[str, ...]] = {}

    def trees(self, diff_ids: Iterable[str]) -> list[str]:
        """Return the directories of layers, in the same order."""
        return [f"{self._layers}/{id.removeprefix('sha256:')}/fs" for id in diff_ids]

    def read(self, trees: Sequence[str]) -> tuple[str, ...] | None:
        """Return the files that an image has; None if a layer is not unpacked there.

        ``trees`` are the directories of its layers, lowest first.

        :raises OSError: when a layer cannot be read.
        :raises ValueError: when a layer has more than 200,000 files.
        """
        if not trees or not all(os.path.isdir(tree) for tree in trees):
            return None
        result: set[str] = set()
        for number, tree in enumerate(trees):
            if tree not in self._files:
                self._files[tree] = tuple(privileged_files(tree))
            higher = trees[number + 1 :]
            result |= {
                path for path in self._files[tree] if not any(hides(top, path) for top in higher)
            }
        return tuple(sorted(result))


def hides(layer: str, path: str) -> bool:
    """Return whether a layer replaces or removes a path of a lower one.

    :raises OSError: when the layer cannot be read.
    """
    current = layer
    for part in path.strip("/").split("/"):
        try:
            attributes = os.listxattr(current, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if set(OPAQUE) & set(attributes):
            return True
        current = f"{current}/{part}"
        try:
            status = os.lstat(current)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(status.st_mode):
            return True
    return False


def read(
    inspect: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    scan: LayerScan,
    trees: Sequence[str] | None = None,
) -> ImageState:
    """Return the state of an image from its two documents and its layers.

    ``trees`` are the directories of its layers, if they are not those of this engine.
    """
    config = inspect.get("Config") or {}
    tags = inspect.get("RepoTags") or ()
    try:
        if trees is None:
            trees = scan.trees(map(str, (inspect.get("RootFS") or {}).get("Layers") or ()))
        files = scan.read(trees)
    except (OSError, ValueError):
        files = None
    check = (config.get("Healthcheck") or {}).get("Test") or ()
    return ImageState(
        name=str(tags[0]) if tags else str(inspect.get("Id") or "")[:19],
        id=str(inspect.get("Id") or ""),
        user=str(config.get("User") or ""),
        health_check=bool(check) and list(check) != ["NONE"],
        environment=tuple(map(str, config.get("Env") or ())),
        steps=tuple(str(step.get("CreatedBy") or "")[:MAX_STEP] for step in history[:MAX_STEPS]),
        created=str(inspect.get("Created") or ""),
        set_user_id=files,
    )


# -- judges of an image -----------------------------------------------------------------------


def other_user(state: ImageState) -> Judgement:
    """Judge the user of an image (4.1)."""
    root = state.user.partition(":")[0] in ROOT_USERS
    return judged(not root, f"USER {state.user or 'is not set'}",
                  "add USER with another user than root to its Dockerfile")  # fmt: skip


def _container_user(state: ContainerState) -> Judgement:
    return judged(state.init.uid != 0, f"process {state.init.pid} has uid {state.init.uid} inside",
                  "start it with --user")  # fmt: skip


def _packages(state: ImageState) -> Judgement:
    return manual(f"{len(state.steps)} steps", "list its packages: jaula image sbom")


def _patches(state: ImageState) -> Judgement:
    return manual(f"created {state.created or 'at an unknown time'}",
                  "scan its packages, and build it anew")  # fmt: skip


def health_checked(state: ImageState) -> Judgement:
    """Judge the health check (4.6)."""
    return judged(state.health_check, f"{'a' if state.health_check else 'no'} HEALTHCHECK",
                  "add HEALTHCHECK to its Dockerfile")  # fmt: skip


def no_lone_update(state: ImageState) -> Judgement:
    """Judge steps that only update (4.7)."""
    alone = [step for step in state.steps if _UPDATE.search(step) and not _INSTALL.search(step)]
    return judged(not alone, f"steps that only update: {excerpt(alone)}",
                  "update and install in one RUN")  # fmt: skip


def _set_user_id(state: ImageState) -> Judgement:
    files = state.set_user_id
    if files is None:
        return unknown("its layers cannot be read")
    more = f" and {len(files) - 5} more" if len(files) > 5 else ""
    return judged(not files, f"set-user-ID programs: {', '.join(files[:5]) or 'none'}{more}",
                  "remove the bits: RUN chmod a-s FILE")  # fmt: skip


def without_add(state: ImageState) -> Judgement:
    """Judge steps with ADD (4.9)."""
    # The oldest step is the root file system of the base image.
    added = [step for step in state.steps[:-1] if re.match(r"(?:/bin/sh -c #\(nop\) )?ADD ", step)]
    return judged(not added, f"steps with ADD: {excerpt(added)}", "use COPY")


def _secrets(state: ImageState) -> Judgement:
    names = [*secrets.of_variables(state.environment), *secrets.of_steps(state.steps)]
    if names:
        return fails(f"secrets by their names or form: {', '.join(dict.fromkeys(names))}",
                     "use RUN --mount=type=secret, and change these secrets")  # fmt: skip
    return manual("no variable or step has the name or form of a secret",
                  "read its files: jaula image audit")  # fmt: skip


def verified_packages(state: ImageState) -> Judgement:
    """Judge steps without verification (4.11)."""
    unverified = [step for step in state.steps if _UNVERIFIED.search(step)]
    if unverified:
        return fails(f"steps without verification: {excerpt(unverified)}",
                     "verify packages by their signatures or digests")  # fmt: skip
    return manual("no step disables the verification of packages", "read its Dockerfile")


def excerpt(steps: Sequence[str]) -> str:
    """Return the first steps, shortened, or ``none``. Pure."""
    short = [" ".join(step.split())[:80] for step in steps[:3]]
    return "; ".join(short) + (f" and {len(steps) - 3} more" if len(steps) > 3 else "") or "none"


# -- judges of the policy ---------------------------------------------------------------------


def _policy(strict: str, otherwise: Callable[[str, str], Judgement]) -> Judge:
    def judge(state: EngineState) -> Judgement:
        if not state.image_policy:
            return unknown(f"the image policy {state.image_policy_path} cannot be read")
        evidence = f"the general rule of {state.image_policy_path} is {state.image_policy}"
        remediation = f"{strict}: set the rule * of [images] in the policy (docs/trust.md)"
        return (
            passes(evidence) if state.image_policy != "accept" else otherwise(evidence, remediation)
        )

    return judge


def _image_control(id: str, level: int, title: str, judge: Judge) -> Control:
    return Control(id, level, (Scope.IMAGES,), title, {Kind.IMAGE: judge})


def _policy_control(id: str, title: str, judge: Judge, level: int = 2) -> Control:
    return Control(id, level, (Scope.IMAGES,), title, {Kind.ENGINE: judge})


CONTROLS: tuple[Control, ...] = (
    Control("4.1", 1, (Scope.IMAGES, Scope.CONTAINERS), "Programs do not run as root",
            {Kind.IMAGE: other_user, Kind.CONTAINER: _container_user}),
    _policy_control("4.2", "Only trusted base images are used",
                    _policy("reject images of other sources", manual), level=1),
    _image_control("4.3", 1, "The image has no unneeded packages", _packages),
    _image_control("4.4", 1, "The image is scanned and has all patches", _patches),
    _policy_control("4.5", "Images without a signature are refused",
                    _policy("require signatures", fails)),
    _image_control("4.6", 1, "The image has a health check", health_checked),
    _image_control("4.7", 1, "No step only updates the list of packages", no_lone_update),
    _image_control("4.8", 2, "The image has no set-user-ID programs", _set_user_id),
    _image_control("4.9", 1, "The image is built with COPY, not ADD", without_add),
    _image_control("4.10", 1, "The image has no secrets", _secrets),
    _image_control("4.11", 2, "Packages are verified", verified_packages),
    _policy_control("4.12", "Signatures of artifacts are verified",
                    _policy("require signatures", manual)),
)  # fmt: skip


def count_unused(images: Iterable[str], used: Iterable[str]) -> int:
    """Return how many images no container uses. Pure."""
    return len(set(images) - set(used))
