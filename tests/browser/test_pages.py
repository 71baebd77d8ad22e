"""Every page of the web view in a real browser, and what people do there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from browser.conftest import TIMEOUT, NewPage, Watch, show
from conftest import load_image
from harness.engine import PrivateEngine
from harness.web_view import web_view

HOSTILE = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>"
PATHS = (
    *("/containers", "/create", "/builds", "/images", "/images?tab=tree", "/images?tab=space"),
    *("/networks", "/volumes", "/secrets", "/secrets?tab=configs"),
)


@pytest.fixture
def container(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """Yield a running container that writes a line each second."""
    program = "i=0; while :; do echo line $i; i=$((i+1)); sleep 1; done"
    body = {"Image": busybox, "Cmd": ["sh", "-c", program], "Labels": {"team": "web"}}
    made = engine.request("POST", "/containers/create?name=talker", body).json()["Id"]
    engine.request("POST", f"/containers/{made}/start")
    yield made
    engine.request("DELETE", f"/containers/{made}?force=1")


@pytest.mark.parametrize("size", ["phone", "desk", "wall"])
@pytest.mark.parametrize("language", ["en", "es"])
def test_every_page_has_a_title_and_fits_its_width(
    new_page: NewPage, size: str, language: str, container: str
) -> None:
    page = new_page(size, language=language)
    tabs = ("", "?tab=logs", "?tab=files", "?tab=processes", "?tab=changes", "?tab=inspect")
    for path in (*PATHS, *(f"/containers/{container}{tab}" for tab in tabs)):
        show(page, path)
        expect(page.locator("main h1")).to_have_count(1)
        page.wait_for_timeout(150)
        width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0, (path, width)
        assert not page.locator(".error-box").count(), page.locator(".error-box").inner_text()


def test_a_container_is_created_by_a_pasted_command_and_removed(
    page: Page, engine: PrivateEngine, busybox: str
) -> None:
    show(page, "/create")
    line = "docker run -it --rm --name pasted -m 64m -e 'GREETING=a b' busybox sh -c 'sleep 600'"
    page.fill("textarea.line", line)
    page.click("button.primary:has-text('Create and start')")
    expect(page.locator("main h1")).to_have_text("pasted")
    inspect = engine.request("GET", "/containers/pasted/json").json()
    assert inspect["HostConfig"]["Memory"] == 64 << 20
    assert "GREETING=a b" in inspect["Config"]["Env"]
    page.click("[aria-label=Actions]")
    page.click("[role=menuitem]:has-text('Remove')")
    page.check("dialog [name=force]")
    page.click("dialog button.danger")
    expect(page.locator("main h1")).to_have_text("Containers")
    assert engine.request("GET", "/containers/pasted/json").status == 404


def test_the_form_writes_the_command_line(page: Page) -> None:
    show(page, "/create")
    page.fill("input[list=image-names]", "busybox")
    page.fill("label:has(code:text-is('--name')) input", "it's")
    page.check("label:has(code:text-is('--rm')) input")
    expect(page.locator("textarea.line")).to_have_value(
        "jaula run -d --name 'it'\\''s' --rm busybox"
    )
    page.fill("textarea.line", "jaula run --no-such-flag busybox")
    expect(page.locator(".create-side [role=alert]")).to_contain_text("--no-such-flag")


def test_a_list_follows_events_and_its_actions_work(
    page: Page, engine: PrivateEngine, container: str
) -> None:
    show(page, "/containers")
    row = page.locator("tbody tr", has_text="talker")
    expect(row).to_contain_text("running")
    engine.request("POST", f"/containers/{container}/pause")
    expect(row).to_contain_text("paused")
    row.locator(".menu button").first.click()
    page.click("[role=menuitem]:has-text('Unpause')")
    expect(row).to_contain_text("running")
    row.locator(".menu button").first.click()
    page.click("[role=menuitem]:has-text('Rename')")
    page.fill("dialog [name=name]", "speaker")
    page.click("dialog button.primary")
    expect(page.locator("tbody tr", has_text="speaker")).to_be_visible()
    engine.request("POST", f"/containers/{container}/rename?name=talker")


def test_logs_follow_and_are_searched(page: Page, container: str) -> None:
    show(page, f"/containers/{container}?tab=logs")
    expect(page.locator(".log .line", has_text="line 2").first).to_be_visible()
    page.fill(".logs [type=search]", "line 1")
    expect(page.locator(".log .line:visible").first).to_contain_text("line 1")
    expect(page.locator(".log .line:visible", has_text="line 2")).to_have_count(0)


def test_logs_have_a_bounded_number_of_lines(
    page: Page, engine: PrivateEngine, busybox: str
) -> None:
    program = "seq 1 20000; while [ ! -e /go ]; do sleep 0.1; done; seq 20001 23000; sleep 600"
    body = {"Image": busybox, "Cmd": ["sh", "-c", program]}
    made = engine.request("POST", "/containers/create?name=many", body).json()["Id"]
    engine.request("POST", f"/containers/{made}/start")
    lines = page.locator(".log .line")
    try:
        show(page, f"/containers/{made}?tab=logs")
        expect(lines.last).to_have_text("20000")
        page.select_option(".logs select", "5000")
        # The last line is the same before and after the choice: only the number tells them apart.
        expect(lines).to_have_count(5000)
        expect(lines.first).to_have_text("15001")
        engine.cli("jaula", "exec", made, "touch", "/go")
        expect(lines.last).to_have_text("23000")
        expect(lines).to_have_count(5000)
        expect(lines.first).to_have_text("18001")
    finally:
        engine.request("DELETE", f"/containers/{made}?force=1")


def test_terminals_type_resize_and_stay_open(page: Page, container: str) -> None:
    show(page, f"/containers/{container}?tab=terminal")
    page.click("button:has-text('Open')")
    screen = page.locator(".xterm-rows")
    expect(screen).to_contain_text("#")
    page.keyboard.type("echo $((6*7)); stty size\n")
    expect(screen).to_contain_text("42")
    first = re.search(r"(\d+) (\d+)\s", screen.inner_text())
    assert first is not None
    page.set_viewport_size({"width": 900, "height": 700})
    page.wait_for_timeout(500)
    page.keyboard.type("clear; stty size\n")
    expect(screen).not_to_contain_text(first[0].strip())
    page.click("button:has-text('Open')")
    expect(page.locator("[role=tab]")).to_have_count(2)
    show(page, "/images")
    show(page, f"/containers/{container}?tab=terminal")
    expect(page.locator("[role=tab]")).to_have_count(2)
    expect(screen).to_contain_text("#")
    page.keyboard.type("exit 3\n")
    expect(screen).to_contain_text("exit code 3")


def test_a_program_without_a_terminal_is_attached(
    page: Page, engine: PrivateEngine, busybox: str
) -> None:
    program = "while read -r word; do echo got $word; done; echo bye"
    body = {"Image": busybox, "Cmd": ["sh", "-c", program], "OpenStdin": True, "StdinOnce": True}
    made = engine.request("POST", "/containers/create?name=plain", body).json()["Id"]
    engine.request("POST", f"/containers/{made}/start")
    try:
        show(page, f"/containers/{made}?tab=terminal")
        page.click("button:text-is('Attach')")
        screen = page.locator(".xterm-rows")
        expect(page.locator(".xterm-helper-textarea")).to_be_focused()
        page.keyboard.type("one\n")
        expect(screen).to_contain_text("got one")
        page.keyboard.press("Control+d")
        expect(screen).to_contain_text("bye")
        expect(screen).to_contain_text("exit code 0")
    finally:
        engine.request("DELETE", f"/containers/{made}?force=1")


SLOW_TERMINAL = """
window.WebSocket = class extends WebSocket {
  opened = !this.url.endsWith('/terminal');
  set onopen(listener) {
    super.onopen = event => setTimeout(() => {
      this.opened = true;
      listener(event);
    }, this.opened ? 0 : 1000);
  }
  get readyState() { return this.opened ? super.readyState : WebSocket.CONNECTING; }
};
"""


def test_what_is_typed_before_a_terminal_is_connected_arrives(page: Page, container: str) -> None:
    page.add_init_script(SLOW_TERMINAL)
    page.reload()
    show(page, f"/containers/{container}?tab=terminal")
    page.click("button:has-text('Open')")
    expect(page.locator(".xterm-helper-textarea")).to_be_focused()
    page.keyboard.type("echo $((6*7))\n")
    expect(page.locator(".xterm-rows")).to_contain_text("42")


def test_files_are_browsed_shown_and_uploaded(
    page: Page, engine: PrivateEngine, container: str, tmp_path: Path
) -> None:
    show(page, f"/containers/{container}?tab=files")
    page.click("button.link:text-is('etc')")
    page.click("button.link:text-is('passwd')")
    expect(page.locator("dialog pre")).to_contain_text("root:")
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.click("[aria-label='Download passwd']")
    assert Path(download.value.path()).read_bytes().startswith(b"root:")
    file = tmp_path / "ñandú.txt"
    file.write_text("hello")
    page.set_input_files(".files input[type=file]", str(file))
    expect(page.locator("button.link", has_text="ñandú.txt")).to_be_visible()
    reply = engine.request("GET", f"/jaula/containers/{container}/files?path=/etc")
    assert any(entry["Name"] == "ñandú.txt" for entry in reply.json()["Entries"])


def test_changes_are_listed_and_their_absence_is_said(
    page: Page, engine: PrivateEngine, container: str
) -> None:
    show(page, f"/containers/{container}?tab=changes")
    expect(page.locator("main")).to_contain_text("Nothing was changed since its creation")
    assert engine.cli("jaula", "exec", container, "touch", "/made").returncode == 0
    show(page, f"/containers/{container}?tab=inspect")
    show(page, f"/containers/{container}?tab=changes")
    expect(page.locator("tbody tr", has_text="/made")).to_contain_text("added")


def test_a_build_shows_its_progress(page: Page, busybox: str) -> None:
    show(page, "/builds")
    page.fill("textarea >> nth=0", "FROM busybox\nRUN echo built-in-a-browser > /x\n")
    page.click("form button.primary")
    expect(page.locator(".build-log")).to_contain_text("Step 2/2")
    expect(page.locator(".badge.holds", has_text="built")).to_be_visible()


def test_networks_volumes_and_secrets_are_made_and_removed(page: Page) -> None:
    for path, button, name in (
        ("/networks", "New network", "shown"),
        ("/volumes", "New volume", "shown"),
        ("/secrets", "New secret", "shown"),
    ):
        show(page, path)
        page.click(f"button:has-text('{button}')")
        page.fill("dialog [name=name]", name)
        if path == "/secrets":
            page.fill("dialog [name=data]", "s3cret")
        page.click("dialog button.primary")
        row = page.locator("tbody tr", has_text=name)
        expect(row).to_be_visible()
        if path == "/networks":
            row.locator(".menu button").first.click()
            page.click("[role=menuitem]:has-text('Remove')")
        else:
            row.locator("button").last.click()
        page.click("dialog button.danger")
        expect(row).to_have_count(0)


def test_hostile_texts_are_text(
    page: Page, engine: PrivateEngine, busybox: str, watches: dict[Page, Watch]
) -> None:
    # The name of an image that cannot exist; at the end the container of the page is removed.
    watches[page].allowed = ["status of 400", "status of 404"]
    output = f"{HOSTILE}\n\x1b]0;{HOSTILE}\x07\x1b[31m{HOSTILE}\x1b[0m\u202e\n"
    body = {
        "Image": busybox,
        "Cmd": ["printf", "%s", output],
        "Labels": {HOSTILE: HOSTILE, "com.docker.compose.project": HOSTILE},
        "Env": [f"A={HOSTILE}"],
        "Hostname": "h",
    }
    made = engine.request("POST", "/containers/create?name=hostile", body).json()["Id"]
    engine.request("POST", f"/containers/{made}/start")
    engine.request("POST", f"/containers/{made}/wait")
    labels = {"Labels": {HOSTILE: HOSTILE}}
    engine.request("POST", "/volumes/create", {"Name": "hostile", **labels})
    try:
        for path in (
            *("/containers", "/networks", "/volumes", f"/containers/{made}"),
            *(f"/containers/{made}?tab={tab}" for tab in ("logs", "inspect", "changes")),
            f"/images/{HOSTILE.replace('/', '%2F')}",
            f"/{HOSTILE}",
        ):
            show(page, path)
            page.wait_for_timeout(200)
            assert page.locator("main img, main script").count() == 0, path
        show(page, f"/containers/{made}?tab=logs")
        expect(page.locator(".log")).to_contain_text(HOSTILE)
    finally:
        engine.request("DELETE", f"/containers/{made}?force=1")
        engine.request("DELETE", "/volumes/hostile")


def test_a_page_reconnects_after_a_restart_of_the_engine(
    new_engine: Callable[..., PrivateEngine],
    new_page: NewPage,
    watches: dict[Page, Watch],
) -> None:
    engine = new_engine()
    with web_view(engine) as own:
        page = new_page(of=own)
        watches[page].allowed = ["502"]
        show(page, "/volumes")
        engine.stop()
        expect(page.locator(".live.down")).to_be_visible()
        expect(page.locator(".down[role=alert]")).to_contain_text("does not answer")
        engine.start()
        expect(page.locator(".live.up")).to_be_visible()
        expect(page.locator(".down[role=alert]")).to_have_count(0)
        engine.request("POST", "/volumes/create", {"Name": "after"})
        expect(page.locator("tbody tr", has_text="after")).to_be_visible()


def test_a_page_continues_after_a_restart_of_the_view(
    new_engine: Callable[..., PrivateEngine],
    new_page: NewPage,
    watches: dict[Page, Watch],
) -> None:
    engine = new_engine()
    with web_view(engine) as own:
        page = new_page(of=own)
        watches[page].allowed = ["ERR_CONNECTION_REFUSED"]
        show(page, "/volumes")
        own.end()
        expect(page.locator(".live.down")).to_be_visible()
        own.start()
        expect(page.locator(".live.up")).to_be_visible()
        page.click("button:has-text('New volume')")
        page.fill("dialog [name=name]", "after")
        page.click("dialog button.primary")
        expect(page.locator("tbody tr", has_text="after")).to_be_visible()
        page.reload()
        expect(page.locator("tbody tr", has_text="after")).to_be_visible()


def test_output_continues_after_a_restart_of_the_view(
    new_engine: Callable[..., PrivateEngine], new_page: NewPage, watches: dict[Page, Watch]
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    program = "i=0; while :; do echo line $i; i=$((i+1)); sleep 1; done"
    words = ("--name", "talker", "--stop-timeout", "0", "busybox", "sh", "-c", program)
    assert engine.cli("jaula", "run", "-d", *words).returncode == 0
    with web_view(engine) as own:
        page = new_page(of=own)
        watches[page].allowed = ["ERR_CONNECTION_REFUSED"]
        show(page, "/containers/talker?tab=logs")
        expect(page.locator(".log .line").first).to_be_visible()
        own.end()
        expect(page.locator(".error-box")).to_be_visible()
        own.start()
        expect(page.locator(".error-box")).to_have_count(0)
        last = page.locator(".log .line").last
        before = last.inner_text()
        expect(last).not_to_have_text(before)


@pytest.mark.parametrize(
    "path", ["/static/ui.js", "/static/style.css", "/static/pages/volumes.js", "/api/volumes"]
)
def test_a_request_that_fails_on_the_way_is_sent_again(
    page: Page, watches: dict[Page, Watch], path: str
) -> None:
    """Chromium fails requests when an interface of the host changes, as at a start."""
    watches[page].allowed = ["ERR_FAILED"]
    failed: list[str] = []

    def fail_once(route: Route) -> None:
        if failed:
            route.continue_()
        else:
            failed.append(route.request.url)
            route.abort("failed")

    page.route(lambda url: urlsplit(url).path == path, fail_once)
    page.goto(page.url.partition("#")[0] + "#/volumes")
    page.reload()
    expect(page.locator("body")).to_have_css("margin-top", "0px")  # it may be loaded again first
    expect(page.locator("main h1")).to_have_text("Volumes")
    expect(page.locator("main .loading")).to_have_count(0, timeout=TIMEOUT)
    assert failed
    assert page.locator(".error-box").count() == 0


def test_keys_lead_to_pages_and_are_listed(page: Page) -> None:
    show(page, "/containers")
    page.keyboard.press("?")
    expect(page.locator("dialog .keys")).to_contain_text("Volumes")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("v")
    expect(page.locator("main h1")).to_have_text("Volumes")
    expect(page.locator("main h1")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("[data-search]")).to_be_focused()
    page.keyboard.press("Escape")
    before = page.evaluate("document.documentElement.dataset.theme")
    page.locator("main h1").focus()
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") != before


def test_the_language_is_changed_and_kept(page: Page) -> None:
    show(page, "/volumes")
    page.select_option(".top .language", "es")
    expect(page.locator("main h1")).to_have_text("Volúmenes")
    page.reload()
    expect(page.locator("main h1")).to_have_text("Volúmenes")
    assert page.evaluate("document.documentElement.lang") == "es"


def test_a_used_link_and_a_logout_show_the_login_page(
    page: Page, watches: dict[Page, Watch]
) -> None:
    watches[page].allowed = ["401", "403"]
    page.click("[aria-label='Log out']")
    expect(page.locator(".login")).to_contain_text("jaula web --open")
    page.goto(page.url.split("#")[0] + "login#used")
    expect(page.locator(".login .error-box")).to_contain_text("not valid")
    assert "used" not in page.url


def test_the_documents_of_the_view_are_small(page: Page) -> None:
    names = json.loads(
        page.evaluate("JSON.stringify(performance.getEntriesByType('resource').map(e => e.name))")
    )
    assert not any("xterm" in name or "uplot" in name for name in names)
    sizes = page.evaluate(
        "performance.getEntriesByType('resource').reduce((sum, e) => sum + e.encodedBodySize, 0)"
    )
    assert sizes < 120_000
