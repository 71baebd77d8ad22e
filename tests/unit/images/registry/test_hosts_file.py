"""``hosts.toml``: what it means, and that nothing else is accepted."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.config import RegistryConfig
from jaula.errors import InvalidRequest
from jaula.images.registry import hosts_file
from jaula.images.registry.hosts_file import CAPABILITIES, HostsFile
from jaula.images.registry.registry_hosts import Endpoint, Hosts

FILE = "/etc/jaula/certs.d/docker.io/hosts.toml"
EVERY_KEY = b"""
server = "https://registry-1.docker.io"
ca = "server.pem"
header = { X-Server = "yes" }

[host."https://mirror.example:8443"]
  capabilities = ["Pull", "resolve", "referrers"]
  ca = ["mirror.pem", "/etc/ssl/other.pem"]
  client = [["client.cert", "client.key"], ["both.pem", ""], "one.pem"]
  skip_verify = false
  dial_timeout = "1.5s"
  [host."https://mirror.example:8443".header]
    x-custom = ["a", "b"]

[host."http://10.0.0.5:5000/proxy"]
  capabilities = ["pull"]

[host."cache.example/v2/hub"]
  capabilities = ["push"]
  override_path = true
  skip_verify = true
"""


def read(text: bytes | str) -> HostsFile:
    return hosts_file.parse(text.encode() if isinstance(text, str) else text, FILE)


def test_every_key_is_read_and_the_order_is_that_of_the_file() -> None:
    file = read(EVERY_KEY)
    first, second, third = file.hosts
    assert [str(h.url) for h in file.hosts] == [
        "https://mirror.example:8443/",
        "http://10.0.0.5:5000/",
        "https://cache.example/",
    ]
    assert [h.root for h in file.hosts] == ["/v2", "/proxy/v2", "/v2/hub"]
    assert [h.verify for h in file.hosts] == [True, None, False]
    assert first.capabilities == {"pull", "resolve"}
    below = "/etc/jaula/certs.d/docker.io"
    assert first.certificates.authorities == (f"{below}/mirror.pem", "/etc/ssl/other.pem")
    assert first.certificates.clients == (
        (f"{below}/client.cert", f"{below}/client.key"),
        (f"{below}/both.pem", ""),
        (f"{below}/one.pem", ""),
    )
    assert first.headers == (("x-custom", "a, b"),)
    assert first.dial_timeout == 1.5
    assert second.capabilities == {"pull"}
    assert third.capabilities == {"push"}
    assert str(file.server.url) == "https://registry-1.docker.io/"
    assert file.server.certificates.authorities == (f"{below}/server.pem",)
    assert file.server.headers == (("x-server", "yes"),)


def test_an_empty_file_is_the_registry_itself() -> None:
    assert read(b"") == HostsFile(FILE, (), hosts_file.HostSettings())


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("\xff", "not a TOML document"),
        (b"\xff", "not a TOML document"),
        ("a = ", "not a TOML document"),
        ("a = 1\na = 2", "not a TOML document"),
        ("a = " + "[" * 20_000, "not a TOML document"),
        ("a = " + "9" * 5_000, "not a TOML document"),
        ("skip_verfiy = true", "skip_verfiy: unknown key"),
        ("server = 5", "server: it must be a URL"),
        ('server = "https://"', "server: 'https://' is not the URL"),
        ('server = "https://a b"', "server: 'https://a b' is not the URL"),
        ('server = "ftp://a"', "server: 'ftp://a'"),
        ('server = "https://u:p@a"', "server: "),
        ('server = "https://a?x=1"', "server: "),
        ('server = "https://a/#x"', "server: "),
        ('server = "https://a/../b"', "server: the path"),
        ('server = "https://a//b"', "server: the path"),
        ("override_path = true", "override_path: it needs a server"),
        ("host = []", "host: it must be a table"),
        ('host = { "https://a" = 1 }', 'host."https://a": it must be a table'),
        ('[host."https://a"]\nserver = "x"', 'host."https://a".server: unknown key'),
        ('[host."https://a".host."https://b"]', 'host."https://a".host: unknown key'),
        ('[host."\\u001b[31m"]', r'host."\x1b[31m": '),
        ('[host.""]', 'host."": '),
        ('capabilities = "pull"', "capabilities: it must be a list"),
        ('capabilities = ["delete"]', "capabilities: unknown capability 'delete'"),
        ("capabilities = [[]]", "capabilities: unknown capability"),
        ("ca = 1", "ca: it must be a path"),
        ('ca = [""]', "ca: it must be a path"),
        ('ca = "a\\u0000b"', "ca: it must be a path"),
        ('client = [["a"]]', "client: a list in it must be"),
        ('client = [["a", 1]]', "client: a list in it must be"),
        ('client = [["a", "b", "c"]]', "client: a list in it must be"),
        ('client = [["a", "b\\u0000"]]', "client: a list in it must be"),
        ("client = [1]", "client: it must be a path"),
        ('skip_verify = "yes"', "skip_verify: it must be true or false"),
        ('header = "a"', "header: it must be a table"),
        ('header = { Host = "a" }', "header.Host: a request cannot have"),
        ('header = { "a b" = "a" }', "header.a b: a request cannot have"),
        ('header = { a = "x\\r\\nHost: b" }', "header.a: the value"),
        ('header = { a = ["ü"] }', "header.a: the value"),
        ("header = { a = 1 }", "header.a: the value"),
        ('header = { a = "1", A = "2" }', "header.A: the header is there twice"),
        ('dial_timeout = "5"', "dial_timeout: '5' is not a duration"),
        ("dial_timeout = 5", "dial_timeout: it must be a duration"),
        ('dial_timeout = "-5s"', "dial_timeout: it must be more than 0"),
        ('dial_timeout = "' + "9" * 5_000 + 's"', "dial_timeout: "),
        ('dial_timeout = "1h"', "dial_timeout: it must be more than 0"),
        ("".join(f'[host."h{n}"]\n' for n in range(33)), "host: 33 hosts"),
    ],
)
def test_a_bad_file_is_one_error_with_the_file_and_the_key(text: bytes | str, key: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read(text)
    assert raised.value.message.startswith(f"hosts file {FILE}: ")
    assert key in raised.value.message
    assert raised.value.message.isprintable() or "TOML" in raised.value.message


_scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.text(max_size=30),
    st.sampled_from(["https://a", "pull", "push", "5s", "a.pem", "/v2"]),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
_keys = st.sampled_from(["server", "host", *hosts_file._KEYS, "other"])


@given(document=st.dictionaries(_keys, _values, max_size=5))
def test_any_document_is_settings_or_one_error(document: dict[str, Any]) -> None:
    try:
        file = hosts_file._read_document(document, FILE)
    except InvalidRequest:
        return
    for settings in (*file.hosts, file.server):
        assert settings.capabilities is None or settings.capabilities <= CAPABILITIES
        for name, value in settings.headers:
            assert "\n" not in name + value


@given(data=st.binary(max_size=300))
def test_any_bytes_are_settings_or_one_error(data: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        read(data)


# -- the servers of a registry -------------------------------------------------------------------


def write(top: Path, name: str, text: str) -> Path:
    file = top / name / "hosts.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def hosts(*tops: Path, **more: Any) -> Hosts:
    names = tuple(map(str, tops))
    return Hosts(RegistryConfig(**({"certificates": names, "hosts": names} | more)))


def urls(endpoints: tuple[Endpoint, ...]) -> list[str]:
    return [str(endpoint.urls[0]) for endpoint in endpoints]


@pytest.mark.parametrize("directory", ["r.example:5000", "r.example_5000_", "_default"])
def test_the_directory_of_a_registry_has_three_forms(tmp_path: Path, directory: str) -> None:
    write(tmp_path, directory, '[host."https://m.example"]')
    mirror, registry = hosts(tmp_path).endpoints("r.example:5000")
    assert (mirror.name, mirror.mirror, mirror.namespace) == ("m.example", True, "r.example:5000")
    assert mirror.capabilities == {"pull", "resolve"}
    assert (registry.name, registry.mirror, registry.namespace) == ("r.example:5000", False, "")
    assert registry.capabilities == CAPABILITIES
    assert registry.source == str(tmp_path / directory / "hosts.toml")


def test_the_first_directory_with_a_file_counts_and_default_is_the_last(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, "_default", '[host."https://default.example"]')
    write(two, "r.example", '[host."https://two.example"]')
    settings = hosts(one, two)
    assert urls(settings.endpoints("r.example"))[0] == "https://two.example/"
    assert urls(settings.endpoints("other.example"))[0] == "https://default.example/"
    write(one, "r.example", '[host."https://one.example"]')
    assert urls(settings.endpoints("r.example"))[0] == "https://one.example/"
    own = two / "own.example"
    own.mkdir()
    assert urls(settings.endpoints("own.example")) == ["https://own.example/"]


def test_docker_s_mirrors_count_unless_the_file_has_hosts(tmp_path: Path) -> None:
    settings = hosts(tmp_path, mirrors=("https://docker.example",))
    write(tmp_path, "docker.io", 'header = { x = "1" }')
    mirror, registry = settings.endpoints("docker.io")
    assert urls((mirror, registry)) == ["https://docker.example/", "https://registry-1.docker.io/"]
    assert registry.headers == (("x", "1"),)
    assert mirror.headers == ()
    assert mirror.namespace == ""
    write(tmp_path, "docker.io", '[host."https://m.example"]')
    assert urls(settings.endpoints("docker.io")) == [
        "https://m.example/",
        "https://registry-1.docker.io/",
    ]
    assert urls((settings.endpoint("index.docker.io"),)) == ["https://index.docker.io/"]


def test_credentials_are_for_the_registry_its_server_and_the_target_of_pushes(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        "r.example",
        'server = "https://10.0.0.5:5000"\n'
        '[host."https://m.example"]\n[host."https://r.example"]\ncapabilities = ["pull"]\n'
        '[host."https://p.example"]\ncapabilities = ["pull", "push"]',
    )
    settings = hosts(tmp_path)
    assert [(e.name, e.mirror) for e in settings.endpoints("r.example")] == [
        ("m.example", True),
        ("r.example", False),
        ("p.example", False),
        ("10.0.0.5:5000", False),
    ]
    assert settings.push_endpoint("r.example").name == "p.example"
    assert settings.endpoint("r.example").name == "10.0.0.5:5000"
    write(tmp_path, "_default", 'server = "https://all.example"')
    assert [(e.name, e.mirror) for e in settings.endpoints("other.example")] == [
        ("all.example", True)
    ]
    with pytest.raises(InvalidRequest, match=r"no server of other\.example may be pushed to"):
        settings.push_endpoint("other.example")


def test_the_verification_is_that_of_the_file_or_of_the_directory(tmp_path: Path) -> None:
    for name in ("m.example", "r.example", "127.0.0.1:5000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ca.crt").write_text("")
    write(
        tmp_path,
        "r.example",
        'ca = "own.pem"\n[host."https://m.example"]\n'
        '[host."https://127.0.0.1:1"]\n[host."https://127.0.0.1:2"]\nskip_verify = false\n'
        '[host."https://127.0.0.1:3"]\nca = "x"\n'
        '[host."https://n.example"]\nskip_verify = true',
    )
    settings = hosts(tmp_path)
    found = [e.security for e in settings.endpoints("r.example")]
    assert [s.verify for s in found] == [True, False, True, True, False, True]
    assert found[0].certificates.authorities == (str(tmp_path / "m.example" / "ca.crt"),)
    # the certificates beside a file are not trusted, unless it names them
    assert found[-1].certificates.authorities == (str(tmp_path / "r.example" / "own.pem"),)
    loopback = settings.endpoint("127.0.0.1:5000")
    assert loopback.security.verify
    assert len(loopback.urls) == 1


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "r.example", "")
    file.chmod(0o666)
    with pytest.raises(InvalidRequest, match=f"hosts file {file} is writable by other users"):
        hosts(tmp_path).endpoints("r.example")
    file.unlink()
    file.mkdir()
    with pytest.raises(InvalidRequest, match="is not a regular file"):
        hosts(tmp_path).endpoints("r.example")
    file.rmdir()
    file.write_bytes(b"#" * (1 << 17))
    with pytest.raises(InvalidRequest, match="has more than 65536 bytes"):
        hosts(tmp_path).endpoints("r.example")


@pytest.mark.parametrize("name", [".", "..", "../x", ""])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    top = tmp_path / "certs.d"
    (top / "x").mkdir(parents=True)
    (tmp_path / "ca.crt").write_text("")
    assert not hosts(top).security("h", 443, name).certificates
