"""Contexts: named endpoints, stored where Docker stores them, so that both clients see the same.

Source: docker/cli ``cli/context/store``. ``contexts/meta/<sha256 of the name>/meta.json`` is the
document of a context, ``contexts/tls/<same>/docker/`` holds ``ca.pem``, ``cert.pem`` and
``key.pem``. The current context is ``currentContext`` in Docker's ``config.json``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from hashlib import sha256
from typing import Any, NamedTuple

from jaula.cli.cli_errors import CliError
from jaula.cli.client import engine_address
from jaula.cli.client.client_tls import TlsOptions
from jaula.cli.client.engine_address import DEFAULT, TLS_FILES, Endpoint
from jaula.errors import InvalidRequest
from jaula.images.registry.auth.credentials import CredentialFile

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+", re.ASCII)
ENDPOINT = "docker"
MAX_SIZE = 1 << 20  # bytes of a document, and of a PEM file
_KEYS = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


class Context(NamedTuple):
    """One context. ``files`` are its PEM files by name.

    ``raw`` is the stored document. Fields that other programs wrote into it are preserved.
    """

    name: str
    description: str = ""
    host: str = ""
    skip_verify: bool = False
    files: dict[str, bytes] = {}
    raw: dict[str, Any] = {}

    def document(self) -> dict[str, Any]:
        """Return the document for ``meta.json``."""
        metadata, endpoints = _table(self.raw, "Metadata"), _table(self.raw, "Endpoints")
        metadata.pop("Description", None)
        if self.description:
            metadata["Description"] = self.description
        endpoints[ENDPOINT] = {"Host": self.host, "SkipTLSVerify": self.skip_verify}
        return self.raw | {"Name": self.name, "Metadata": metadata, "Endpoints": endpoints}


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a copy of a member that is an object, or an empty dictionary."""
    member = document.get(key)
    return dict(member) if isinstance(member, dict) else {}


def check_name(name: str) -> str:
    """Return ``name``.

    :raises CliError: when it is not a valid name for a new context.
    """
    if name == DEFAULT:
        raise CliError('"default" is a reserved context name')
    if not NAME.fullmatch(name):
        raise CliError(
            f'context name "{name}" is invalid, names are validated against regexp '
            '"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )
    return name


def meta_path(name: str) -> str:
    """Return the directory of a context's document."""
    return os.path.join(_directory(), "meta", sha256(name.encode()).hexdigest())


def tls_path(name: str) -> str:
    """Return the directory of a context's PEM files."""
    return os.path.join(_directory(), "tls", sha256(name.encode()).hexdigest())


def _directory() -> str:
    return os.path.join(engine_address.config_directory(), "contexts")


def names() -> list[str]:
    """Return the names of all contexts but the default one, sorted."""
    result = []
    try:
        entries = os.listdir(os.path.join(_directory(), "meta"))
    except FileNotFoundError:
        return []
    for entry in entries:
        document = _read(os.path.join(_directory(), "meta", entry, "meta.json"))
        name = document.get("Name") if document else None
        if isinstance(name, str) and sha256(name.encode()).hexdigest() == entry:
            result.append(name)
    return sorted(result)


def exists(name: str) -> bool:
    """Return whether there is a context of that name; the default context does not count."""
    return os.path.exists(os.path.join(meta_path(name), "meta.json"))


def load(name: str) -> Context:
    """Return one context, also the default one.

    :raises CliError: when there is no such context, in Docker's words.
    """
    if name == DEFAULT:
        host = os.environ.get(engine_address.host_variable()) or engine_address.default_host()
        return Context(DEFAULT, "Current DOCKER_HOST based configuration", host)
    path = os.path.join(meta_path(name), "meta.json")
    document = _read(path)
    if document is None:
        raise CliError(
            f'context "{name}": context not found: open {path}: no such file or directory'
        )
    endpoint = _table(_table(document, "Endpoints"), ENDPOINT)
    return Context(
        name,
        str(_table(document, "Metadata").get("Description") or ""),
        str(endpoint.get("Host") or ""),
        endpoint.get("SkipTLSVerify") is True,
        _files(name),
        document,
    )


def _read(path: str) -> dict[str, Any] | None:
    """Return the document at ``path``, or None if the file is absent.

    :raises CliError: when the file cannot be read or is not JSON.
    """
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(MAX_SIZE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError, OSError) as error:
        raise CliError(f"context {path}: {getattr(error, 'strerror', None) or error}") from None
    return document if isinstance(document, dict) else {}


def _files(name: str) -> dict[str, bytes]:
    files = {}
    for file_name in TLS_FILES:
        try:
            with open(os.path.join(tls_path(name), ENDPOINT, file_name), "rb") as file:
                files[file_name] = file.read(MAX_SIZE)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return files


def save(context: Context) -> None:
    """Store a context; an existing one of the same name is replaced."""
    meta, tls = meta_path(context.name), tls_path(context.name)
    os.makedirs(meta, mode=0o755, exist_ok=True)
    shutil.rmtree(os.path.join(tls, ENDPOINT), ignore_errors=True)
    for file_name, data in context.files.items():
        os.makedirs(os.path.join(tls, ENDPOINT), mode=0o700, exist_ok=True)
        _write(os.path.join(tls, ENDPOINT, file_name), data, 0o600)
    text = json.dumps(context.document(), separators=(",", ":"))
    _write(os.path.join(meta, "meta.json"), text.encode(), 0o644)


def _write(path: str, data: bytes, mode: int) -> None:
    from jaula.kernel.syncfs import write_durable

    write_durable(path, data, mode)


def remove(name: str) -> None:
    """Delete a context and its PEM files."""
    shutil.rmtree(meta_path(name), ignore_errors=True)
    shutil.rmtree(tls_path(name), ignore_errors=True)


def configured_name() -> str:
    """Return the context name in Docker's configuration file."""
    name = _configuration().document().get("currentContext")
    return name if isinstance(name, str) and name else DEFAULT


def use(name: str) -> None:
    """Write the context name into Docker's configuration file."""
    file = _configuration()
    try:
        document = file.document()
        document.pop("currentContext", None)
        if name != DEFAULT:
            document["currentContext"] = name
        file.replace(document)
    except InvalidRequest as error:
        raise CliError(str(error)) from None


def _configuration() -> CredentialFile:
    return CredentialFile(os.path.join(engine_address.config_directory(), "config.json"))


def parse_endpoint(text: str) -> Context:
    """Return an unnamed context for a ``--docker`` flag.

    The value is ``host=...,ca=...,cert=...,key=...,skip-tls-verify=true``.

    :raises CliError: when a key is unknown or a file cannot be read.
    """
    values: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in ("host", "skip-tls-verify", "from", *_KEYS):
            unknown = key if equals else part
            raise CliError(
                f"unable to create docker endpoint config: {unknown}: unrecognized config key"
            )
        values[key] = value
    if "from" in values:
        return load(values["from"])
    skip = values.get("skip-tls-verify", "false")
    if skip.lower() not in ("true", "false", "1", "0"):
        raise CliError(f'unable to create docker endpoint config: skip-tls-verify: "{skip}"')
    files = {}
    for key, file_name in _KEYS.items():
        if values.get(key):
            files[file_name] = _pem(values[key])
    return Context("", "", values.get("host", ""), skip.lower() in ("true", "1"), files)


def _pem(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_SIZE)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CliError(f"unable to create docker endpoint config: open {path}: {reason}") from None


def resolve(name: str) -> Endpoint:
    """Return the endpoint of a context.

    :raises CliError: when the context cannot be read.
    """
    try:
        context = load(name)
    except CliError as error:
        raise CliError(
            f"Failed to initialize: unable to resolve docker endpoint: {error.message}"
        ) from None
    if not context.host:
        return Endpoint()
    directory = os.path.join(tls_path(name), ENDPOINT)
    paths = [os.path.join(directory, n) if n in context.files else "" for n in TLS_FILES]
    if not any(paths) and not context.skip_verify:
        return Endpoint(context.host)
    if context.host.startswith(("unix://", "ssh://")):
        return Endpoint(context.host)
    authority, certificate, key = paths
    return Endpoint(
        context.host, TlsOptions(authority, certificate, key, verify=not context.skip_verify)
    )
