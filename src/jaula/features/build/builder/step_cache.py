"""The build cache: keys of steps, the store of their results, the look-up, ``--cache-from``.

A key is the digest of everything that the result of a step depends on. No key contains a time, a
path of the host or the position of an instruction in its file. Everything that a program can see is
in it (files, variables, user, directory). What it cannot see is not: a changed label does not run a
RUN again.

Records are in the database, layers and blobs in their stores. :meth:`BuildCache.references`
protects these from garbage collection. A record whose layer was removed by hand counts as absent.

``--cache-from`` names images that the client trusts. The history of such an image holds the keys
that its layers were made under. A step of it is used if its key is the key that is looked up: it
was made of the same layers, files and command.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine.threads import in_thread
from jaula.sha256 import sha256
from jaula.spec.image_documents import LAYER_TAR, Descriptor, encode
from jaula.state.container_records import BuildStep

if TYPE_CHECKING:
    from jaula.features.build.builder.image_state import ImageState, Layer, SourceDateEpoch
    from jaula.images.dockerfile.ast import Instruction
    from jaula.images.store.image_store import ImageStore
    from jaula.state.database import Database

StepResult = tuple["Layer | None", str]
"""The layer of a step, and the date when it was made."""

_VERSION = "1"
"""Changes whenever the same input leads to another result, so that old steps do not match."""
_TABLE = "build_steps"
_MARK = "jaula.build "  # before the key in the history of an image
_KEY_DIGITS = 40  # of a key in the history
_MAX_INSTRUCTION = 200  # characters of an instruction in a record


# -- keys --------------------------------------------------------------------------------------


def _digest(kind: str, values: Sequence[Any]) -> str:
    data = msgspec.json.encode([_VERSION, kind, *values], order="deterministic")
    return sha256(data).hexdigest()


def layers_key(diff_ids: Sequence[str]) -> str:
    """Return one name for a stack of layers. Pure."""
    return "sha256:" + _digest("layers", diff_ids)


def run_key(
    state: ImageState,
    command: Sequence[str],
    *,
    flags: Sequence[str],
    environment: Sequence[str],
    mounted: Sequence[str],
    network: str,
    hosts: Sequence[str],
    epoch: int | None,
) -> str:
    """Return the key of a RUN; ``mounted`` holds the digests of its readable mounts. Pure.

    Some clients send the network ``default``, and others none for the same.
    """
    config = state.config
    network = "" if network == "default" else network
    values = (state.diff_ids, _platform(state), command, flags, environment)
    return _digest(
        "run", (*values, config.user, config.working_dir, mounted, network, sorted(hosts), epoch)
    )


def copy_key(
    state: ImageState, text: str, content: Sequence[str], *, link: bool, epoch: int | None
) -> str:
    """Return the key of a COPY or ADD; ``content`` holds the digests of the files. Pure.

    With ``link`` the layer does not depend on the layers below it.
    """
    below = () if link else state.diff_ids
    return _digest("copy", (below, state.config.working_dir, text, content, link, epoch))


def directory_key(state: ImageState, path: str, epoch: int | None) -> str:
    """Return the key of the directory that a WORKDIR creates. Pure."""
    return _digest("directory", (state.diff_ids, path, epoch))


def config_key(state: ImageState, text: str) -> str:
    """Return the key of an instruction that changes the configuration only. Pure."""
    config = sha256(encode(state.config)).hexdigest()  # a dict of many ports takes twice the time
    return _digest("change", (state.diff_ids, _platform(state), config, text))


def owner_key(key: str, owner: str) -> str:
    """Return a key for one client: no client gets a step that another one made. Pure."""
    return _digest("owned", (key, owner))


def _platform(state: ImageState) -> Mapping[str, str]:
    platform: Mapping[str, str] = msgspec.to_builtins(state.platform)
    return platform


# -- the store ---------------------------------------------------------------------------------


class BuildCache:
    """The cached steps of one engine."""

    def __init__(self, database: Database, images: ImageStore) -> None:
        self._database = database
        self._images = images
        self._steps: dict[str, BuildStep] = dict(database.all(_TABLE, BuildStep))
        self._lock = threading.Lock()  # garbage collection runs in threads
        images.hold(self.references)

    def references(self) -> frozenset[str]:
        """Return the diff ids and blob digests that steps need. Safe in any thread."""
        with self._lock:
            steps = tuple(self._steps.values())
        return frozenset(digest for step in steps for digest in (step.layer, step.blob) if digest)

    def find(self, key: str, keep: Callable[[tuple[Layer, ...]], None]) -> BuildStep | None:
        """Return a step whose layer exists, and count its use; None if absent.

        ``keep`` is called with the layer before it is looked up, to pin it.
        """
        step = self._steps.get(key)
        if step is None:
            return None
        if (layer := _layer_of(step)) is not None:
            keep((layer,))
        if step.layer and not (
            self._images.layers.is_intact(step.layer)
            and self._images.blobs.is_intact(step.blob, step.blob_size)
        ):
            self.remove(key)
            return None
        step = msgspec.structs.replace(step, used_at=time.time_ns(), uses=step.uses + 1)
        self._write(key, step)
        return step

    def put(self, key: str, step: BuildStep) -> None:
        """Store a step; the caller has pinned its layer until this returns."""
        now = time.time_ns()
        self._write(key, msgspec.structs.replace(step, made_at=now, used_at=now))

    def _write(self, key: str, step: BuildStep) -> None:
        with self._lock:
            self._steps[key] = step
        self._database.put(_TABLE, key, step)

    def remove(self, key: str) -> bool:
        """Remove a step, which may make its layer and blob garbage. Return whether it existed."""
        step = self._steps.get(key)
        if step is None:
            return False
        quick = [
            k
            for k, other in self._steps.items()
            if other.quick and (other.key, other.owner) == (step.key, step.owner)
        ]
        for name in (key, *quick):
            self._database.delete(_TABLE, name)
            with self._lock:
                self._steps.pop(name, None)
        return True

    def __len__(self) -> int:
        return len(self._steps)

    def all(self) -> list[tuple[str, BuildStep]]:
        """Return every step with its key, each once. Safe in any thread."""
        with self._lock:
            return [(key, step) for key, step in self._steps.items() if not step.quick]


def _layer_of(step: BuildStep) -> Layer | None:
    from jaula.features.build.builder.image_state import (
        Layer,  # loads much, and only builds need it
    )

    if not step.layer:
        return None
    return Layer(step.layer, Descriptor(LAYER_TAR, step.blob, step.blob_size))


# -- --cache-from ------------------------------------------------------------------------------


def key_comment(key: str) -> str:
    """Return the comment that holds a step's key in the history of its image. Pure."""
    return _MARK + key[:_KEY_DIGITS]


def find_in_image(image: ImageState, key: str) -> StepResult | None:
    """Return the step of this key from the history of an image; None if it has none. Pure."""
    layers = iter(image.layers)
    for step in image.history:
        layer = None if step.empty_layer else next(layers, None)
        if step.comment == key_comment(key) and (step.empty_layer or layer is not None):
            return layer, step.created
    return None


def find_change_in_image(image: ImageState, state: ImageState, text: str) -> StepResult | None:
    """Return the step of an image that changes the configuration as ``text`` does after ``state``.

    Only its date is used. The steps before it must be those of ``state``, as for the classic
    builder (moby ``image/cache``). None if the image has another step there. Pure.
    """
    place = len(state.history)
    if len(image.history) <= place or image.history[:place] != state.history:
        return None
    step = image.history[place]
    return (None, step.created) if step.empty_layer and step.created_by == text else None


# -- the look-up -------------------------------------------------------------------------------


class CacheLookup:
    """The look-up of one stage. ``cached`` says whether its last step came from the cache.

    ``from_images`` looks a key up in the images of ``--cache-from``, and with ``images_only``
    nothing else is looked up. ``keep`` pins layers until the build ends. ``layer_size`` returns the
    size of a layer in bytes. ``sync`` writes layers to the disk.
    """

    def __init__(
        self,
        cache: BuildCache,
        *,
        owner: str,
        clock: SourceDateEpoch,
        no_cache: bool,
        images_only: bool,
        from_images: Callable[[str], Awaitable[StepResult | None]],
        keep: Callable[[tuple[Layer, ...]], None],
        layer_size: Callable[[str], int],
        sync: Callable[[], None],
        made: dict[str, asyncio.Future[BuildStep]],
    ) -> None:
        self.cached = False
        self._made = made
        self._cache = cache
        self._owner = owner
        self._clock = clock
        self._no_cache = no_cache
        self._images_only = images_only
        self._from_images = from_images
        self._keep = keep
        self._layer_size = layer_size
        self._sync = sync

    async def get_or_make(
        self,
        key: str,
        instruction: Instruction,
        make: Callable[[], Awaitable[Layer | None]],
        quick: str = "",
        from_images: Callable[[], Awaitable[StepResult | None]] | None = None,
    ) -> StepResult:
        """Return the step of ``key``; if absent, call ``make`` and store its result.

        The result is also stored under the key ``quick``, if it is not empty. ``from_images``
        replaces the look-up of the key in images.
        """
        step = self.find(key)
        if step is None:
            look_up = from_images or partial(self._from_images, key)
            step = await self._make_once(key, instruction, make, look_up)
        if quick:
            self._cache.put(
                owner_key(quick, self._owner), msgspec.structs.replace(step, quick=True)
            )
        return self.use(step)

    async def _make_once(
        self,
        key: str,
        instruction: Instruction,
        make: Callable[[], Awaitable[Layer | None]],
        from_images: Callable[[], Awaitable[StepResult | None]],
    ) -> BuildStep:
        """Make a step. If another platform of the build makes or has made it, share its result."""
        if (shared := self._made.get(key)) is not None:
            step = await asyncio.shield(shared)
            self.cached = True
            return step
        future = self._made[key] = asyncio.get_running_loop().create_future()
        try:
            imported = None if self._no_cache else await from_images()
            self.cached = imported is not None
            layer, created = imported or (await make(), self._clock.now())
            if layer is not None and imported is None:
                await in_thread(self._sync)  # no record refers to a layer that power can take
            step = self._record(key, instruction, layer, created)
            self._cache.put(owner_key(key, self._owner), step)
        except BaseException as error:
            del self._made[key]
            if isinstance(error, Exception):
                future.set_exception(error)
                future.exception()  # retrieved, in case no other platform waits for it
            else:
                future.cancel()
            raise
        future.set_result(step)
        return step

    def find(self, key: str) -> BuildStep | None:
        """Return the stored step of ``key``; None if absent or not to be looked up."""
        step = None
        if not self._no_cache and not self._images_only:
            step = self._cache.find(owner_key(key, self._owner), self._keep)
        self.cached = step is not None
        return step

    def use(self, step: BuildStep) -> StepResult:
        """Return the result of a stored step. Its layer has been pinned since it was found."""
        return _layer_of(step), self._clock.date_of(step.created)

    def _record(
        self, key: str, instruction: Instruction, layer: Layer | None, created: str
    ) -> BuildStep:
        text = instruction.headline[:_MAX_INSTRUCTION]
        step = BuildStep(instruction=text, created=created, key=key, owner=self._owner)
        if layer is None:
            return step
        return msgspec.structs.replace(
            step,
            layer=layer.diff_id,
            blob=layer.blob.digest,
            blob_size=layer.blob.size,
            size=self._layer_size(layer.diff_id),
        )
