"""The map and the analytical pages in a browser, with real containers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import containers
from harness.engine import PrivateEngine
from harness.web_page import web_page
from harness.web_view import WebView

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from harness.web_page import WebPage

pytestmark = pytest.mark.usefixtures("busybox")

HOSTILE = "<img src=x onerror=window.broken=1>\u202e\x1b[31m'\"&lt;"


@pytest.fixture
def page(chromium: Browser, view: WebView) -> Iterator[WebPage]:
    with web_page(chromium, view) as opened:
        yield opened


def limit_file(process: int) -> Path:
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if "memory" in names.split(","):
            return Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
    return Path(f"/sys/fs/cgroup{path}/memory.max")


def test_the_map_shows_a_relaxation_and_a_removed_protection(
    page: WebPage, engine: PrivateEngine
) -> None:
    shown = page.open("/map")
    with containers.running(
        engine, "busybox", flags=("-m", "64m", "--cap-add", "NET_ADMIN")
    ) as name:
        tile = shown.locator(".tile", has_text=name)
        shown.wait_for_selector(f".tile.relaxed:has-text('{name}')")
        assert "capabilities relaxed" in (tile.text_content() or "")
        file = limit_file(containers.pid(engine, name))
        before = file.read_text()
        try:
            file.write_text(str(96 << 20))
            shown.wait_for_selector(f".tile.fails:has-text('{name}')")
            assert "cgroups fails" in (tile.text_content() or "")
            shown.wait_for_selector(".standing.fails")
            tile.click()
            shown.wait_for_selector(".evidence .box.fails > .band[aria-current]")
            row = shown.locator(".evidence-row.fails")
            assert row.locator("dd").nth(0).inner_text().startswith("67108864")
            assert row.locator("dd").nth(1).inner_text().startswith(str(96 << 20))
            assert str(file) in row.inner_text()
            assert name in shown.locator(".changes").inner_text()
        finally:
            file.write_text(before)
        shown.wait_for_selector(f".tile.relaxed:has-text('{name}')")
    shown.wait_for_selector(f".tile:has-text('{name}')", state="detached")


def test_the_map_is_usable_by_keyboard_and_as_a_table(page: WebPage, engine: PrivateEngine) -> None:
    with (
        containers.running(engine, "busybox") as one,
        containers.running(engine, "busybox") as two,
    ):
        shown = page.open("/map")
        for name in (one, two):
            shown.wait_for_selector(f".tile.holds:has-text('{name}')")
        shown.locator(".tile[tabindex='0']").focus()
        focused = "document.activeElement.querySelector('.name')?.textContent"
        first = shown.evaluate(focused)
        shown.keyboard.press("ArrowRight")
        assert {first, shown.evaluate(focused)} == {one, two}
        shown.keyboard.press("Enter")
        shown.wait_for_selector(".evidence .boxes")
        shown.keyboard.press("Escape")
        shown.wait_for_selector(".evidence", state="detached")
        shown.get_by_role("button", name="Table").click()
        table = shown.locator(".layers-table")
        assert one in table.inner_text()
        assert "seccomp" in table.locator("thead").inner_text()


def test_a_live_oom_is_marked_on_the_chart(page: WebPage, engine: PrivateEngine) -> None:
    flags = ("-m", "24m", "--memory-swap", "24m")
    with containers.running(engine, "busybox", flags=flags) as name:
        key = containers.inspect(engine, name)["Id"]
        shown = page.open(f"/stats?c={key[:12]}")
        shown.wait_for_selector("[data-chart=memory] canvas")
        shown.wait_for_timeout(2500)
        assert shown.locator(".oom").count() == 0
        engine.cli("jaula", "exec", name, "sh", "-c", "tail -c 200000000 /dev/zero | tail")
        shown.wait_for_selector("[data-chart=memory] .oom")
        mark = shown.evaluate(RED_PIXELS)
        assert mark > 50, "the mark is drawn over the chart"


RED_PIXELS = """
() => {
  const canvas = document.querySelector('[data-chart=memory] canvas');
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let red = 0;
  for (let at = 0; at < data.length; at += 4)
    if (data[at] > 150 && data[at + 1] < 150 && data[at + 2] < 140 && data[at + 3] > 100) red++;
  return red;
}
"""


def test_reach_is_that_of_networks_and_published_ports(
    page: WebPage, engine: PrivateEngine
) -> None:
    names = [containers.unique("net") for _ in range(2)]
    inner, outer = names
    engine.request("POST", "/networks/create", {"Name": inner, "Internal": True})
    engine.request("POST", "/networks/create", {"Name": outer})
    try:
        with (
            containers.running(engine, "busybox", flags=("--network", inner)) as vault,
            containers.running(engine, "busybox", flags=("--network", outer, "-p", "80")) as web,
            containers.running(engine, "busybox", flags=("--network", outer)) as peer,
        ):
            key = containers.inspect(engine, web)["Id"]
            shown = page.open(f"/reach?c={key[:12]}")
            cell = shown.locator(".matrix tbody tr")
            shown.wait_for_selector(f".room[data-network='{inner}'] .party:has-text('{vault}')")
            for name in (vault, web, peer):
                shown.wait_for_selector(f".matrix tbody th:text-is('{name}')")
            rows = cell.all_inner_texts()
            header = shown.locator(".matrix thead th").all_inner_texts()[1:]
            table = {
                line.split("\t")[0]: dict(zip(header, line.split("\t")[1:], strict=True))
                for line in rows
            }
            assert "yes" in table[peer][web]
            assert "no" in table[vault][web]
            assert "no" in table[peer][vault]
            assert "no" in table[vault]["outside"]
            assert "ports" in table["outside"][web]
            assert "no" in table["outside"][peer]
            assert "yes" in table["host"][vault]
            assert shown.locator(".gates li", has_text=web).count() == 1
    finally:
        for name in names:
            engine.request("DELETE", f"/networks/{name}")


def test_why_answers_with_layer_proof_and_flag(page: WebPage, engine: PrivateEngine) -> None:
    with containers.running(engine, "busybox") as name:
        key = containers.inspect(engine, name)["Id"]
        shown = page.open(f"/why?c={key[:12]}")
        shown.get_by_label("Command").fill("mount -t tmpfs none '/mnt'")
        shown.get_by_role("button", name="Ask").click()
        shown.wait_for_selector(".diagnosis, .error-box")
        text = shown.locator("main").inner_text()
        if "cannot trace" in text:
            pytest.skip("this kernel cannot trace")
        assert "seccomp" in text
        assert "--cap-add SYS_ADMIN" in text


def test_why_answers_in_the_language_of_the_browser(
    chromium: Browser, view: WebView, engine: PrivateEngine
) -> None:
    body = {"Image": "busybox", "Cmd": ["/none"]}
    key = engine.request("POST", "/containers/create", body).json()["Id"]
    try:
        engine.request("POST", f"/containers/{key}/start")
        with web_page(chromium, view, locale="es") as page:
            shown = page.open(f"/why?c={key[:12]}")
            shown.get_by_role("button", name="¿Por qué terminó?").click()
            text = shown.locator(".diagnosis").inner_text()
        assert "Capa programa" in text
        assert "/none no existe en el contenedor" in text
        assert "comprueba la ortografía" in text
    finally:
        engine.request("DELETE", f"/containers/{key}?force=1")


def test_a_record_is_shown_with_its_chain(page: WebPage, engine: PrivateEngine) -> None:
    with containers.running(engine, "busybox") as name:
        key = containers.inspect(engine, name)["Id"]
        shown = page.open(f"/records?c={key[:12]}")
        shown.get_by_label("Seconds").fill("1")
        shown.get_by_role("button", name="Record", exact=True).click()
        shown.wait_for_selector(".record, .error-box")
        if shown.locator(".error-box").count():
            pytest.skip(shown.locator(".error-box").inner_text())
        assert "The hash chain is intact" in shown.locator(".record").inner_text()
        shown.get_by_role("button", name="Make a profile").click()
        shown.wait_for_selector(".profile-text pre")
        assert "capabilities" in shown.locator(".profile-text pre").inner_text()


def test_an_audit_has_a_score_and_its_evidence(page: WebPage, engine: PrivateEngine) -> None:
    with containers.running(engine, "busybox") as name:
        shown = page.open("/audit")
        shown.get_by_role("button", name="Audit", exact=True).click()
        shown.wait_for_selector(".score")
        assert re.search(r"\d+ of \d+ applicable", shown.locator(".audit-report").inner_text())
        assert name in shown.locator(".audit-report").inner_text()


def test_events_are_live_and_filtered(page: WebPage, engine: PrivateEngine) -> None:
    shown = page.open("/events")
    with containers.running(engine, "busybox") as name:
        shown.wait_for_selector(f".events tr:has-text('start'):has-text('{name}')")
        shown.get_by_label("Filter").fill("no such text")
        shown.wait_for_selector(".events", state="detached")
        shown.get_by_label("Filter").fill(name)
        shown.wait_for_selector(f".events tr:has-text('{name}')")


def test_an_action_of_an_event_is_on_one_line(page: WebPage, engine: PrivateEngine) -> None:
    with containers.running(engine, "busybox", flags=("-v", "/data")):  # its mount has long details
        pass
    shown = page.open("/events")
    action = shown.locator(".events .action-disconnect").first
    action.wait_for()
    assert action.evaluate("element => element.getClientRects().length") == 1


def test_a_project_is_stopped_and_started_as_a_whole(page: WebPage, engine: PrivateEngine) -> None:
    project = containers.unique("shop")
    label = "com.docker.compose"
    flags = [
        ("--label", f"{label}.project={project}", "--label", f"{label}.service={name}",
         "--stop-timeout", "0")
        for name in ("web", "db")
    ]  # fmt: skip
    with (
        containers.running(engine, "busybox", flags=flags[0]),
        containers.running(engine, "busybox", flags=flags[1]),
    ):
        shown = page.open("/projects")
        card = shown.locator(".project", has_text=project)
        card.get_by_role("button", name="Stop").click()
        shown.get_by_role("button", name="Yes, stop").click()
        card.get_by_text("0 of 2 run").wait_for()
        card.get_by_role("button", name="Start", exact=True).click()
        shown.get_by_role("button", name="Yes, start").click()
        card.get_by_text("2 of 2 run").wait_for()


def states(engine: PrivateEngine, *names: str) -> list[str]:
    return [containers.inspect(engine, name)["State"]["Status"] for name in names]


def test_a_pod_is_a_group_that_is_stopped_started_and_removed(
    page: WebPage, engine: PrivateEngine
) -> None:
    pod = containers.unique("pod")
    infra, member = f"{pod}-infra", f"{pod}-web"
    for words in (
        ("pod", "create", "--name", pod, "-p", "127.0.0.1::80"),
        ("run", "-d", "--pod", pod, "--name", member, "--stop-timeout", "0", "busybox", "sleep",
         "600"),
    ):  # fmt: skip
        done = engine.cli("jaula", *words)
        assert done.returncode == 0, done.stderr
    try:
        shown = page.open("/map")
        group = shown.locator(f".group[aria-label='{pod}']")
        group.locator(".tile", has_text=infra).wait_for()
        group.locator(".tile", has_text=member).wait_for()
        shown = page.open("/containers")
        assert pod in shown.locator("tbody tr", has_text=member).locator(".badge").inner_text()
        shown = page.open("/projects")
        card = shown.locator(".project", has_text=pod)
        assert card.locator("tbody tr").first.locator("th").inner_text() == infra
        assert "→ 80/tcp" in card.locator("header").inner_text()
        for verb, text, expected in (
            ("Stop", "0 of 2 run", "exited"),
            ("Start", "2 of 2 run", "running"),
            ("Restart", "2 of 2 run", "running"),
        ):
            card.get_by_role("button", name=verb, exact=True).click()
            shown.get_by_role("button", name=f"Yes, {verb.lower()}").click()
            shown.locator(".toast", has_text="Done.").wait_for()
            shown.locator(".toast button").first.click()
            card.get_by_text(text).wait_for()
            assert states(engine, infra, member) == [expected] * 2
        ends = containers.inspect(engine, infra), containers.inspect(engine, member)
        assert ends[0]["State"]["StartedAt"] < ends[1]["State"]["StartedAt"]
        card.get_by_role("button", name="Remove").click()
        shown.get_by_role("button", name="Yes, remove").click()
        card.wait_for(state="detached")
        assert engine.request("GET", f"/containers/{infra}/json").status == 404
    finally:
        engine.cli("jaula", "pod", "rm", "-f", pod)


def test_hostile_labels_and_commands_are_text(page: WebPage, engine: PrivateEngine) -> None:
    body: dict[str, Any] = {
        "Image": "busybox",
        "Cmd": ["sleep", "600", HOSTILE],
        "Labels": {"com.docker.compose.project": HOSTILE, "com.docker.compose.service": HOSTILE},
    }
    key = engine.request("POST", "/containers/create", body).json()["Id"]
    try:
        engine.request("POST", f"/containers/{key}/start")
        for path in ("/map", "/projects", "/reach", "/stats", "/events", "/verify", "/profiles"):
            shown = page.open(path)
            shown.wait_for_timeout(700)
            assert shown.evaluate("window.broken") is None, path
            assert shown.locator("main img").count() == 0, path
        assert "<img src=x" in page.open("/projects").locator(".project").first.inner_text()
    finally:
        engine.request("DELETE", f"/containers/{key}?force=1")


def test_two_languages_and_their_pages(chromium: Browser, view: WebView) -> None:
    with web_page(chromium, view, locale="es") as page:
        for path, title in (("/map", "Mapa"), ("/reach", "Alcance"), ("/why", "¿Por qué?")):
            assert page.open(path).locator("main h1").inner_text() == title
