"""What a stage has come to after each of its steps, and the image that it becomes. Pure."""

from __future__ import annotations

import msgspec

from jaula.spec.image import (
    Descriptor,
    History,
    ImageConfig,
    ImageDocument,
    Platform,
    RootFS,
)


class Layer(msgspec.Struct, frozen=True):
    """A layer: its diff id, and the blob that holds its archive."""

    diff_id: str
    blob: Descriptor


class ImageState(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the making."""

    layers: tuple[Layer, ...] = ()
    config: ImageConfig = ImageConfig()
    history: tuple[History, ...] = ()
    platform: Platform = Platform()
    author: str = ""
    created: str = ""
    command_set: bool = False  # this stage has a CMD of its own
    base_layers: int = 0  # so many are the base image's
    base_history: int = 0

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers, base first."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def own_history(self) -> tuple[History, ...]:
        """The steps of the build."""
        return self.history[self.base_history :]

    def step(
        self,
        text: str,
        created: str,
        layer: Layer | None = None,
        config: ImageConfig | None = None,
        *,
        comment: str = "",
    ) -> ImageState:
        """After one more step; ``text`` and ``comment`` are what its history says."""
        told = History(
            created=created,
            created_by=text,
            author=self.author,
            comment=comment,
            empty_layer=layer is None,
        )
        return msgspec.structs.replace(
            self,
            layers=self.layers if layer is None else (*self.layers, layer),
            config=self.config if config is None else config,
            history=(*self.history, told),
            created=created,
        )


def document(state: ImageState, labels: dict[str, str], now: str) -> ImageDocument:
    """The configuration of the image that a stage is, with further ``labels``.

    ``now`` is when it was made where no step says so.
    """
    config = msgspec.structs.replace(state.config, labels=state.config.labels | labels)
    platform = state.platform
    return ImageDocument(
        architecture=platform.architecture,
        os=platform.os or "linux",
        variant=platform.variant,
        created=state.created or now,
        author=state.author,
        config=config,
        rootfs=RootFS(diff_ids=state.diff_ids),
        history=state.history,
    )
