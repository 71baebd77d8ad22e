"""The engine that a link of the host belongs to: a mark in the link's alias.

A link outlives the process that made it, and anybody may give it a name that another engine uses.
So an engine writes its id into the alias of each bridge and parent interface that it makes. It
changes and deletes no link with the mark of another engine. The mark goes with the link.

A link without an alias is of a former version, or of the administrator: it gets the mark. One with
an alias of another form is used, and never deleted.
"""

from __future__ import annotations

from collections.abc import Callable

_PREFIX = "jaula engine "


class LinkOwner:
    """This engine as an owner of links. ``is_active`` says whether another one uses its links."""

    def __init__(self, engine_id: str, is_active: Callable[[str], bool]) -> None:
        self.mark = f"{_PREFIX}{engine_id}"
        self._is_active = is_active

    def other(self, alias: str) -> str:
        """Return the id of the other engine that a link with this alias belongs to, or ''."""
        engine_id = alias.removeprefix(_PREFIX)
        if alias == self.mark or engine_id == alias or not self._is_active(engine_id):
            return ""
        return engine_id

    def may_mark(self, alias: str) -> bool:
        """Return whether the alias is free: empty, or of an engine that is gone."""
        return alias != self.mark and (not alias or alias.startswith(_PREFIX))

    def may_delete(self, alias: str) -> bool:
        """Return whether this engine may delete a link with this alias."""
        return not alias or (alias.startswith(_PREFIX) and not self.other(alias))
