"""Published ports as the packet filter has them: the elements of the engine's nft maps. Pure.

The maps are those of ``nft -j list ruleset`` (:mod:`jaula.network.firewall.bridge_rules`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MAPS = ("published", "published_everywhere")
ANYWHERE = {"ip": "0.0.0.0", "ip6": "::"}
"""The address of a port that is published on all addresses, by family."""


class Forward(NamedTuple):
    """A port of the host that is sent to a port of a container; numbers are texts."""

    address: str
    protocol: str
    port: str
    target: str
    target_port: str


def concat(element: Mapping[str, Any]) -> Sequence[Any]:
    """Return the parts of an element, which has a wrapper if it has a timeout or a comment."""
    value: Mapping[str, Any] = element["elem"]["val"] if "elem" in element else element
    return value.get("concat") or ("",)


def forwards(objects: Iterable[Mapping[str, Any]]) -> Iterator[Forward]:
    """Yield the elements of the maps of published ports."""
    for entry in objects:
        kind = entry.get("map") or {}
        if kind.get("name") not in MAPS or kind.get("family") not in ANYWHERE:
            continue
        for key, value in kind.get("elem") or ():
            target = concat(value)
            if len(target) == 2:
                words = [str(word) for word in concat(key)]
                source = words if len(words) == 3 else [ANYWHERE[kind["family"]], *words]
                yield Forward(*source, *map(str, target))
