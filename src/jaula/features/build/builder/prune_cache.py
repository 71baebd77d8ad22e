"""The entries of the build cache, for ``system df`` and ``builder prune``.

An entry is a cached step, a directory of ``RUN --mount=type=cache``, or a client's directory. The
layer of a step that an image has too is shared: it takes no space of its own.

An entry belongs to the client whose build made it. No other client uses it, and only its owner and
administrators remove it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.model.label_filters import check_names, parse_time
from jaula.engine.threads import in_thread
from jaula.features.build.builder.step_cache import owner_key
from jaula.logs import timestamp

if TYPE_CHECKING:
    from jaula.features.build.build_options import PruneOptions
    from jaula.features.build.builder.local_directories import Identity, LocalDirectoryStore
    from jaula.features.build.builder.mounts.cache_dirs import CacheDirs
    from jaula.features.build.builder.step_cache import BuildCache
    from jaula.images.store.image_names import NameRights
    from jaula.images.store.image_store import ImageStore
    from jaula.state.container_records import BuildStep

Document = dict[str, Any]
_FILTERS = frozenset(
    ["until", "id", "parent", "type", "description", "inuse", "shared", "private", "unused-for"]
)
_NO_DIRECTORY = (0, 0)
_STEP, _CACHE_MOUNT, _LOCAL = "regular", "exec.cachemount", "source.local"  # Docker's types


def usage(
    cache: BuildCache,
    cache_dirs: CacheDirs,
    local_directories: LocalDirectoryStore,
    images: ImageStore,
    rights: NameRights | None = None,
) -> list[Document]:
    """Return Docker's documents of the entries, least recently used first. Safe in any thread.

    With ``rights`` they are those that this caller may remove.
    """
    entries = _entries(cache, cache_dirs, local_directories, images, rights)
    return [document for document, _ in entries]


def _entries(
    cache: BuildCache,
    cache_dirs: CacheDirs,
    local_directories: LocalDirectoryStore,
    images: ImageStore,
    rights: NameRights | None,
) -> list[tuple[Document, Identity]]:
    """Return the documents of :func:`usage`, and the identities of those that are directories."""
    image_layers = images.named_layers()
    counted: set[str] = set()
    entries: list[tuple[Document, Identity]] = []
    for key, step in sorted(cache.all(), key=lambda pair: (pair[1].used_at, pair[0])):
        if rights is not None and not _is_removable(key, step, rights):
            continue
        document = _step_document(key, step, image_layers, counted=step.layer in counted)
        entries.append((document, _NO_DIRECTORY))
        counted.add(step.layer)
    for entry in cache_dirs.list():
        if rights is not None and not rights.may_change(entry.owner):
            continue
        changed = timestamp.format_time(int(entry.modified * 1e9))
        document = _directory_document(
            entry.name, f"mount {entry.id}", _CACHE_MOUNT, entry.size, changed
        )
        entries.append((document | {"InUse": entry.in_use}, entry.identity))
    for local in local_directories.list():
        if rights is not None and not rights.may_change(local.owner):
            continue
        used = timestamp.format_time(int(local.used * 1e9))
        document = _directory_document(
            local.name, f"local source for {local.id}", _LOCAL, local.size, used
        )
        entries.append((document, local.identity))
    return sorted(entries, key=lambda entry: (entry[0]["LastUsedAt"], entry[0]["ID"]))


def _is_removable(key: str, step: BuildStep, rights: NameRights) -> bool:
    """Return whether a caller may remove a step. The key of an older one proves its owner."""
    if step.owner or not rights.owner:
        return rights.may_change(step.owner)
    return key == owner_key(step.key, rights.owner) or rights.may_change("")


def _directory_document(id: str, description: str, kind: str, size: int, used: str) -> Document:
    return {
        "ID": id,
        "Type": kind,
        "Description": description,
        "InUse": False,
        "Shared": False,
        "Size": size,
        "CreatedAt": used,
        "LastUsedAt": used,
        "UsageCount": 1,
    }


def _step_document(
    key: str, step: BuildStep, image_layers: frozenset[str], *, counted: bool
) -> Document:
    """Return the document of a step; ``counted`` means that another step has the same layer."""
    return {
        "ID": key,
        "Type": _STEP,
        "Description": step.instruction,
        "InUse": False,
        "Shared": step.layer in image_layers,
        "Size": 0 if counted else step.size + step.blob_size,
        "CreatedAt": timestamp.format_time(step.made_at),
        "LastUsedAt": timestamp.format_time(step.used_at),
        "UsageCount": step.uses + 1,
    }


async def prune(
    cache: BuildCache,
    cache_dirs: CacheDirs,
    local_directories: LocalDirectoryStore,
    images: ImageStore,
    options: PruneOptions,
    free: int,
    rights: NameRights | None = None,
) -> Document:
    """Remove matching entries until no more than requested is left; return Docker's answer.

    ``free`` are the free bytes of the disk. Entries of other clients are skipped with ``rights``.

    :raises InvalidRequest: when a filter is not known.
    """
    check_names(options.filters, _FILTERS)
    entries = await in_thread(_entries, cache, cache_dirs, local_directories, images, rights)
    selected = [entry for entry in entries if _is_selected(entry[0], options)]
    before = _layer_sizes(cache)
    left = sum(document["Size"] for document, _ in entries if not document["Shared"])
    keep = bytes_to_keep(options, left, free)
    removed, freed = [], 0
    for document, identity in selected:
        if keep and left <= keep:
            break
        if document["Type"] == _CACHE_MOUNT:
            gone = await in_thread(cache_dirs.remove, document["ID"], identity)
            freed += document["Size"] if gone else 0
        elif document["Type"] == _LOCAL:
            gone = await in_thread(local_directories.remove, document["ID"], identity)
            freed += document["Size"] if gone else 0
        else:
            gone = cache.remove(document["ID"])
        if gone:
            removed.append(document["ID"])
            left -= 0 if document["Shared"] else document["Size"]
    kept = _layer_sizes(cache).keys() | images.named_layers()
    freed += sum(size for layer, size in before.items() if layer not in kept)
    await in_thread(images.collect)
    return {"CachesDeleted": removed or None, "SpaceReclaimed": freed}


def bytes_to_keep(options: PruneOptions, used: int, free: int) -> int:
    """Return how many bytes of the cache stay, 0 for no limit. Pure.

    ``used`` are the bytes of the cache, ``free`` those of the disk. Source: moby/buildkit
    ``cache/manager.go`` (``calculateKeepBytes``).
    """
    if not (options.reserved or options.maximum or options.free):
        return 0
    keep = options.maximum or (used if options.free else 0)
    if options.free > free:
        keep = min(keep, used - (options.free - free))
    return max(keep, options.reserved, 1)


def _layer_sizes(cache: BuildCache) -> dict[str, int]:
    """Return the bytes of each step's layer and its archive."""
    steps = (step for _, step in cache.all() if step.layer)
    return {step.layer: step.size + step.blob_size for step in steps}


def _is_selected(document: Document, options: PruneOptions) -> bool:
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
