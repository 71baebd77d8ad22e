"""Which engine a command talks to: options, then the environment, then the context in use.

Source: docker docs, "Docker contexts" and "Use the Docker command line", environment variables.
``JAULA_HOST`` goes before ``DOCKER_HOST``. ``--host`` and the variables win over a context that the
environment or the configuration names.
"""

from __future__ import annotations

from posix import geteuid

from jaula.cli.environ import text as variable
from jaula.cli.errors import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.client.tls import TlsOptions

SYSTEM_HOST = "unix:///run/jaula/jaula.sock"
DEFAULT = "default"
TLS_FILES = ("ca.pem", "cert.pem", "key.pem")


class ConnectionOptions:
    """The options before the command."""

    host = ""
    context = ""
    tls = False
    tlsverify: bool | None = None  # None: as the environment says
    tlscacert = ""
    tlscert = ""
    tlskey = ""


class Endpoint:
    """An address, empty for this host's own engine, and how to speak with it."""

    def __init__(self, host: str = "", security: TlsOptions | None = None) -> None:
        self.host = host
        self.security = security


def host_variable() -> str:
    """The variable that wins over any context that is not named on the command line."""
    return next((name for name in ("JAULA_HOST", "DOCKER_HOST") if variable(name)), "")


def current_context() -> str:
    """The name of the context in use."""
    if ConnectionOptions.context:
        return ConnectionOptions.context
    if host_variable():
        return DEFAULT
    return variable("DOCKER_CONTEXT") or _configured() or DEFAULT


def default_host() -> str:
    """Root's engine, or for an ordinary user the one that :mod:`jaula.rootless.paths` names.

    Raises Unreachable where that one's directory could be another user's.
    """
    if geteuid() == 0:
        return SYSTEM_HOST
    from jaula.rootless import paths

    socket = paths.socket()
    parent = socket.rpartition("/")[0]
    if parent != paths.SYSTEM_RUN and not paths.is_trusted(parent):
        raise Unreachable(
            f"{parent} is not this user's alone, so an engine there could be anybody's: remove "
            "it, or set XDG_RUNTIME_DIR"
        )
    return "unix://" + socket


def config_directory() -> str:
    """Docker's directory of this person."""
    return variable("DOCKER_CONFIG") or (variable("HOME") or "/root") + "/.docker"


def _configured() -> str:
    try:
        with open(config_directory() + "/config.json", "rb") as file:
            data = file.read(1 << 20)
    except OSError:
        return ""
    if b"currentContext" not in data:
        return ""
    from jaula.spec.fast_json import decode

    try:
        found = decode(data)
    except ValueError:
        return ""  # who has to do with the file's other content says so
    name = found.get("currentContext") if isinstance(found, dict) else ""
    return name if isinstance(name, str) else ""


def is_tcp(host: str) -> bool:
    """Return whether ``host`` is reached by TCP (not a unix socket, not ssh)."""
    return bool(host) and not host.startswith(("unix://", "ssh://", "/"))


def tls_options() -> TlsOptions | None:
    """TLS as the options and the environment want it; None for none."""
    verify = (
        bool(variable("DOCKER_TLS_VERIFY"))
        if ConnectionOptions.tlsverify is None
        else ConnectionOptions.tlsverify
    )
    given = (ConnectionOptions.tlscacert, ConnectionOptions.tlscert, ConnectionOptions.tlskey)
    if not (verify or ConnectionOptions.tls or variable("DOCKER_TLS") or any(given)):
        return None
    from os import path

    from jaula.cli.client.tls import TlsOptions as TlsTlsOptions

    place = variable("DOCKER_CERT_PATH") or config_directory()
    usual = [f"{place}/{name}" for name in TLS_FILES]
    authority, certificate, key = (
        asked or (name if path.exists(name) or (verify and number == 0) else "")
        for number, (asked, name) in enumerate(zip(given, usual, strict=True))
    )
    return TlsTlsOptions(authority, certificate, key, verify=verify)
