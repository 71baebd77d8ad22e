"""Pages of an ordinary user's view of a rootless engine. The browser is in the user's network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright

from browser.conftest import CHROMIUM
from harness.rootless import NAME, RootlessHost
from harness.web_page import web_page
from harness.web_view import RootlessView

pytestmark = [pytest.mark.xdist_group("rootless")]


@pytest.fixture(scope="module")
def view(busybox_archive: Path) -> Iterator[RootlessView]:
    """Yield the view of a rootless engine with one running container."""
    with RootlessHost() as host:
        host.load(busybox_archive)
        host.jaula("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sleep", "600")
        running = RootlessView(host)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def inside(
    playwright: Playwright, view: RootlessView, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """Yield a browser in the network namespace of the view."""
    program = tmp_path_factory.mktemp("chromium") / "chromium"
    program.write_text(f'#!/bin/sh\nexec nsenter --net={view.network} {CHROMIUM} "$@"\n')
    program.chmod(0o755)
    browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
    yield browser
    browser.close()


def test_the_map_says_what_a_rootless_engine_cannot_confine(
    inside: Browser, view: RootlessView
) -> None:
    with web_page(inside, view) as opened:
        page = opened.open("/map")
        page.locator(".tile.relaxed", has_text="web").wait_for()
        assert page.locator(".tile.fails").count() == 0
        assert page.locator(".top .user").inner_text() == NAME


def test_a_container_is_created_and_used_in_a_terminal(inside: Browser, view: RootlessView) -> None:
    with web_page(inside, view) as opened:
        page = opened.open("/create")
        page.fill("textarea.line", "jaula run -it --rm --name made busybox sh")
        page.click("button.primary:has-text('Create and start')")
        page.locator("main h1", has_text="made").wait_for()
        page.goto(f"{page.url}?tab=terminal")
        page.click("button:has-text('Open')")
        page.locator(".xterm-rows", has_text="#").wait_for()
        page.keyboard.type("echo $((6*7))\n")
        page.locator(".xterm-rows", has_text="42").wait_for()
        page.click("[aria-label=Actions]")
        page.click("[role=menuitem]:has-text('Remove')")
        page.check("dialog [name=force]")
        page.click("dialog button.danger")
        page.locator("main h1", has_text="Containers").wait_for()


@pytest.mark.parametrize(
    "path",
    ["/reach", "/stats", "/events", "/projects", "/verify", "/profiles", "/builds", "/images",
     "/networks", "/volumes", "/secrets"],
)  # fmt: skip
def test_a_page_has_no_error(inside: Browser, view: RootlessView, path: str) -> None:
    with web_page(inside, view) as opened:
        page = opened.open(path)
        page.wait_for_timeout(1500)
        assert page.locator(".error-box").count() == 0, page.locator(".error-box").inner_text()
