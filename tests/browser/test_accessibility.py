"""axe-core finds no violation on any page, in both themes, and every page fits each width."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import containers
from harness.engine import PROJECT, PrivateEngine
from harness.web_page import axe_source, violations, web_page
from harness.web_view import WebView

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.usefixtures("busybox")

CACHE = Path(PROJECT) / ".pytest_cache" / "npm"
PAGES = (
    *("/map", "/map?c={id}", "/map?c={id}&layer=seccomp", "/reach", "/reach?c={id}", "/stats"),
    *("/stats?c={id}", "/events", "/projects", "/verify", "/verify?c={id}", "/why", "/records"),
    *("/profiles", "/audit", "/containers", "/containers/{id}", "/create", "/builds", "/images"),
    *("/networks", "/volumes", "/secrets"),
)


@pytest.fixture(scope="module")
def axe() -> str:
    return axe_source(CACHE)


@pytest.fixture(scope="module")
def shown(engine: PrivateEngine, view: WebView, busybox: str) -> Iterator[tuple[WebView, str]]:
    """Return the view of an engine with containers of each kind, and the id of one."""
    flags = ("-m", "64m", "--cap-add", "NET_ADMIN", "-p", "127.0.0.1::80", "--label",
             "com.docker.compose.project=shop")  # fmt: skip
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(containers.running(engine, busybox, flags=flags))
        for _ in range(8):  # the matrix of reach is wider than a phone
            stack.enter_context(containers.running(engine, busybox))
        yield view, containers.inspect(engine, name)["Id"][:12]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_no_violation(
    chromium: Browser, shown: tuple[WebView, str], axe: str, path: str, theme: str
) -> None:
    view, key = shown
    with web_page(chromium, view, color_scheme=theme, bypass_csp=True) as opened:
        page = opened.open(path.format(id=key))
        page.wait_for_timeout(2500)
        assert violations(page, axe) == []


@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_no_page_is_wider_than_the_screen(
    chromium: Browser, shown: tuple[WebView, str], width: int
) -> None:
    view, key = shown
    viewport: Any = {"width": width, "height": 860}
    with web_page(chromium, view, viewport=viewport) as opened:
        wide = []
        for path in PAGES:
            page = opened.open(path.format(id=key))
            page.wait_for_timeout(900)
            if (taken := page.evaluate("document.documentElement.scrollWidth")) > width:
                wide.append((path, taken))
        assert wide == []


def test_all_of_the_map_is_reached_by_tab(chromium: Browser, shown: tuple[WebView, str]) -> None:
    view, _ = shown
    with web_page(chromium, view) as opened:
        page = opened.open("/map")
        page.wait_for_selector(".tile")
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement?.className ?? ''").split(" ")[0])
        assert {"skip", "tile", "chip", "toggle"} <= reached
