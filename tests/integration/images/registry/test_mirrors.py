"""Pulls through the servers of ``hosts.toml``, with real TLS."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.puller import HELD, Puller
from harness.registry import Registry, make_certificates
from harness.scripted_registry import MANIFEST, Request, ScriptedRegistry, digest, layer
from jaula.errors import InvalidRequest, JaulaError, NotFound
from jaula.images.reference import parse
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.image_push import PushRequest, push
from jaula.images.registry.registry_errors import Unreachable

pytestmark = pytest.mark.needs("openssl")

Script = Callable[[Request], None]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    make_certificates(directory)
    return directory


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry(layer("one"), layer("two")) as made:
        yield made


@pytest.fixture
def mirror(registry: ScriptedRegistry) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry(*registry.layers) as made:
        yield made


class Node:
    """A client with a directory of hosts files."""

    def __init__(self, directory: Path) -> None:
        self.top = directory / "certs.d"
        names = (str(self.top),)
        self.puller = Puller(directory, {"certificates": names, "hosts": names})

    def write(self, registry: str, text: str) -> None:
        file = self.top / registry / "hosts.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def failure(self, name: str, held: Credentials = HELD) -> JaulaError:
        with pytest.raises(JaulaError) as raised:
            self.puller.pull(name, held)
        assert self.puller.left() == []
        return raised.value


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_mirror_serves_the_image_of_a_registry_that_is_not_contacted(
    node: Node, mirror: ScriptedRegistry
) -> None:
    node.write("r.invalid", f'[host."{mirror.url}"]\nheader = {{ X-Node = "n1" }}')
    image = node.puller.pull("r.invalid/box:1")
    assert image.names == ("r.invalid/box:1",)
    assert image.digests == (f"r.invalid/box@{digest(mirror.manifest)}",)
    for _, path, headers in mirror.seen:
        assert path.endswith("?ns=r.invalid")
        assert headers["x-node"] == "n1"
        assert "authorization" not in headers


def test_the_file_is_read_for_each_pull(
    node: Node, mirror: ScriptedRegistry, registry: ScriptedRegistry
) -> None:
    name = f"{registry.name}/box:1"
    node.puller.pull(name)
    assert registry.seen
    assert all("ns=" not in path for _, path, _ in registry.seen)
    node.write(registry.name, f'[host."{mirror.url}"]')
    registry.seen.clear()
    node.puller.pull(name)
    assert mirror.asked("/manifests/")
    assert registry.seen == []


def test_servers_are_tried_in_order(
    node: Node, mirror: ScriptedRegistry, registry: ScriptedRegistry
) -> None:
    mirror.scripts[mirror.manifest_path] = lambda request: request.answer(404)
    node.write(
        registry.name.replace(":", "_") + "_",
        f'[host."http://127.0.0.1:1"]\n[host."{mirror.url}"]',
    )
    node.puller.pull(f"{registry.name}/box:1")
    assert len(mirror.asked("/manifests/")) == 1
    assert mirror.asked("/blobs/") == []
    assert len(registry.asked("/blobs/")) == 3


def test_an_error_names_every_server(
    node: Node, mirror: ScriptedRegistry, registry: ScriptedRegistry
) -> None:
    mirror.scripts[mirror.manifest_path] = lambda request: request.answer(403)
    registry.scripts[registry.manifest_path] = lambda request: request.answer(404)
    node.write(registry.name, f'[host."http://127.0.0.1:1"]\n[host."{mirror.url}"]')
    error = node.failure(f"{registry.name}/box:1")
    assert isinstance(error, NotFound)  # the registry itself decides
    assert error.message.startswith(f"manifest for {registry.name}/box:1 not found: ")
    assert 'tried before: 127.0.0.1:1: Get "http://127.0.0.1:1/v2/?ns=' in error.message
    assert f"; {mirror.name}: " in error.message
    node.write("r.invalid", f'[host."{mirror.url}"]')
    error = node.failure("r.invalid/box:1")
    assert isinstance(error, Unreachable)
    assert f"tried before: {mirror.name}: " in error.message
    node.write("r.invalid", f'server = "{mirror.url}"')
    assert "tried before" not in node.failure("r.invalid/box:1").message


@pytest.mark.parametrize("damage", ["absent", "damaged", "short"])
def test_a_layer_that_a_mirror_lacks_comes_from_the_registry(
    node: Node, mirror: ScriptedRegistry, registry: ScriptedRegistry, damage: str
) -> None:
    data = mirror.layers[1]
    answers: dict[str, Script] = {
        "absent": lambda request: request.answer(404),
        "damaged": lambda request: request.answer(200, b"x" * len(data)),
        "short": lambda request: request.answer(200, data[:-1]),
    }
    mirror.scripts[mirror.blob_path(data)] = answers[damage]
    node.write(registry.name, f'[host."{mirror.url}"]')
    node.puller.pull(f"{registry.name}/box:1")
    assert len(mirror.asked("/manifests/")) == 1
    assert [path for _, path, _ in registry.seen if "/v2/box" in path] == [registry.blob_path(data)]


@pytest.mark.parametrize("what", ["manifest", "layer"])
def test_a_busy_mirror_is_asked_twice(
    node: Node, mirror: ScriptedRegistry, registry: ScriptedRegistry, what: str
) -> None:
    path = mirror.manifest_path if what == "manifest" else mirror.blob_path(mirror.layers[0])
    mirror.scripts[path] = lambda request: request.answer(503)
    node.write(registry.name, f'[host."{mirror.url}"]')
    node.puller.pull(f"{registry.name}/box:1")
    assert len(mirror.asked(path)) == 2
    assert len(registry.asked(path)) == 1


def test_a_configuration_that_a_mirror_lacks_comes_from_the_registry(
    node: Node, mirror: ScriptedRegistry, registry: ScriptedRegistry
) -> None:
    mirror.scripts[mirror.blob_path(mirror.config)] = lambda request: request.answer(404)
    node.write(registry.name, f'[host."{mirror.url}"]')
    node.puller.pull(f"{registry.name}/box:1")
    assert len(registry.asked(digest(registry.config))) == 1


def test_a_mirror_that_may_only_be_pulled_from_resolves_no_tag(
    node: Node, mirror: ScriptedRegistry, registry: ScriptedRegistry
) -> None:
    mirror.scripts[mirror.manifest_path] = lambda request: request.answer(200, b"forged", MANIFEST)
    node.write(registry.name, f'[host."{mirror.url}"]\ncapabilities = ["pull"]')
    image = node.puller.pull(f"{registry.name}/box:1")
    assert mirror.asked("/manifests/") == []
    assert len(mirror.asked("/blobs/")) == 3
    assert len(registry.asked("/manifests/")) == 1
    assert registry.asked("/blobs/") == []
    node.puller.store.remove(image.id, force=True)
    node.puller.pull(f"{registry.name}/box@{digest(registry.manifest)}")
    assert len(mirror.asked("/manifests/")) == 1  # by digest


def test_without_a_server_for_the_operation_the_error_names_the_file(
    node: Node, registry: ScriptedRegistry
) -> None:
    node.write(registry.name, 'capabilities = ["pull"]')
    error = node.failure(f"{registry.name}/box:1")
    assert error.message == f"no server of {registry.name} may resolve a tag"
    assert error.hint == f"see the capabilities in {node.top / registry.name / 'hosts.toml'}"
    node.write(registry.name, 'capabilities = ["push"]')
    error = node.failure(f"{registry.name}/box@{digest(registry.manifest)}")
    assert error.message == f"no server of {registry.name} may be pulled from"
    assert registry.seen == []


def test_a_bad_file_is_an_error_and_no_server_is_asked(
    node: Node, registry: ScriptedRegistry
) -> None:
    node.write(registry.name, "skip_verfiy = true")
    error = node.failure(f"{registry.name}/box:1")
    assert isinstance(error, InvalidRequest)
    assert f"{registry.name}/hosts.toml: skip_verfiy: unknown key" in error.message
    assert registry.seen == []


def test_a_mirror_has_its_own_authority_and_client_certificate(node: Node, keys: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(keys / "ca.crt")
    with ScriptedRegistry(layer("tls"), tls=context) as mirror:
        node.write("r.invalid", f'server = "{mirror.url}"\nskip_verify = false')
        assert "failed to verify certificate" in node.failure("r.invalid/box:1").message
        node.write("r.invalid", f'server = "{mirror.url}"\nca = "{keys}/ca.crt"')
        node.failure("r.invalid/box:1")  # the server requires a certificate
        for file, name in (("server.crt", "own.cert"), ("server.key", "own.key")):
            (node.top / "r.invalid" / name).write_bytes((keys / file).read_bytes())
        node.write(
            "r.invalid",
            f'server = "{mirror.url}"\nca = "{keys}/ca.crt"\nclient = [["own.cert", "own.key"]]',
        )
        node.puller.pull("r.invalid/box:1")
        both = (keys / "server.crt").read_bytes() + (keys / "server.key").read_bytes()
        (node.top / "r.invalid" / "both.pem").write_bytes(both)
        node.write("r.invalid", f'server = "{mirror.url}"\nskip_verify = true\nclient = "both.pem"')
        node.puller.pull("r.invalid/box:1")
        node.write("r.invalid", f'server = "{mirror.url}"\nca = "absent.pem"')
        with pytest.raises(InvalidRequest, match=r"the certificate .*/absent\.pem cannot be used"):
            node.puller.pull("r.invalid/box:1")


def test_a_mirror_gets_no_credentials_and_the_registry_gets_them(
    node: Node, mirror: ScriptedRegistry, registry: ScriptedRegistry
) -> None:
    for server in (mirror, registry):
        challenge = {"WWW_Authenticate": 'Basic realm="x"'}
        honest = server.honest

        def script(
            request: Request,
            honest: Script = honest,
            challenge: dict[str, str] = challenge,
        ) -> None:
            if request.headers.get("Authorization"):
                honest(request)
            else:
                request.answer(401, **challenge)

        server.honest = script  # type: ignore[method-assign]
    node.write(registry.name, f'[host."{mirror.url}"]')
    node.puller.pull(f"{registry.name}/box:1")
    assert all("authorization" not in headers for _, _, headers in mirror.seen)
    assert any("authorization" in headers for _, _, headers in registry.seen)
    registry.seen.clear()
    node.write(
        registry.name, f'[host."{mirror.url}"]\nheader = {{ Authorization = "Basic bTptbQ==" }}'
    )
    node.puller.pull(f"{registry.name}/box:1")
    assert {headers["authorization"] for _, _, headers in mirror.seen[-2:]} == {"Basic bTptbQ=="}
    assert registry.seen == []


def test_headers_do_not_follow_a_redirect_to_another_server(
    node: Node, mirror: ScriptedRegistry, registry: ScriptedRegistry
) -> None:
    data = mirror.layers[0]
    mirror.scripts[mirror.blob_path(data)] = lambda request: request.answer(
        307, Location=registry.url + registry.blob_path(data)
    )
    node.write("r.invalid", f'server = "{mirror.url}"\nheader = {{ Authorization = "secret" }}')
    node.puller.pull("r.invalid/box:1")
    [headers] = registry.asked("/blobs/")
    assert "secret" not in headers.values()


def test_the_root_of_the_api_may_be_another_path(node: Node, mirror: ScriptedRegistry) -> None:
    def proxy(request: Request, prefix: str) -> None:
        assert request.path.startswith(prefix), request.path
        request.path = "/v2" + request.path.removeprefix(prefix)
        ScriptedRegistry.honest(mirror, request)

    mirror.honest = lambda request: proxy(request, "/cache/v2")  # type: ignore[method-assign]
    node.write("r.invalid", f'server = "{mirror.url}/cache"')
    image = node.puller.pull("r.invalid/box:1")
    node.puller.store.remove(image.id, force=True)
    mirror.honest = lambda request: proxy(request, "/v2/hub")  # type: ignore[method-assign]
    node.write("r.invalid", f'server = "{mirror.url}/v2/hub"\noverride_path = true')
    node.puller.pull("r.invalid/box:1")


def test_a_server_that_does_not_answer_is_left_after_its_timeout(
    node: Node, registry: ScriptedRegistry
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        node.write(registry.name, f'[host."https://127.0.0.1:{port}"]\ndial_timeout = "200ms"')
        began = time.monotonic()
        node.puller.pull(f"{registry.name}/box:1")
        assert time.monotonic() - began < node.puller.timeouts.connect


def test_an_image_is_pushed_to_the_server_with_this_capability(
    node: Node, tmp_path: Path, mirror: ScriptedRegistry, keys: Path
) -> None:
    directory = tmp_path / "registry"
    directory.mkdir()
    for file in ("ca.crt", "server.crt", "server.key"):
        (directory / file).write_bytes((keys / file).read_bytes())
    with Registry(directory, tls=True) as target:
        node.write("r.invalid", f'server = "{mirror.url}"')
        node.puller.pull("r.invalid/box:1")
        requests = len(mirror.seen)
        node.write(
            "r.invalid",
            f'[host."{mirror.url}"]\n'
            f'[host."https://{target.name}"]\ncapabilities = ["push"]\nca = "{keys}/ca.crt"',
        )
        [pushed] = push(
            PushRequest(node.puller.client, parse("r.invalid/box:1"), HELD, print, Cancellation())
        )
        assert len(mirror.seen) == requests
        # and back, from the distribution project's server by TLS
        node.puller.store.remove("r.invalid/box:1", force=True)
        node.write("r.invalid", f'server = "https://{target.name}"\nca = "{keys}/ca.crt"')
        assert node.puller.pull("r.invalid/box:1").manifest == pushed.digest
