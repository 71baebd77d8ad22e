"""Parse URLs from registries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.images.registry.http import url as http_url


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://Host:443/a?b=c", "https://host/a?b=c"),
        ("http://h:80", "http://h/"),
        ("https://[::1]:5000/x", "https://[::1]:5000/x"),
        ("/x/y?z", "https://base:1/x/y?z"),
        ("y?z", "https://base:1/a/y?z"),
        ("//other/x", "https://other/x"),
    ],
)
def test_urls_are_read(text: str, found: str) -> None:
    assert str(http_url.parse(text, http_url.parse("https://base:1/a/b?c"))) == found


@given(st.text(max_size=80))
def test_no_url_breaks_the_reader(text: str) -> None:
    try:
        url = http_url.parse(text, http_url.parse("https://base/"))
    except InvalidRequest:
        return
    assert url.scheme in ("http", "https")
    assert all("!" <= c <= "~" for c in url.target + url.host)
    assert "@" not in url.authority
