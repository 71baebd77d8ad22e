"""The use cases of diagnostics."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from jaula.features.verify.diagnostics.commands import Commands
from jaula.features.verify.diagnostics.observer import Observer

if TYPE_CHECKING:
    from jaula.engine.model.services import Services


class Diagnostics:
    """The observer, and the commands. Nothing of them exists before it is asked for."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @cached_property
    def observer(self) -> Observer:
        """The observer of this engine."""
        return Observer(str(self._services.config.socket), self._services.events)

    @cached_property
    def commands(self) -> Commands:
        """The commands that this engine runs for its clients."""
        config = self._services.config
        return Commands(str(config.socket), config.paths.run)

    async def close(self) -> None:
        """End the observer."""
        if "observer" in self.__dict__:
            await self.observer.close()
