"""Endpoint selection, contexts and TLS files."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from jaula.cli import environ
from jaula.cli.cli_errors import CliError
from jaula.cli.client import context_archive, contexts, engine_address
from jaula.cli.client.api_client import resolve_endpoint
from jaula.cli.client.client_tls import TlsOptions
from jaula.cli.client.contexts import Context
from jaula.cli.client.engine_address import ConnectionOptions

VARIABLES = (
    *("JAULA_HOST", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY"),
    *("DOCKER_CERT_PATH", "DOCKER_CONFIG", "HOME"),
)


class Environment:
    """The environment variables and global options of a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self._monkeypatch = monkeypatch
        self.directory = directory

    def variables(self, **given: str) -> None:
        for name, value in given.items():
            self._monkeypatch.setitem(os.environ, name, value)
            self._monkeypatch.setitem(environ.environ, name.encode(), value.encode())

    def options(self, **given: object) -> None:
        for name, value in given.items():
            self._monkeypatch.setattr(ConnectionOptions, name, value)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Environment:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delitem(environ.environ, name.encode(), raising=False)
    result = Environment(monkeypatch, tmp_path)
    result.options(host="", context="", tls=False, tlsverify=None)
    result.options(tlscacert="", tlscert="", tlskey="")
    result.variables(DOCKER_CONFIG=str(tmp_path))
    return result


def test_the_default_is_the_local_engine(given: Environment) -> None:
    result = resolve_endpoint()
    assert (result.host, result.security, engine_address.current_context()) == ("", None, "default")


def test_options_override_variables_and_contexts(given: Environment) -> None:
    contexts.save(Context("used", host="unix:///used"))
    contexts.save(Context("named", host="unix:///named"))
    contexts.save(Context("asked", host="unix:///asked"))
    contexts.use("used")
    assert resolve_endpoint().host == "unix:///used"
    given.variables(DOCKER_CONTEXT="named")
    assert resolve_endpoint().host == "unix:///named"
    given.variables(DOCKER_HOST="unix:///docker")
    assert resolve_endpoint().host == "unix:///docker"
    assert engine_address.current_context() == "default"
    given.variables(JAULA_HOST="unix:///jaula")
    assert resolve_endpoint().host == "unix:///jaula"
    given.options(context="asked")
    assert resolve_endpoint().host == "unix:///asked"
    given.options(host="unix:///host")
    with pytest.raises(CliError, match="either specify --host or --context"):
        resolve_endpoint()
    given.options(context="")
    assert resolve_endpoint().host == "unix:///host"


def test_tls_options_apply_to_tcp_only(given: Environment, tmp_path: Path) -> None:
    place = tmp_path / "certs"
    place.mkdir()
    given.variables(DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(place))
    assert resolve_endpoint("unix:///x").security is None
    ca = str(place / "ca.pem")
    assert resolve_endpoint("tcp://h:1").security == TlsOptions(ca, "", "", verify=True)
    for name in ("cert.pem", "key.pem"):
        (place / name).touch()
    result = resolve_endpoint("tcp://h:1").security
    assert result == TlsOptions(ca, str(place / "cert.pem"), str(place / "key.pem"), verify=True)
    given.options(tlsverify=False)
    assert resolve_endpoint("tcp://h:1").security is None
    given.options(tls=True, tlscacert="/other")
    result = resolve_endpoint("tcp://h:1").security
    assert result is not None
    assert (result.authority, result.verify) == ("/other", False)


def test_a_context_has_its_certificates(given: Environment) -> None:
    files = {"ca.pem": b"a", "cert.pem": b"b", "key.pem": b"c"}
    contexts.save(Context("far", "text", "tcp://h:1", False, files))
    result = contexts.resolve("far")
    assert result.security is not None
    assert Path(result.security.key).read_bytes() == b"c"
    assert Path(result.security.key).stat().st_mode & 0o777 == 0o600
    assert result.security.verify
    assert contexts.load("far").files == files
    contexts.save(contexts.load("far")._replace(files={}))
    assert contexts.resolve("far").security is None


def test_the_store_is_dockers(given: Environment) -> None:
    contexts.save(Context("one", "first", "tcp://h:1", True))
    # sha256 of "one", as docker/cli has it
    place = given.directory / "contexts/meta"
    place /= "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert json.loads((place / "meta.json").read_text()) == {
        "Name": "one",
        "Metadata": {"Description": "first"},
        "Endpoints": {"docker": {"Host": "tcp://h:1", "SkipTLSVerify": True}},
    }
    (given.directory / "config.json").write_text('{"auths": {"x": {}}, "HttpHeaders": {"a": "b"}}')
    contexts.use("one")
    document = json.loads((given.directory / "config.json").read_text())
    assert document == {"auths": {"x": {}}, "HttpHeaders": {"a": "b"}, "currentContext": "one"}
    contexts.use("default")
    assert "currentContext" not in json.loads((given.directory / "config.json").read_text())


def test_fields_of_other_programs_are_preserved(given: Environment) -> None:
    contexts.save(Context("one", "text", "unix:///x"))
    path = Path(contexts.meta_path("one")) / "meta.json"
    document = json.loads(path.read_text())
    document["Metadata"]["Team"] = "red"
    document["Endpoints"]["kubernetes"] = {"Host": "https://k"}
    path.write_text(json.dumps(document))
    contexts.save(contexts.load("one")._replace(description="", host="unix:///y"))
    document["Endpoints"]["docker"]["Host"] = "unix:///y"
    del document["Metadata"]["Description"]
    assert json.loads(path.read_text()) == document


def _damage(content: str) -> None:
    contexts.save(Context("one", host="unix:///x"))
    (Path(contexts.meta_path("one")) / "meta.json").write_text(content)


@pytest.mark.parametrize("content", ["", "{", "\0"])
def test_a_damaged_store_is_one_clear_error(given: Environment, content: str) -> None:
    _damage(content)
    with pytest.raises(CliError, match=r"meta\.json"):
        contexts.load("one")


@pytest.mark.parametrize("content", ["[]", '{"Endpoints": 5}', '{"Name": ["one"]}'])
def test_a_document_without_an_endpoint_has_no_host(given: Environment, content: str) -> None:
    _damage(content)
    assert contexts.load("one").host == ""


@pytest.mark.parametrize("name", ["", "a", "a b", "../x", "a/b", "default", "a\n", "-x"])
def test_invalid_names_are_refused(given: Environment, name: str) -> None:
    with pytest.raises(CliError):
        contexts.check_name(name)


def _tar(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def test_an_exported_context_can_be_imported(given: Environment) -> None:
    context = Context("one", "text", "tcp://h:1", True, {"ca.pem": b"a", "key.pem": b"k"})
    again = context_archive.unpack(context_archive.pack(context))
    assert again._replace(raw={}) == context._replace(name="")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", json.dumps(context.document()))
        archive.writestr("tls/docker/ca.pem", b"a")
    assert context_archive.unpack(packed.getvalue()).files == {"ca.pem": b"a"}


def test_an_archive_without_its_last_blocks_is_read(given: Environment) -> None:
    """As Docker writes it."""
    whole = context_archive.pack(Context("one", host="tcp://h:1", files={"key.pem": b"k" * 100}))
    end = whole.rindex(b"k" * 100) + 100
    assert context_archive.unpack(whole[:end]).files == {"key.pem": b"k" * 100}


META = json.dumps(Context("x", host="tcp://h:1").document()).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04nonsense",
        b"root:x:0:0",
        _tar(("meta.json", b"{")),
        _tar(("meta.json", b"[]")),
        _tar(("meta.json", b"{}")),
        _tar(("meta.json", META), ("../../etc/passwd", b"x")),
        _tar(("meta.json", META), ("tls/docker/../../x", b"x")),
        _tar(("tls/docker/ca.pem", b"x")),
        bytes(context_archive.MAX_SIZE + 1),
    ],
)
def test_a_hostile_archive_is_one_clear_error(given: Environment, data: bytes) -> None:
    with pytest.raises(CliError):
        context_archive.unpack(data)
    assert not (given.directory / "contexts").exists()


def test_a_zip_bomb_is_refused(given: Environment) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.json", b" " * (50 << 20))
    with pytest.raises(CliError, match="too large"):
        context_archive.unpack(packed.getvalue())
