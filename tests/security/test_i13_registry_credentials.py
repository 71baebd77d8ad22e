"""I13: credentials go to the configured registry and its realm; no downgrade, no foreign URL."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.puller import HELD, Puller
from harness.registry import make_certificates
from harness.scripted_registry import Request, ScriptedRegistry, digest, layer
from jaula.config import RegistryConfig
from jaula.errors import JaulaError
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http import url as http_url
from jaula.images.registry.registry_hosts import Hosts
from jaula.images.registry.upload import Upload
from jaula.spec.image_documents import LAYER_TAR, Descriptor

BASIC = HELD.basic


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    """Yield a registry that requires a password."""
    with ScriptedRegistry(layer("one")) as made:
        demand(made, 'Basic realm="x"')
        yield made


@pytest.fixture
def other() -> Iterator[ScriptedRegistry]:
    """Yield another host."""
    with ScriptedRegistry(layer("one"), host="127.0.0.2") as made:
        yield made


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path)


def demand(registry: ScriptedRegistry, challenge: str) -> None:
    """Make the registry refuse requests without an Authorization header."""

    def guarded(request: Request) -> None:
        if request.headers.get("Authorization"):
            ScriptedRegistry.honest(registry, request)
        else:
            request.answer(401, b"{}", WWW_Authenticate=challenge)

    registry.honest = guarded  # type: ignore[method-assign]


def redirect(registry: ScriptedRegistry, path: str, target: str, status: int = 307) -> None:
    registry.scripts[path] = lambda request: request.answer(status, Location=target)


def credentials_seen(registry: ScriptedRegistry) -> list[str]:
    return [
        headers["authorization"] for _, _, headers in registry.seen if "authorization" in headers
    ]


def test_the_registry_gets_the_credentials(puller: Puller, registry: ScriptedRegistry) -> None:
    """Check the other tests."""
    puller.pull(f"{registry.name}/box:1")
    assert set(credentials_seen(registry)) == {BASIC}


@pytest.mark.parametrize("cve", ["CVE-2020-15157"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_gets_no_credentials(
    puller: Puller,
    registry: ScriptedRegistry,
    other: ScriptedRegistry,
    status: int,
    cve: str,
) -> None:
    path = registry.blob_path(registry.layers[0])
    redirect(registry, path, other.url + path, status)
    puller.pull(f"{registry.name}/box:1")
    assert other.seen
    assert credentials_seen(other) == []


def test_a_redirect_to_another_port_gets_no_credentials(
    puller: Puller, registry: ScriptedRegistry
) -> None:
    with ScriptedRegistry(layer("one")) as second:
        path = registry.blob_path(registry.layers[0])
        redirect(registry, path, second.url + path)
        puller.pull(f"{registry.name}/box:1")
        assert second.seen
        assert credentials_seen(second) == []


def test_a_redirect_on_the_same_host_gets_the_credentials(
    puller: Puller, registry: ScriptedRegistry
) -> None:
    path = registry.blob_path(registry.layers[0])
    redirect(registry, path, "/elsewhere")
    registry.scripts["/elsewhere"] = lambda request: request.answer(200, registry.layers[0])
    puller.pull(f"{registry.name}/box:1")
    assert registry.asked("/elsewhere")[0]["authorization"] == BASIC


@pytest.mark.parametrize("cve", ["CVE-2020-15157"])
@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Bearer realm="http://127.0.0.2:1/t"'])
def test_a_redirected_host_cannot_request_credentials(
    puller: Puller,
    registry: ScriptedRegistry,
    other: ScriptedRegistry,
    challenge: str,
    cve: str,
) -> None:
    path = registry.blob_path(registry.layers[0])
    redirect(registry, path, other.url + path)
    demand(other, challenge)
    with pytest.raises(JaulaError):
        puller.pull(f"{registry.name}/box:1")
    assert other.seen
    assert credentials_seen(other) == []


@pytest.mark.parametrize("cve", ["CVE-2026-33540"])
@pytest.mark.parametrize(
    "realm",
    [
        "{other}/token",
        "http://127.0.0.1@127.0.0.2:{port}/token",
        "http://127.0.0.1.evil.example/token",
        "https://evil.example/token",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "//127.0.0.2:{port}/token",
        "http://127.0.0.2:{port}\\@127.0.0.1/token",
        "http://127.0.0.1 127.0.0.2/",
        "",
    ],
)
def test_a_token_server_on_another_host_gets_no_credentials(
    puller: Puller, registry: ScriptedRegistry, other: ScriptedRegistry, realm: str, cve: str
) -> None:
    url = realm.format(other=other.url, port=other.port)
    demand(registry, f'Bearer realm="{url}",service="s"')
    other.honest = lambda request: request.answer(200, b'{"token":"t"}')  # type: ignore[method-assign]
    with pytest.raises(JaulaError):
        puller.pull(f"{registry.name}/box:1")
    assert other.seen == []
    assert credentials_seen(registry) == []


def test_a_configured_token_server_gets_the_credentials(tmp_path: Path) -> None:
    hosts = Hosts(RegistryConfig(realms=("r.example.com:5000=tokens.example.org",)))
    endpoint = hosts.endpoint("r.example.com:5000")
    assert hosts.trusts_realm(endpoint, http_url.parse("https://tokens.example.org/t"))
    assert not hosts.trusts_realm(endpoint, http_url.parse("http://tokens.example.org/t"))
    assert not hosts.trusts_realm(endpoint, http_url.parse("https://x.example.org/t"))


@pytest.mark.parametrize(
    ("registry_name", "realm", "trusted"),
    [
        ("docker.io", "https://auth.docker.io/token", True),
        ("docker.io", "http://auth.docker.io/token", False),
        ("docker.io", "https://auth.docker.io.evil.com/token", False),
        ("docker.io", "https://evildocker.io/token", False),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("quay.io", "https://quay.io/v2/auth", True),
        ("registry.co.uk", "https://evil.co.uk/token", False),
        ("a.registry.co.uk", "https://auth.registry.co.uk/token", True),
        ("10.0.0.1:5000", "https://10.0.0.2/token", False),
        ("10.0.0.1:5000", "https://0.0.1/token", False),
        ("registry", "https://evil/token", False),
    ],
)
def test_a_token_server_is_trusted_by_its_host_name(
    registry_name: str, realm: str, trusted: bool
) -> None:
    hosts = Hosts(RegistryConfig())
    endpoint = hosts.endpoint(registry_name)
    assert hosts.trusts_realm(endpoint, http_url.parse(realm)) is trusted


def test_the_scope_of_a_token_is_the_requested_repository(
    puller: Puller, registry: ScriptedRegistry
) -> None:
    """A registry cannot obtain a token for another repository of the same token server."""
    demand(
        registry,
        f'Bearer realm="{registry.url}/token",service="s",scope="repository:other/x:pull,push"',
    )
    registry.scripts["/token"] = lambda request: request.answer(200, b'{"token":"t"}')
    puller.pull(f"{registry.name}/box:1")
    asked = [path for _, path, _ in registry.seen if path.startswith("/token")]
    assert asked
    assert all("repository%3Abox%3Apull" in path and "other" not in path for path in asked)


@pytest.mark.parametrize(
    "body",
    [
        b'{"token":"a\\r\\nX-Evil: 1"}',
        b'{"token":"a b"}',
        b'{"token":""}',
        b'{"token":1}',
        b"[]",
        b'{"token":"' + b"a" * (2 << 20) + b'"}',
    ],
    ids=["lines", "space", "empty", "number", "list", "huge"],
)
def test_a_token_has_no_spaces_or_control_characters(
    puller: Puller, registry: ScriptedRegistry, body: bytes
) -> None:
    demand(registry, f'Bearer realm="{registry.url}/token"')
    registry.scripts["/token"] = lambda request: request.answer(200, body)
    with pytest.raises(JaulaError):
        puller.pull(f"{registry.name}/box:1")
    assert not any("x-evil" in headers for _, _, headers in registry.seen)


def test_authentication_is_retried_a_few_times_only(
    puller: Puller, registry: ScriptedRegistry
) -> None:
    registry.honest = lambda request: request.answer(  # type: ignore[method-assign]
        401, b"{}", WWW_Authenticate='Basic realm="x"'
    )
    with pytest.raises(JaulaError, match="unauthorized"):
        puller.pull(f"{registry.name}/box:1")
    assert len(registry.seen) < 5


@pytest.mark.parametrize("target", ["/v2/box/manifests/1", "/v2/", "/v2/box/blobs/"])
def test_redirect_loops_end(puller: Puller, registry: ScriptedRegistry, target: str) -> None:
    redirect(registry, registry.manifest_path, target)
    redirect(registry, target, registry.manifest_path)
    with pytest.raises(JaulaError):
        puller.pull(f"{registry.name}/box:1")
    assert len(registry.seen) < 20


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://[::1",
        "http://user:password@127.0.0.1/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://a\tb/",
        "http://registry.example.com/x",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_an_invalid_redirect_is_refused(
    puller: Puller, registry: ScriptedRegistry, location: str
) -> None:
    redirect(registry, registry.manifest_path, location)
    with pytest.raises(JaulaError):
        puller.pull(f"{registry.name}/box:1")
    assert puller.left() == []


@pytest.mark.parametrize("reference", ["redirect", "token server"])
def test_a_registry_outside_the_host_cannot_refer_to_the_host(
    puller: Puller,
    registry: ScriptedRegistry,
    other: ScriptedRegistry,
    monkeypatch: pytest.MonkeyPatch,
    reference: str,
) -> None:
    monkeypatch.setattr(  # the registry counts as outside
        "jaula.images.registry.http.registry_transport.is_host_address",
        lambda text: text == "127.0.0.2",
    )
    if reference == "redirect":
        path = registry.blob_path(registry.layers[0])
        redirect(registry, path, other.url + path)
    else:
        demand(registry, f'Bearer realm="{other.url}/token"')
    held = HELD if reference == "redirect" else Credentials()
    with pytest.raises(JaulaError, match="an address of the host itself: refused"):
        puller.pull(f"{registry.name}/box:1", held)
    assert not other.seen


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[ScriptedRegistry, Puller]]:
    """Return a verified HTTPS registry and a client of it."""
    keys = tmp_path / "keys"
    make_certificates(keys)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    with ScriptedRegistry(layer("one"), tls=context) as made:
        own = tmp_path / "certs.d" / made.name
        own.mkdir(parents=True)
        (own / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
        settings = {"certificates": (str(tmp_path / "certs.d"),)}
        yield made, Puller(tmp_path, settings)


@pytest.mark.needs("openssl")
def test_a_redirect_from_https_to_http_is_refused(
    secure: tuple[ScriptedRegistry, Puller], other: ScriptedRegistry
) -> None:
    registry, puller = secure
    puller.pull(f"{registry.name}/box:1")
    path = registry.blob_path(registry.layers[0])
    redirect(registry, path, other.url + path)
    puller.store.remove(f"{registry.name}/box:1")
    with pytest.raises(JaulaError, match="without encryption"):
        puller.pull(f"{registry.name}/box:1")
    assert other.seen == []


@pytest.mark.needs("openssl")
def test_a_token_server_without_https_is_refused(
    secure: tuple[ScriptedRegistry, Puller], other: ScriptedRegistry
) -> None:
    registry, puller = secure
    for held in (HELD, Credentials()):
        demand(registry, f'Bearer realm="http://127.0.0.1:{other.port}/token"')
        with pytest.raises(JaulaError, match="without encryption"):
            puller.pull(f"{registry.name}/box:1", held)
    assert other.seen == []


@pytest.mark.needs("openssl")
def test_a_registry_with_certificates_is_never_contacted_over_http(tmp_path: Path) -> None:
    with ScriptedRegistry(layer("one")) as registry:
        keys = tmp_path / "certs.d" / registry.name
        make_certificates(keys)
        puller = Puller(tmp_path, {"certificates": (str(tmp_path / "certs.d"),)})
        with pytest.raises(JaulaError, match="tls"):
            puller.pull(f"{registry.name}/box:1")
        assert registry.seen == []


def test_plain_http_is_for_loopback_and_configured_registries() -> None:
    hosts = Hosts(RegistryConfig(insecure=("r.example.com:5000", "10.1.0.0/16", "plain")))

    def schemes(name: str) -> list[str]:
        return [url.scheme for url in hosts.endpoint(name).urls]

    for name in ("127.0.0.1:5000", "localhost", "[::1]:5000", "10.1.2.3:80", "plain:1"):
        assert schemes(name) == ["https", "http"]
    assert schemes("r.example.com:5000") == ["https", "http"]
    for name in ("docker.io", "r.example.com", "10.2.0.1", "localhost.example.com", "quay.io"):
        assert schemes(name) == ["https"]
        assert hosts.endpoint(name).security.verify


def test_a_mirror_gets_no_credentials(tmp_path: Path) -> None:
    with ScriptedRegistry(layer("one")) as mirror:
        data = mirror.manifest
        mirror.scripts["/v2/library/box/manifests/1"] = lambda request: request.answer(
            200, data, "application/vnd.oci.image.manifest.v1+json"
        )
        for blob, content in mirror.blobs.items():
            mirror.scripts[f"/v2/library/box/blobs/{blob}"] = lambda request, content=content: (
                request.answer(200, content)
            )
        puller = Puller(tmp_path, {"mirrors": (mirror.url,)})
        image = puller.pull("box:1")
        assert image.names == ("box:1",)
        assert image.digests == (f"box@{digest(data)}",)
        assert credentials_seen(mirror) == []
        demand(mirror, 'Basic realm="x"')
        mirror.scripts.clear()
        with pytest.raises(JaulaError):
            puller.pull("box:1")
        assert credentials_seen(mirror) == []


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ],
)
@pytest.mark.parametrize("cve", ["CVE-2020-15157"])
def test_layer_urls_of_other_hosts_are_refused(
    puller: Puller, registry: ScriptedRegistry, other: ScriptedRegistry, media_type: str, cve: str
) -> None:
    registry.manifest_document["layers"][0] |= {
        "mediaType": media_type,
        "urls": [f"{other.url}/layer"],
    }
    with pytest.raises(JaulaError, match="from a host other than the registry"):
        puller.pull(f"{registry.name}/box:1")
    assert other.seen == []


def test_urls_of_a_distributable_layer_are_ignored(
    puller: Puller, registry: ScriptedRegistry, other: ScriptedRegistry
) -> None:
    registry.manifest_document["layers"][0]["urls"] = [f"{other.url}/layer"]
    puller.pull(f"{registry.name}/box:1")
    assert other.seen == []


def test_an_upload_goes_to_the_registry_only(
    puller: Puller, registry: ScriptedRegistry, other: ScriptedRegistry
) -> None:
    blob = puller.store.blobs.put(b"secret layer")
    registry.scripts["/v2/box/blobs/uploads/"] = lambda request: request.answer(
        202, Location=f"{other.url}/upload"
    )
    cancel = Cancellation()
    target = puller.client.repository(registry.name, "box", HELD, cancel)
    upload = Upload(target, puller.store.blobs, cancel)
    with pytest.raises(JaulaError, match="refused"):
        upload.send(Descriptor(LAYER_TAR, blob, 12), lambda sent: None)
    assert other.seen == []


@pytest.mark.parametrize(
    ("server", "used"),
    [("", True), ("127.0.0.1:5000", True), ("http://127.0.0.1:5000/v1/", True),
     ("https://index.docker.io/v1/", False), ("127.0.0.1:5001", False), ("quay.io", False)],
)  # fmt: skip
def test_credentials_for_another_registry_are_not_used(server: str, used: bool) -> None:
    from jaula.engine.images.registry_images import credentials_for
    from jaula.spec.api_documents import RegistryAuth

    auth = RegistryAuth(username="u", password="p", server_address=server)
    assert bool(credentials_for(auth, "127.0.0.1:5000")) is used


def test_credentials_are_never_printed() -> None:
    from jaula.images.registry.auth.credentials import Login

    for value in (HELD, Login("u", "s3cret")):
        assert "s3cret" not in repr(value) + str(value) + json.dumps(repr(value))
