"""A web view of the worker's engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.engine import PrivateEngine
from harness.web_view import Browser, WebView, web_view
from jaula.features.web import static_files
from jaula.features.web.static_files import DIRECTORY


@pytest.fixture(scope="module")
def view(engine: PrivateEngine, third_party_files: None) -> Iterator[WebView]:
    with web_view(engine) as running:
        yield running


@pytest.fixture(scope="module")
def root(view: WebView) -> Browser:
    """Return a browser of root."""
    return view.log_in()


@pytest.fixture(scope="session")
def third_party_files() -> None:
    """Check that the files of other projects are there: scripts/web-assets installs them."""
    assert static_files.LOCK.exists()
    if not (DIRECTORY / "vendor").exists():
        pytest.skip("scripts/web-assets has not installed static/vendor")
