"""What is kept for further builds, for ``system df`` and ``builder prune``.

A step's layer that an image has as well takes no room of its own: it is shared. The directories of
``RUN --mount=type=cache`` are listed with the steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.build_threads import in_thread
from jaula.engine.model.filters import check_names, parse_time
from jaula.logs import timestamp

if TYPE_CHECKING:
    from jaula.engine.builder.service import Builds
    from jaula.spec.build import PruneOptions
    from jaula.state.records import BuildStep

Document = dict[str, Any]
_FILTERS = frozenset(
    ["until", "id", "parent", "type", "description", "inuse", "shared", "private", "unused-for"]
)
_STEP, _MOUNT = "regular", "exec.cachemount"


def listed(builds: Builds) -> list[Document]:
    """Docker's documents, the longest unused first."""
    shared = _of_images(builds)
    counted: set[str] = set()
    found = []
    for key, step in sorted(builds.cache.all(), key=lambda pair: (pair[1].used_at, pair[0])):
        found.append(_step(key, step, shared, again=step.layer in counted))
        counted.add(step.layer)
    for name, id, size, changed, used in builds.mount_caches.list():
        at = timestamp.format_time(int(changed * 1e9))
        found.append(
            {
                "ID": name,
                "Type": _MOUNT,
                "Description": f"mount {id}",
                "InUse": used,
                "Shared": False,
                "Size": size,
                "CreatedAt": at,
                "LastUsedAt": at,
                "UsageCount": 1,
            }
        )
    return sorted(found, key=lambda document: (document["LastUsedAt"], document["ID"]))


def _of_images(builds: Builds) -> set[str]:
    return {layer for image in builds.parts.images.list() for layer in image.layers}


def _step(key: str, step: BuildStep, shared: set[str], *, again: bool) -> Document:
    """``again``: the layer was counted already, with a step that came to the same."""
    return {
        "ID": key,
        "Type": _STEP,
        "Description": step.instruction,
        "InUse": False,
        "Shared": step.layer in shared,
        "Size": 0 if again else step.size + step.blob_size,
        "CreatedAt": timestamp.format_time(step.made_at),
        "LastUsedAt": timestamp.format_time(step.used_at),
        "UsageCount": step.uses + 1,
    }


async def prune(builds: Builds, options: PruneOptions) -> Document:
    """Remove what fits, until no more than ``keep`` bytes are left; Docker's answer.

    :raises InvalidRequest: an unknown filter.
    """
    check_names(options.filters, _FILTERS)
    found = await in_thread(listed, builds)
    chosen = [document for document in found if _fits(document, options)]
    before = _held(builds)
    left = sum(document["Size"] for document in found if not document["Shared"])
    removed, freed = [], 0
    for document in chosen:
        if options.keep and left <= options.keep:
            break
        if document["Type"] == _MOUNT:
            gone = await in_thread(builds.mount_caches.remove, document["ID"])
            freed += document["Size"] if gone else 0
        else:
            gone = builds.cache.forget(document["ID"])
        if gone:
            removed.append(document["ID"])
            left -= 0 if document["Shared"] else document["Size"]
    stay = _held(builds).keys() | _of_images(builds)
    freed += sum(size for layer, size in before.items() if layer not in stay)
    await in_thread(builds.parts.images.collect)
    return {"CachesDeleted": removed or None, "SpaceReclaimed": freed}


def _held(builds: Builds) -> dict[str, int]:
    """What the layers of steps take, archives included, in bytes."""
    steps = (step for _, step in builds.cache.all() if step.layer)
    return {step.layer: step.size + step.blob_size for step in steps}


def _fits(document: Document, options: PruneOptions) -> bool:
    if document["InUse"] or (document["Shared"] and not options.all):
        return False
    return all(
        any(_matches(document, key, value) for value in values)
        for key, values in options.filters.items()
    )


def _matches(document: Document, key: str, value: str) -> bool:
    match key:
        case "until" | "unused-for":
            return bool(
                document["LastUsedAt"] < timestamp.format_time(int(parse_time(value) * 1e9))
            )
        case "id":
            return str(document["ID"]).startswith(value)
        case "type":
            return bool(document["Type"] == value)
        case "description":
            return value in document["Description"]
        case "shared" | "private":
            return document["Shared"] is (key == "shared")
    return False
