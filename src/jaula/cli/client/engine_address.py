"""The values that select an engine: global options, environment, configuration file.

Source: docker docs, "Docker contexts" and "Use the Docker command line", environment variables.
``JAULA_HOST`` takes precedence over ``DOCKER_HOST``. ``--host`` and the variables override a
context that the environment or the configuration file selects.
"""

from __future__ import annotations

from posix import geteuid

from jaula.cli.cli_errors import Unreachable
from jaula.cli.environ import text as variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.client.client_tls import TlsOptions

SYSTEM_HOST = "unix:///run/jaula/jaula.sock"
DEFAULT = "default"
TLS_FILES = ("ca.pem", "cert.pem", "key.pem")


class ConnectionOptions:
    """The global options that select the connection."""

    host = ""
    context = ""
    tls = False
    tlsverify: bool | None = None  # None: not set, the environment decides
    tlscacert = ""
    tlscert = ""
    tlskey = ""


class Endpoint:
    """An address (empty: the default socket of this host) and its TLS options."""

    def __init__(self, host: str = "", security: TlsOptions | None = None) -> None:
        self.host = host
        self.security = security


def host_variable() -> str:
    """Return the variable that overrides the context, or an empty string.

    A context named on the command line is not overridden.
    """
    return next((name for name in ("JAULA_HOST", "DOCKER_HOST") if variable(name)), "")


def current_context() -> str:
    """Return the name of the context in use."""
    if ConnectionOptions.context:
        return ConnectionOptions.context
    if host_variable():
        return DEFAULT
    return variable("DOCKER_CONTEXT") or _configured_context() or DEFAULT


def default_host() -> str:
    """Return the socket of root's or of the rootless engine (:mod:`jaula.rootless.xdg_paths`).

    :raises Unreachable: when another user could have created the directory of the socket.
    """
    if geteuid() == 0:
        return SYSTEM_HOST
    from jaula.rootless import xdg_paths

    socket = xdg_paths.socket()
    parent = socket.rpartition("/")[0]
    if parent != xdg_paths.SYSTEM_RUN and not xdg_paths.is_trusted(parent):
        raise Unreachable(
            f"{parent} is not owned by this user alone, so another user could run the engine "
            "there: remove it, or set XDG_RUNTIME_DIR"
        )
    return "unix://" + socket


def config_directory() -> str:
    """Return Docker's configuration directory of this user."""
    return variable("DOCKER_CONFIG") or (variable("HOME") or "/root") + "/.docker"


def _configured_context() -> str:
    try:
        with open(config_directory() + "/config.json", "rb") as file:
            data = file.read(1 << 20)
    except OSError:
        return ""
    if b"currentContext" not in data:
        return ""
    from jaula.spec.fast_json import decode

    try:
        document = decode(data)
    except ValueError:
        return ""  # commands that use the rest of the file report the error
    name = document.get("currentContext") if isinstance(document, dict) else ""
    return name if isinstance(name, str) else ""


def is_tcp(host: str) -> bool:
    """Return whether ``host`` is reached by TCP (not a unix socket, not ssh)."""
    return bool(host) and not host.startswith(("unix://", "ssh://", "/"))


def tls_options() -> TlsOptions | None:
    """Return TLS options from the command line and the environment, or None for no TLS."""
    verify = (
        bool(variable("DOCKER_TLS_VERIFY"))
        if ConnectionOptions.tlsverify is None
        else ConnectionOptions.tlsverify
    )
    paths = (ConnectionOptions.tlscacert, ConnectionOptions.tlscert, ConnectionOptions.tlskey)
    if not (verify or ConnectionOptions.tls or variable("DOCKER_TLS") or any(paths)):
        return None
    from os import path

    from jaula.cli.client.client_tls import TlsOptions

    directory = variable("DOCKER_CERT_PATH") or config_directory()
    defaults = [f"{directory}/{name}" for name in TLS_FILES]
    authority, certificate, key = (
        path_option or (name if path.exists(name) or (verify and number == 0) else "")
        for number, (path_option, name) in enumerate(zip(paths, defaults, strict=True))
    )
    return TlsOptions(authority, certificate, key, verify=verify)
