"""A real browser on a web view of a private engine: Debian's Chromium, driven by Playwright.

A test fails if a page logs an error, breaks its content security policy, or sends a request to
another address than the view's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

from harness.engine import PrivateEngine
from harness.web_view import WebView, web_view

CHROMIUM = "/usr/bin/chromium"
TIMEOUT = 20_000  # ms
CHANGED = ("net::ERR_NETWORK_CHANGED",)  # containers start on this host; pages read again
WIDTHS = {"phone": (390, 844), "desk": (1280, 800), "wall": (2560, 1440)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this directory."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """Yield the driver of all browsers; a process has one, since its loop runs while it is open."""
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """Yield a browser without a screen."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def view(engine: PrivateEngine) -> Iterator[WebView]:
    """Yield a web view of the worker's engine."""
    with web_view(engine) as running:
        yield running


class Watch:
    """The errors of a page. ``allowed`` are texts of errors that a test expects."""

    def __init__(self, page: Page, view: WebView) -> None:
        self.problems: list[str] = []
        self.allowed: list[str] = []
        page.on("console", lambda m: self._add(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self._add(f"uncaught: {error}"))
        page.on("dialog", lambda dialog: self._add(f"a script ran: {dialog.message}"))
        page.on("request", lambda request: self._check(request.url, view.address))

    def _add(self, text: str) -> None:
        self.problems.append(text)

    def _check(self, url: str, address: str) -> None:
        if url.partition("://")[2].partition("/")[0] != address and not url.startswith("blob:"):
            self._add(f"a request to another address: {url}")

    def check(self) -> None:
        allowed = (*self.allowed, *CHANGED)
        left = [text for text in self.problems if not any(ok in text for ok in allowed)]
        assert not left, left


NewPage = Callable[..., Page]


@pytest.fixture
def watches() -> Iterator[dict[Page, Watch]]:
    """Yield the watches of the pages of a test, and check them at its end."""
    found: dict[Page, Watch] = {}
    yield found
    for watch in found.values():
        watch.check()


@pytest.fixture
def new_page(chromium: Browser, view: WebView, watches: dict[Page, Watch]) -> Iterator[NewPage]:
    """Yield a function that returns a logged-in page. Options: size, theme, language, of."""
    contexts: list[BrowserContext] = []

    def make(
        size: str = "desk", theme: str = "dark", language: str = "en", of: WebView | None = None
    ) -> Page:
        width, height = WIDTHS[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,  # type: ignore[arg-type]
            locale=language,
            reduced_motion="reduce",
        )
        context.set_default_timeout(TIMEOUT)
        contexts.append(context)
        page = context.new_page()
        watches[page] = Watch(page, of or view)
        page.goto((of or view).link())
        page.wait_for_selector(".live.up")
        return page

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """Return a logged-in page at a desk, dark and in English."""
    return new_page()


def show(page: Page, path: str) -> None:
    """Show the page at a path, and wait until it has its title."""
    page.evaluate("path => { location.hash = path; }", path)
    page.wait_for_selector("main h1")
    expect(page.locator("main .loading")).to_have_count(0, timeout=TIMEOUT)
