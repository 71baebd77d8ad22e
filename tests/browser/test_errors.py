"""Each action of a page shows the engine's error: without rights, with bad input, engine gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.conftest import TIMEOUT, show
from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.web_view import WebView, web_view

READER = 54_331  # a uid that the host does not have


@pytest.fixture(scope="module")
def guarded(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebView]:
    """Yield the view of an engine with a container of root, and a user who may read only."""
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(f'[user.{READER}]\naccess = "read"\nothers = "read"\n')
    engine = PrivateEngine((worker_index + 57) % 250 + 1, extra_flags=("--policy", str(policy)))
    with leaks.nothing_left(engine):
        load_image(engine, "busybox")
        os.chmod(engine.run, 0o711)
        os.chmod(engine.socket, 0o666)
        body = {"Image": "busybox", "Cmd": ["sleep", "600"]}
        engine.request("POST", "/containers/create?name=of-root", body)
        engine.request("POST", "/containers/of-root/start")
        engine.request("POST", "/volumes/create", {"Name": "of-root"})
        engine.request("POST", "/networks/create", {"Name": "net-of-root"})
        with web_view(engine) as view:
            yield view


def log_in(chromium: Browser, view: WebView, **options: object) -> Page:
    context = chromium.new_context(locale="en", viewport={"width": 1280, "height": 800})
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    page.goto(view.link(**options))
    page.wait_for_selector(".live.up")
    return page


@pytest.fixture
def reader(chromium: Browser, guarded: WebView) -> Iterator[Page]:
    page = log_in(chromium, guarded, user=READER, group=READER, extra_groups=[])
    yield page
    page.context.close()


@pytest.fixture
def root(chromium: Browser, guarded: WebView) -> Iterator[Page]:
    page = log_in(chromium, guarded)
    yield page
    page.context.close()


def menu(page: Page, row: str, item: str) -> None:
    page.locator("tbody tr", has_text=row).locator(".menu button").first.click()
    page.click(f"[role=menuitem]:has-text('{item}')")


def create(page: Page, button: str, **fields: str) -> None:
    page.click(f".page-actions button:has-text('{button}')")
    for name, value in fields.items():
        page.fill(f"dialog [name={name}]", value)
    page.click("dialog button.primary")


def confirmed(page: Page) -> None:
    page.click("dialog footer button:last-child")


def pull(page: Page) -> None:
    page.click("button:has-text('Pull')")
    page.fill("dialog [name=image]", "127.0.0.1:9/absent")
    page.click("dialog button.primary")


def run(page: Page) -> None:
    page.fill("textarea.line", "jaula run -d busybox true")
    page.click("button.primary:has-text('Create and start')")


def build(page: Page) -> None:
    page.click("form button.primary")


def terminal(page: Page) -> None:
    page.click("button:has-text('Open')")


def upload(page: Page) -> None:
    page.set_input_files(".files input[type=file]", str(Path(__file__)))


def record(page: Page) -> None:
    page.select_option(".ask select", label="of-root")
    page.click("button.primary:has-text('Record')")


def why(page: Page) -> None:
    page.select_option(".ask select", label="of-root · running")
    page.fill(".ask input.mono", "true")
    page.click("button.primary:has-text('Ask')")


REFUSED: list[tuple[str, Callable[[Page], None]]] = [
    ("/containers", lambda page: menu(page, "of-root", "Stop")),
    ("/containers", lambda page: menu(page, "of-root", "Pause")),
    ("/containers", lambda page: (menu(page, "of-root", "Kill"), confirmed(page))[0]),
    ("/containers", lambda page: (menu(page, "of-root", "Remove"), confirmed(page))[0]),
    ("/containers/of-root?tab=terminal", terminal),
    ("/containers/of-root?tab=files&path=/etc", upload),
    ("/create", run),
    ("/builds", build),
    ("/images", pull),
    ("/images", lambda page: (menu(page, "busybox", "Remove"), confirmed(page))[0]),
    ("/networks", lambda page: create(page, "New network", name="own")),
    ("/networks", lambda page: (menu(page, "net-of-root", "Remove"), confirmed(page))[0]),
    ("/volumes", lambda page: create(page, "New volume", name="own")),
    ("/secrets", lambda page: create(page, "New secret", name="own", data="x")),
    ("/records", record),
    ("/why", why),
    ("/audit", lambda page: page.click("button.primary:has-text('Audit')")),
]
ERRORS = ".toast.error, main .error-box, dialog .error-box, .xterm-rows"


@pytest.mark.parametrize(("path", "action"), REFUSED)
def test_an_action_without_the_right_says_who_lacks_it(
    reader: Page, path: str, action: Callable[[Page], None]
) -> None:
    show(reader, path)
    action(reader)
    shown = reader.locator(ERRORS).filter(has_text=str(READER))
    expect(shown.first).to_be_visible()


BAD: list[tuple[str, Callable[[Page], None], str]] = [
    ("/networks", lambda page: create(page, "New network", name="n", subnet="x"), "x"),
    ("/networks", lambda page: create(page, "New network", name="net-of-root"), "already exists"),
    ("/volumes", lambda page: create(page, "New volume", name="a/b"), "a/b"),
    ("/secrets", lambda page: create(page, "New secret", name="a b", data="x"), "a b"),
    ("/images", pull, "127.0.0.1:9"),
    ("/containers/of-root?tab=files&path=/absent", lambda page: None, "/absent"),
    ("/records", lambda page: page.set_input_files("[type=file]", str(Path(__file__))), "record"),
]


@pytest.mark.parametrize(("path", "action", "text"), BAD)
def test_bad_input_is_refused_with_its_value(
    root: Page, path: str, action: Callable[[Page], None], text: str
) -> None:
    show(root, path)
    action(root)
    expect(root.locator(ERRORS).filter(has_text=text).first).to_be_visible()


def test_a_form_with_a_bad_value_and_a_download_that_fails_say_why(root: Page) -> None:
    show(root, "/create")
    root.fill("textarea.line", "jaula run -d -m much busybox")
    root.click("button.primary:has-text('Create and start')")
    expect(root.locator(".error-box")).to_contain_text("much: not a size")
    show(root, "/containers/of-root?tab=files&path=/etc")
    root.route("**/files/**", lambda route: route.fulfill(status=403, json={"message": "denied"}))
    root.click("[aria-label='Download passwd']")
    expect(root.locator(".toast.error")).to_contain_text("denied")


def test_an_action_while_the_engine_is_gone_says_so(
    chromium: Browser, new_engine: Callable[..., PrivateEngine]
) -> None:
    engine = new_engine()
    with web_view(engine) as view:
        page = log_in(chromium, view)
        show(page, "/volumes")
        engine.stop()
        create(page, "New volume", name="own")
        expect(page.locator(".toast.error")).to_contain_text("is not running")
        show(page, "/create")
        run(page)
        expect(page.locator(".error-box")).to_contain_text("is not running")
        page.context.close()
        engine.start()


def test_a_page_that_cannot_be_loaded_has_a_title_and_a_button(root: Page) -> None:
    show(root, "/volumes")
    root.route("**/static/pages/audit.js", lambda route: route.abort())
    root.evaluate("location.hash = '/audit'")
    expect(root.locator("main h1")).to_have_text("The page cannot be loaded")
    expect(root.locator("main button:has-text('Reload')")).to_be_visible()


def test_the_end_of_a_session_shows_the_ways_to_log_in(root: Page) -> None:
    show(root, "/volumes")
    root.evaluate("sessionStorage.clear()")
    create(root, "New volume", name="late")
    expect(root.locator(".login")).to_contain_text("jaula web --open")
    expect(root.locator(".login .error-box")).to_contain_text("The session has ended")
