"""``jaula info``."""

from __future__ import annotations

import sys

from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.spec import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(options: Options) -> int:
    """Print the engine's information; warnings go to standard error."""
    info = Client(Settings.host).get("/info")
    output_format = options.text("format")
    if output_format:
        from jaula.cli.output.template import Template, unescape
        from jaula.spec.fast_json import encode

        print(
            encode(info)
            if output_format == "json"
            else Template(unescape(output_format)).render(info)
        )
        return 0
    print("\n".join(text(info)))
    sys.stdout.flush()
    for warning in info.get("Warnings") or ():
        sys.stderr.write(warning + "\n")
    return 0


def text(info: dict[str, Any]) -> list[str]:
    """Return the lines for one document of ``GET /info``."""
    from jaula import __version__

    lines = ["Client:", f" Version:    {__version__}", "", "Server:"]
    lines += [
        f" Containers: {info['Containers']}",
        f"  Running: {info['ContainersRunning']}",
        f"  Paused: {info['ContainersPaused']}",
        f"  Stopped: {info['ContainersStopped']}",
        f" Images: {info['Images']}",
        f" Server Version: {info['ServerVersion']}",
        f" Storage Driver: {info['Driver']}",
    ]
    lines += [f"  {name}: {value}" for name, value in info.get("DriverStatus") or ()]
    lines += [
        f" Logging Driver: {info['LoggingDriver']}",
        f" Cgroup Driver: {info['CgroupDriver']}",
        f" Cgroup Version: {info.get('CgroupVersion') or '1'}",
        " Plugins:",
    ]
    plugins = info.get("Plugins") or {}
    lines += [
        f"  {name}: {' '.join(plugins[name])}"
        for name in ("Volume", "Network", "Log")
        if plugins.get(name)
    ]
    if info.get("Runtimes"):
        lines.append(f" Runtimes: {' '.join(sorted(info['Runtimes']))}")
        lines.append(f" Default Runtime: {info.get('DefaultRuntime', '')}")
    if info.get("InitBinary"):
        lines.append(f" Init Binary: {info['InitBinary']}")
    lines += _security(info.get("SecurityOptions") or [])
    lines += [
        f" Kernel Version: {info['KernelVersion']}",
        f" Operating System: {info['OperatingSystem']}",
        f" OSType: {info['OSType']}",
        f" Architecture: {info['Architecture']}",
        f" CPUs: {info['NCPU']}",
        f" Total Memory: {units.bytes_size(info['MemTotal'])}",
        f" Name: {info['Name']}",
        f" ID: {info['ID']}",
        f" Root Dir: {info['DockerRootDir']}",
        f" Debug Mode: {'true' if info.get('Debug') else 'false'}",
    ]
    lines += _registries(info)
    return [
        *lines,
        f" Live Restore Enabled: {'true' if info.get('LiveRestoreEnabled') else 'false'}",
        "",
    ]


def _registries(info: dict[str, Any]) -> list[str]:
    """Return the registry settings that differ from the defaults."""
    lines = []
    for name, label in (("HttpProxy", "HTTP"), ("HttpsProxy", "HTTPS"), ("NoProxy", "No")):
        if info.get(name):
            lines.append(f" {label} Proxy: {info[name]}")
    config = info.get("RegistryConfig") or {}
    indexes = config.get("IndexConfigs") or {}
    insecure = [name for name, index in indexes.items() if not index.get("Secure")]
    insecure += config.get("InsecureRegistryCIDRs") or []
    if insecure:
        lines += [" Insecure Registries:", *(f"  {name}" for name in insecure)]
    if config.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in config["Mirrors"])]
    return lines


def _security(options: list[str]) -> list[str]:
    lines = [" Security Options:"] if options else []
    names = {"profile": "Profile"}
    for option in options:
        pairs = [pair.partition("=") for pair in option.split(",")]
        lines += [f"  {value}" for key, _, value in pairs if key == "name"]
        lines += [f"   {names.get(key, key)}: {value}" for key, _, value in pairs if key != "name"]
    return lines


COMMAND = Command(
    "[OPTIONS]",
    "Display system-wide information",
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
    description=(
        "Containers by state, images, drivers, plugins, security options and the host. Warnings "
        "name missing kernel features."
    ),
    examples=(("Print one value", "jaula info -f '{{.Driver}}'"),),
    see_also=("check", "version", "system df"),
)
