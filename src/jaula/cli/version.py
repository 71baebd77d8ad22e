"""``jaula version``."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import API, Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(options: Options) -> int:
    """Print the versions of client and engine; 1 if no engine answers."""
    import platform

    from jaula import __version__

    client: dict[str, Any] = {
        "Version": __version__,
        "ApiVersion": API.removeprefix("/v"),
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
    }
    server, failure = None, None
    try:
        server = Client(Settings.host).get("/version")
    except CliError as error:
        failure = error
    output_format = options.text("format")
    document = {"Client": client, "Server": server}
    if output_format == "json":
        from jaula.spec.fast_json import encode

        print(encode(document))
    elif output_format:
        from jaula.cli.output.template import Template, unescape

        print(Template(unescape(output_format)).render(document))
    else:
        print(_client(client) + ("\n" + _server(server) if server else ""))
    if failure:
        raise failure
    return 0


def _client(client: dict[str, Any]) -> str:
    return (
        "Client:\n"
        f" Version:           {client['Version']}\n"
        f" API version:       {client['ApiVersion']}\n"
        f" Python version:    {client['PythonVersion']}\n"
        f" OS/Arch:           {client['Os']}/{client['Arch']}\n"
    )


def _server(server: dict[str, Any]) -> str:
    lines = ["Server:"]
    components = server.get("Components") or [
        {"Name": "Engine", "Version": server["Version"], "Details": server}
    ]
    for component in components:
        details = component.get("Details") or {}
        rows = [("Version", component["Version"])]
        if "ApiVersion" in details:
            minimum = details.get("MinAPIVersion") or server.get("MinAPIVersion", "")
            rows += [
                ("API version", f"{details['ApiVersion']} (minimum version {minimum})"),
                ("OS/Arch", f"{details.get('Os', '')}/{details.get('Arch', '')}"),
                ("Kernel", details.get("KernelVersion", "")),
            ]
        rows += [
            (name, text)
            for name, text in details.items()
            if name in ("PythonVersion", "GitCommit", "BuildTime") and text
        ]
        lines.append(f" {component['Name']}:")
        lines += [f"  {name + ':':<17} {text}".rstrip() for name, text in rows]
    return "\n".join(lines)


COMMAND = Command(
    "[OPTIONS]",
    "Show the version of the client and of the engine",
    run,
    flags=(
        Flag(
            "format",
            "f",
            "string",
            "Format output using a custom template (json, or a Go template)",
        ),
    ),
    max_args=0,
    description="Also prints the API version that the engine supports.",
    examples=(("Print the engine's version", "jaula version -f '{{.Server.Version}}'"),),
    see_also=("info",),
)
