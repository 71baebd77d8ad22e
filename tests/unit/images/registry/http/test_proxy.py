"""Select the proxy of a request."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.proxy_choice import Proxies, Proxy, configured_proxies


@pytest.mark.parametrize(
    ("host", "through"),
    [
        ("r.example.com", False),
        ("example.com", False),
        ("notexample.com", True),
        ("below.dotted.org", False),
        ("dotted.org", True),
        ("10.1.2.3", False),
        ("10.2.2.3", True),
        ("127.0.0.1", False),
        ("localhost", False),
        ("ported.net", True),
        ("quay.io", True),
    ],
)
def test_requests_use_the_proxy_unless_exempt(host: str, through: bool) -> None:
    proxies = Proxies(
        "", "http://u:p%40@proxy:3128", "example.com, .dotted.org,10.1.0.0/16,ported.net:8443"
    )
    result = proxies.of(http_url.parse(f"https://{host}/"))
    assert (result is not None) is through
    if result is not None:
        assert (result.host, result.port) == ("proxy", 3128)
        assert result.authorization == "Basic dTpwQA=="
    assert proxies.of(http_url.parse(f"http://{host}/")) is None


def test_the_environment_applies_to_unset_options() -> None:
    environment = {"HTTPS_PROXY": "http://big:1", "https_proxy": "http://small:1", "no_proxy": "*"}
    url = http_url.parse("https://quay.io/")
    assert configured_proxies("", "", "none", environment).of(url) == Proxy("big", 1)
    assert configured_proxies("", "http://set", "none", environment).of(url) == Proxy("set", 80)
    assert configured_proxies("", "http://set", "", environment).of(url) is None


@pytest.mark.parametrize("text", ["socks5://p:1", "https://p:1", "http://", "http://p:x"])
def test_other_proxies_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="a proxy address"):
        Proxies(text, "", "")
