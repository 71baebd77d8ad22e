"""The files that the engine gives a container: hosts, resolv.conf, hostname, an init program."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.engine.specbuild import build
from jaula.engine.specbuild.sharing import Sharing
from jaula.errors import InvalidRequest
from jaula.network import files
from jaula.state.records import ContainerRecord

if TYPE_CHECKING:
    from jaula.engine.parts import Parts
    from jaula.spec.endpoint import Endpoint

_INITS = (
    "/usr/bin/docker-init",
    "/usr/bin/tini-static",
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
)


def write(
    parts: Parts, record: ContainerRecord, shares: Sharing, endpoint: Endpoint | None
) -> dict[str, str]:
    """hosts, resolv.conf and hostname, written anew for each start."""
    host = record.body.host_config
    directory = parts.config.paths.container(record.id)
    found: dict[str, str] = {}
    if shares.net.container:
        lender = parts.registry.find(shares.net.container)
        directory = parts.config.paths.container(lender.id)
        found = {f"/etc/{n}": str(directory / n) for n in ("hosts", "hostname", "resolv.conf")}
    else:
        gateway = endpoint.gateway if endpoint else None
        if shares.net.host and not host.extra_hosts:
            hosts = _read("/etc/hosts")
        else:
            hosts = files.hosts(
                record.hostname,
                domain=record.body.domainname,
                address=endpoint.ipv4 if endpoint else None,
                extra=host.extra_hosts,
                gateway=gateway,
            )
        resolv = _read("/etc/resolv.conf")
        if not shares.net.host or host.dns or host.dns_search or host.dns_options:
            resolv = files.resolv_conf(
                resolv, dns=host.dns, search=host.dns_search, options=host.dns_options
            )
        for name, text in (
            ("hosts", hosts),
            ("hostname", files.hostname(record.hostname)),
            ("resolv.conf", resolv),
        ):
            path = directory / name
            _write(str(path), text)
            found[f"/etc/{name}"] = str(path)
    if host.init:
        found[build.INIT_PATH] = init_program()
    return found


def init_program() -> str:
    """A small program of the host's that reaps orphans, for ``--init``.

    :raises InvalidRequest: there is none.
    """
    for path in _INITS:
        if os.access(path, os.X_OK):
            return path
    raise InvalidRequest(
        "--init needs a static init program, and none is installed",
        hint="install the package tini or catatonit",
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    # No link is followed: the directory is the engine's, the file is writable in the container.
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
    )
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
