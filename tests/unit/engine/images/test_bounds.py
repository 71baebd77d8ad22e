"""Requests for images whose work would grow faster than their bytes."""

from __future__ import annotations

import asyncio
import fnmatch
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.images.images import Images, ReferencePatterns
from jaula.errors import InvalidRequest
from jaula.spec.image_documents import Platform

NAMES = ("busybox:1", "busybox:latest", "host:5000/team/web:2", "team/web:latest")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["busybox"], NAMES[:2]),
        (["busybox:1"], NAMES[:1]),
        (["busy*"], NAMES[:2]),
        (["*:latest"], NAMES[1:2]),
        (["*/*"], NAMES[3:]),
        (["host:5000/*/web"], NAMES[2:3]),
        (["host:*/team/w?b:[12]"], NAMES[2:3]),
        (["team/[a-z]eb", "busybox:1"], (NAMES[0], NAMES[3])),
        (["[", "*["], ()),
        ([""], ()),
    ],
)
def test_a_reference_matches_with_and_without_its_tag(
    patterns: list[str], expected: tuple[str, ...]
) -> None:
    assert ReferencePatterns(patterns).matching(NAMES) == list(expected)


def test_patterns_are_translated_once_for_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    translated: list[str] = []
    translate = fnmatch.translate

    def counted(pattern: str) -> str:
        translated.append(pattern)
        return translate(pattern)

    monkeypatch.setattr(fnmatch, "translate", counted)
    plain = [f"name{n}" for n in range(960)]
    patterns = ReferencePatterns([*plain, *(f"team/x{n}*" for n in range(64))])
    for number in range(1000):
        assert patterns.matching([f"name{number}:1"]) == [f"name{number}:1"][: number < 960]
    assert len(translated) == 2 * 64


def test_a_filter_has_few_wildcards() -> None:
    with pytest.raises(InvalidRequest, match="65 patterns with wildcards; at most 64"):
        ReferencePatterns([f"x{n}*" for n in range(65)])
    ReferencePatterns(["x*"] * 1024)


class Store:
    """A store that notes the thread of each resolution."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def tags_of(self, name: str) -> tuple[str, ...]:
        return ()

    def resolve(self, name: str, platform: Platform | None = None) -> Any:
        self.threads.append(threading.get_ident())
        if platform is not None:
            raise InvalidRequest("resolved")
        return SimpleNamespace(id=name)


def _save(store: Store, names: int, platforms: int) -> None:
    services: Any = SimpleNamespace(images=store)
    wanted = [Platform("amd64", "linux", f"v{n}") for n in range(platforms)]

    async def first() -> None:
        async for _ in Images(services).save([f"n{n}" for n in range(names)], wanted):
            return

    asyncio.run(first())


def test_a_save_resolves_outside_the_event_loop() -> None:
    store = Store()
    with pytest.raises(InvalidRequest, match="resolved"):
        _save(store, 3, 2)
    assert len(store.threads) == 4
    assert threading.get_ident() not in store.threads


def test_a_save_has_a_bound_for_names_and_platforms_together() -> None:
    store = Store()
    with pytest.raises(InvalidRequest, match="1024 images for 64 platforms each; at most 1024"):
        _save(store, 1024, 64)
    assert store.threads == []
