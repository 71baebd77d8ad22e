"""``jaula web``: the engine in a browser."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, EngineError, Unreachable
from jaula.cli.command_parser import Command, Flag, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.features.web.web_config import WebConfig

MISSING = "the web view needs the Python packages starlette and uvicorn"
_PROBE_SECONDS = 1.0


def run(options: Options) -> int:
    """Open a web view that runs, or run one until a signal."""
    from jaula.cli import site_packages

    site_packages.enable()
    if options.on("open") and not options.is_set("listen"):
        link = _link()
        if link:
            _open(link)
            return 0
    return _serve(options)


def _link() -> str:
    """Return a link to the web view that serves the engine, empty if there is none."""
    import socket
    from urllib.parse import urlsplit

    from jaula.cli.client.api_client import Client
    from jaula.cli.main import Settings

    try:
        url = str(Client(Settings.host).document("POST", "/jaula/web/links")["Url"])
    except EngineError as error:
        if error.status == 404:
            return ""
        raise
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), _PROBE_SECONDS).close()
    except OSError:
        return ""  # it has ended
    return url


def _open(link: str) -> None:
    """Print a link, and show it in a browser if this session has a screen.

    Each user of the host can read the arguments of a program, so the browser gets the name of a
    private file that leads to the link.
    """
    import os
    import shutil
    import subprocess
    import sys

    print(link, flush=True)
    has_screen = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    opener = shutil.which("xdg-open")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if has_screen and opener and runtime and os.geteuid() != 0:  # no browser of root
        try:
            page = _page(runtime, link)
        except OSError as error:
            print(f"jaula: cannot open a browser: {error}", file=sys.stderr)
            return
        subprocess.Popen(
            [opener, page],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def _page(directory: str, link: str) -> str:
    """Write the page that leads to a link, for this user only, and return its path."""
    import html
    import os

    path = os.path.join(directory, "jaula-web-link.html")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        target = html.escape(link)
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={target}">')
    return path


def _serve(options: Options) -> int:
    import ctypes
    import logging
    import sys

    from jaula.cli.client.api_client import Client
    from jaula.cli.main import Settings
    from jaula.errors import JaulaError

    client = Client(Settings.host)
    address = client.address
    if not address.text.startswith("unix://"):
        raise CliError(
            f"the web view needs the unix socket of an engine on this host, not {address.text}"
        )
    try:
        from jaula.features.web.web_server import WebServer
    except ModuleNotFoundError as error:
        if error.name in ("starlette", "uvicorn"):
            from jaula import extras

            raise CliError(f"{MISSING}: {extras.instruction('web')}") from None
        raise
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    ctypes.CDLL(None).prctl(15, b"jaula-web", 0, 0, 0)  # PR_SET_NAME: the name in the audit log
    child = options.on("until-stdin-ends")
    if not child:
        try:
            client.request("GET", "/_ping")  # as with every command, an absent engine is started
        except Unreachable as error:
            print(f"jaula: {error}\njaula: the web view waits for the engine", file=sys.stderr)

    def ready(link: str) -> None:
        if child:
            logging.getLogger("jaula.features.web").info("web view on %s", server.url)
        elif options.on("open"):
            _open(link)
        else:
            how = f"within 60 seconds: {link}" if link else "with: jaula web --open"
            print(f"web view on {server.url}, log in {how}", flush=True)

    try:
        server = WebServer(_config(options), address.text.removeprefix("unix://"))
        server.run(ready, link=options.on("open"), until_stdin_ends=child)
    except JaulaError as error:
        raise CliError(f"jaula: {error}", status=error.exit_code) from None
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 0


def _config(options: Options) -> WebConfig:
    import os

    import msgspec

    from jaula import trusted_file
    from jaula.features.web import web_config

    path, required = options.text("config"), options.is_set("config")
    data = None
    if required or os.geteuid() == 0:  # the default file is for root's view
        data = trusted_file.read(path, web_config.MAX_SIZE, "configuration file", required=required)
    settings = web_config.WebConfig() if data is None else web_config.parse(data, path)
    if options.is_set("listen"):
        settings = msgspec.structs.replace(settings, listen=options.text("listen"))
    return settings


COMMAND = Command(
    "[OPTIONS]",
    "Show the engine in a browser",
    run,
    flags=(
        Flag("open", "", "bool", "Print a link that logs you in once, and open it"),
        Flag(
            "listen",
            "",
            "string",
            "Address to listen on (ADDRESS:PORT)",
            default="127.0.0.1:8320",
        ),
        Flag(
            "config",
            "",
            "string",
            "Settings: TLS, client certificates, OpenID Connect",
            default="/etc/jaula/web.toml",
            completes="file",
        ),
        Flag("until-stdin-ends", "", "bool", "End when the standard input does"),
    ),
    max_args=0,
    description=(
        "Runs a web view of the engine until Ctrl+C. It is a process of its own that speaks the"
        " engine's API. Each user of it has the rights that the policy gives to this user, and each"
        " action is in the audit log.\n\n"
        "With --open, a view that runs already is used: the link is valid once, for 60 seconds, and"
        " for the user who runs the command."
    ),
    examples=(
        ("Show the engine in your browser", "jaula web --open"),
        ("Run the engine with its web view", "jaula daemon --web 127.0.0.1:8320"),
    ),
    see_also=("daemon", "system audit-log"),
)
