"""What is decided without a network: challenges, proxies, addresses, progress, platforms, names."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.config import RegistryConfig
from jaula.errors import InvalidRequest, NotFound
from jaula.images.platform import select
from jaula.images.registry import progress
from jaula.images.registry.auth import www_authenticate
from jaula.images.registry.hosts import Hosts, credentials_key, domain_of
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.proxy import Proxies, Proxy, configured_proxies
from jaula.images.registry.manifest import check_platform, parse_platform
from jaula.spec.image import MANIFEST, Descriptor, Platform

ID = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        ('bearer realm="https://a/t",service="s",scope="repository:a:pull,push"',
         [("bearer", {"realm": "https://a/t", "service": "s",
                      "scope": "repository:a:pull,push"})]),
        ('Basic realm="x", Bearer realm="y", service=z',
         [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"})]),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": 'a"b\\c'})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ("", []),
        ("=,=", []),
    ],
)  # fmt: skip
def test_challenges_are_read(text: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, c.parameters) for c in www_authenticate.parse([text])] == found


@given(st.text(alphabet=string.printable, max_size=300))
def test_no_challenge_breaks_the_reader(text: str) -> None:
    www_authenticate.choose(www_authenticate.parse([text, text]))


def test_a_token_is_better_than_a_password() -> None:
    found = www_authenticate.choose(www_authenticate.parse(['Basic realm="x"', 'Bearer realm="y"']))
    assert found is not None
    assert found.scheme == "bearer"
    assert www_authenticate.choose(www_authenticate.parse(["Digest realm=x"])) is None


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
    found = proxies.of(http_url.parse(f"https://{host}/"))
    assert (found is not None) is through
    if found is not None:
        assert (found.host, found.port) == ("proxy", 3128)
        assert found.authorization == "Basic dTpwQA=="
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


@pytest.mark.parametrize(
    ("server", "domain", "key"),
    [
        ("", "docker.io", "https://index.docker.io/v1/"),
        ("https://index.docker.io/v1/", "docker.io", "https://index.docker.io/v1/"),
        ("registry-1.docker.io", "docker.io", "https://index.docker.io/v1/"),
        ("quay.io", "quay.io", "quay.io"),
        ("https://quay.io/v2/", "quay.io", "quay.io"),
        ("127.0.0.1:5000", "127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_which_registry_is_meant(server: str, domain: str, key: str) -> None:
    from jaula.cli.images import registry_auth

    assert domain_of(server) == domain
    assert credentials_key(domain) == key
    assert registry_auth.key(server) == key  # the client's own, which loads nothing for it


@pytest.mark.parametrize(
    ("image", "domain"),
    [("busybox", "docker.io"), ("a/b", "docker.io"), ("localhost/a", "localhost"),
     ("q.io/a/b:1", "q.io"), ("h:5000/a@sha256:1", "h:5000"), ("docker.io/a", "docker.io")],
)  # fmt: skip
def test_the_client_knows_an_images_registry(image: str, domain: str) -> None:
    from jaula.cli.images import registry_auth

    assert registry_auth.domain(image) == domain


def test_docker_hub_has_its_own_host_and_mirrors_come_first() -> None:
    hosts = Hosts(RegistryConfig(mirrors=("https://m.example.com", "http://127.0.0.1:5000")))
    names = [(e.name, e.mirror) for e in hosts.endpoints("docker.io")]
    assert names == [
        ("m.example.com", True),
        ("127.0.0.1:5000", True),
        ("registry-1.docker.io", False),
    ]
    assert [e.name for e in hosts.endpoints("quay.io")] == ["quay.io"]


@pytest.mark.parametrize(
    "config",
    [
        {"mirrors": ("http://m.example.com",)},
        {"mirrors": ("https://m/path",)},
        {"mirrors": ("ftp://m",)},
        {"realms": ("x",)},
    ],
)
def test_settings_that_cannot_be_are_refused(config: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(InvalidRequest):
        Hosts(RegistryConfig(**config)).endpoints("docker.io")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("current", "total", "shown"),
    [
        (32768, 1106811, "[=>" + " " * 49 + "]  32.77kB/1.107MB"),
        (1106811, 1106811, "[" + "=" * 50 + ">]  1.107MB/1.107MB"),
        (40448, 2025035, "[>" + " " * 50 + "]  40.45kB/2.025MB"),
        (2181120, 2025035, "[" + "=" * 50 + ">]  2.181MB"),
        (5, 0, "      5B"),
    ],
)
def test_the_bar_is_dockers(current: int, total: int, shown: str) -> None:
    assert progress.bar(current, total) == shown


def test_a_slow_reader_sees_the_newest_amount_of_each_line() -> None:
    board = progress.ProgressBoard()
    for number in range(1000):
        board.update(progress.amount("Downloading", "a", number, 1000), last=True)
        board.update(progress.amount("Downloading", "b", number, 1000), last=True)
    board.post(progress.status("Download complete", "a"))
    found = list(board.take(0))
    assert [m["id"] for m in found] == ["a", "b", "a"]
    assert [m.get("progressDetail") for m in found] == [
        {"current": 999, "total": 1000},
        {"current": 999, "total": 1000},
        {},
    ]


def _listed(*platforms: tuple[str, str, str]) -> list[Descriptor]:
    return [
        Descriptor(MANIFEST, ID, number, platform=Platform(architecture, system, variant))
        for number, (system, architecture, variant) in enumerate(platforms)
    ]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("linux/amd64", 0),
        ("linux/arm/v6", 2),
        ("linux/arm/v7", 3),
        ("linux/arm", 3),
        ("linux/arm/v8", 3),
        ("linux/arm64", 4),
        ("linux/arm64/v8", 4),
        ("arm64", 4),
        ("amd64", 0),
    ],
)
def test_the_requested_platform_is_selected(wanted: str, number: int) -> None:
    manifests = _listed(
        ("linux", "amd64", ""),
        ("unknown", "unknown", ""),
        ("linux", "arm", "v6"),
        ("linux", "arm", "v7"),
        ("linux", "arm64", "v8"),
        ("windows", "amd64", ""),
    )
    assert select(manifests, parse_platform(wanted)).size == number


@pytest.mark.parametrize("wanted", ["linux/s390x", "linux/386", "linux/arm/v5", "freebsd/amd64"])
def test_a_missing_platform_is_reported_in_dockers_words(wanted: str) -> None:
    manifests = _listed(("linux", "amd64", ""), ("linux", "arm", "v6"))
    with pytest.raises(NotFound, match=f"no matching manifest for {wanted} in the manifest list"):
        select(manifests, parse_platform(wanted))


@pytest.mark.parametrize("text", ["a/b/c/d", "linux/", "/amd64", "linux/am d", "é/x"])
def test_an_invalid_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is an invalid platform"):
        parse_platform(text)


def test_an_image_of_another_platform_is_refused() -> None:
    found = Platform("amd64", "linux")
    check_platform(None, found, "x")
    check_platform(parse_platform("linux/amd64"), found, "x")
    with pytest.raises(NotFound, match="wanted linux/arm64, actual: linux/amd64"):
        check_platform(parse_platform("linux/arm64"), found, "x")
