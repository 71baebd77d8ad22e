"""Pages of the web view in Debian's chromium, driven by Playwright."""

from __future__ import annotations

import base64
import bisect
import contextlib
import hashlib
import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from harness.engine import SLOW
from harness.web_view import WebView

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TIMEOUT = 30_000.0 * SLOW  # milliseconds
AXE = ("axe-core", "4.14.1")
AXE_INTEGRITY = (
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)


class WebPage:
    """A page of a logged-in user. Errors of its scripts fail the test that calls ``check``."""

    def __init__(self, browser: Browser, view: WebView, **context: Any) -> None:
        self.view = view
        context = {"viewport": {"width": 1280, "height": 860}, "locale": "en"} | context
        self.context = browser.new_context(**context)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._console)
        self.page.goto(view.link())
        self.page.wait_for_selector(".shell")

    def _console(self, message: Any) -> None:
        # A status of the API, such as that of a container that has just ended, is no error here.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(f"{message.text} ({message.location})")

    def open(self, path: str) -> Page:
        """Show a page of the view and wait until it is drawn."""
        self.page.goto(f"{self.view.url}/#{path}")
        self.page.wait_for_selector("main h1")
        return self.page

    def check(self) -> None:
        """Assert that no script failed and that the policy of the page refused nothing."""
        assert not self.errors, self.errors

    def close(self) -> None:
        self.context.close()


@contextlib.contextmanager
def web_page(browser: Browser, view: WebView, **context: Any) -> Iterator[WebPage]:
    """Open a page of root, and check it at the end."""
    page = WebPage(browser, view, **context)
    try:
        yield page
        page.check()
    finally:
        page.close()


def axe_source(cache: Path) -> str:
    """Return the source of axe-core, from the npm registry at the first use."""
    name, version = AXE
    archive = cache / f"{name}-{version}.tgz"
    if not archive.exists():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed, and axe-core is not in the cache")
        cache.mkdir(parents=True, exist_ok=True)
        words = ["npm", "pack", "--silent", "--pack-destination", str(cache), f"{name}@{version}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot fetch {name}: {done.stderr[-200:]}")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    assert digest == AXE_INTEGRITY, f"{archive} is not the version of the lock"
    with tarfile.open(archive) as tar:
        file = tar.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def violations(page: Page, source: str) -> list[str]:
    """Return what axe-core finds on a page: rule, element and reason of each violation.

    The source is evaluated by the debugger, which the policy of the page does not concern.
    """
    page.evaluate(f"() => {{ if (!window.axe) {{ {source} ; }} }}")
    found = page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
    )
    return [
        f"{rule['id']}: {node['target']}: {node['failureSummary'][:300]}"
        for rule in found
        for node in rule["nodes"]
    ]


class Frames(NamedTuple):
    """Times of the frames of a page, in milliseconds.

    ``work`` is the processor time of the main thread in a frame, ``interval`` the time from one
    frame to the next, which other programs of a busy machine make longer. ``long`` are the tasks
    with more than 50 ms of processor time.
    """

    number: int
    work: float  # at the 95th percentile
    interval: float  # at the 95th percentile
    long: tuple[int, ...]


def frames(browser: Browser, page: Page, seconds: float) -> Frames:
    """Measure the frames of a page for some time."""
    categories = ["devtools.timeline", "disabled-by-default-devtools.timeline"]
    browser.start_tracing(page=page, categories=categories)
    intervals = page.evaluate(_INTERVALS, seconds * 1000)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks: list[tuple[float, float]] = []  # begin, processor time; microseconds
    begins: list[float] = []
    for event in events:
        if (event["pid"], event["tid"]) not in main:
            continue
        if event["name"] == "FireAnimationFrame":
            begins.append(event["ts"])
        elif event["name"] == "RunTask" and "tdur" in event:
            tasks.append((event["ts"], event["tdur"]))
    begins.sort()
    work = [0.0] * (len(begins) + 1)
    for begin, cost in tasks:
        work[bisect.bisect_right(begins, begin)] += cost / 1000
    assert len(begins) > 20, "the page draws no frames"
    return Frames(
        len(begins),
        round(_percentile(work, 0.95), 2),
        round(_percentile(intervals, 0.95), 2),
        tuple(round(cost / 1000) for _, cost in tasks if cost > 50_000),
    )


def _percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


class FirstPaint(NamedTuple):
    """The first contentful paint of a page.

    ``work`` is the processor time of the main thread before it, in milliseconds: a busy machine
    does not change it much. ``time`` is the time of the paint in milliseconds, for the report.
    """

    work: float
    time: float


def first_paint(browser: Browser, page: Page) -> FirstPaint:
    """Load a page again and measure the work before its first contentful paint."""
    categories = ["loading", "blink.user_timing", "devtools.timeline"]
    categories += ["disabled-by-default-devtools.timeline"]
    browser.start_tracing(page=page, categories=categories)
    page.reload()
    page.wait_for_selector("main h1")
    time = page.evaluate(_PAINT)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    (paint,) = [event for event in events if event["name"] == "firstContentfulPaint"]
    thread = paint["pid"], paint["tid"]
    begins = [
        event["ts"]
        for event in events
        if event["name"] == "navigationStart" and event["pid"] == paint["pid"]
    ]
    begin = max(each for each in begins if each <= paint["ts"])
    work = sum(
        event["tdur"]
        for event in events
        if (event["pid"], event["tid"]) == thread
        and event["name"] == "RunTask"
        and begin <= event["ts"] <= paint["ts"]
    )
    return FirstPaint(round(work / 1000, 1), round(time))


_PAINT = """
async () => {
  const paint = () => performance.getEntriesByName('first-contentful-paint')[0]?.startTime;
  while (paint() === undefined) await new Promise(requestAnimationFrame);
  return paint();
}
"""


_INTERVALS = """
milliseconds => new Promise(done => {
  const intervals = [];
  const start = performance.now();
  let last = start;
  const step = now => {
    intervals.push(now - last);
    last = now;
    if (now - start < milliseconds) requestAnimationFrame(step);
    else done(intervals);
  };
  requestAnimationFrame(step);
})
"""


def wait_until(page: Page, expression: str, what: str, seconds: float = 30.0 * SLOW) -> None:
    """Wait until an expression is true. The policy of the page forbids wait_for_function()."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, what
        page.wait_for_timeout(200)


def processor_share(page: Page, seconds: float, during: Callable[[], None] | None = None) -> float:
    """Return the share of one processor that the page's main thread takes."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    before = busy()
    if during is not None:
        during()
    page.wait_for_timeout(seconds * 1000)
    return (busy() - before) / seconds
