"""Files that the engine provides in a container: hosts, resolv.conf, hostname, an init program."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jaula.engine.oci_spec import start_spec
from jaula.engine.oci_spec.init_program import init_program
from jaula.errors import NotFound
from jaula.network import etc_files
from jaula.network.dns import resolver_sockets
from jaula.state.container_records import ContainerRecord

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.model.services import Services
    from jaula.spec.endpoint_record import Endpoint

log = logging.getLogger("jaula.network")

_NAMES = ("hosts", "hostname", "resolv.conf")
_HOSTS_LIMIT = 1 << 20  # bytes; the container can write the file
_FILE_LIMIT = 1 << 20  # bytes of a file of the host
_INIT = "init-program"


def write(
    services: Services,
    record: ContainerRecord,
    endpoints: Sequence[Endpoint],
    linked: Sequence[str] = (),
) -> dict[str, str]:
    """Write hosts, resolv.conf and hostname for a start; return path on the host by destination.

    ``linked`` are further lines of hosts.

    :raises InvalidRequest: when ``--init`` is set and no init program is installed.
    """
    host, modes = record.body.host_config, record.resolved.namespaces
    directory = _directory(services, record)
    files: dict[str, str] = {}
    if modes.net.container:
        files = {f"/etc/{n}": str(directory / n) for n in _NAMES}
    else:
        gateway = next((gw for e in endpoints if (gw := e.gateway or e.gateway6)), None)
        addresses = [text for e in endpoints for text in (e.ipv4, e.ipv6) if text]
        if modes.net.host and not host.extra_hosts:
            hosts = _read("/etc/hosts")
        else:
            hosts = etc_files.hosts(
                record.hostname,
                domain=record.body.domainname,
                more=addresses,
                extra=host.extra_hosts,
                linked=linked,
                gateway=gateway,
            )
        resolv = _read("/etc/resolv.conf")
        if record.id in services.dns_servers:
            resolv = _resolver_conf(record)
        elif not modes.net.host or host.dns or host.dns_search or host.dns_options:
            resolv = etc_files.resolv_conf(
                resolv, dns=host.dns, search=host.dns_search, options=host.dns_options
            )
        for name, text in (
            ("hosts", hosts),
            ("hostname", etc_files.hostname(record.hostname)),
            ("resolv.conf", resolv),
        ):
            path = directory / name
            _write(str(path), text)
            files[f"/etc/{name}"] = str(path)
    if start_spec.runs_init(host, modes):
        files[start_spec.INIT_PATH] = init_program()
        if services.host.selinux:  # a copy can have the container's label
            files[start_spec.INIT_PATH] = _copy(init_program(), services, record)
    return files


def _resolver_conf(record: ContainerRecord) -> str:
    host = record.body.host_config
    return etc_files.resolver_conf(
        _read("/etc/resolv.conf"),
        resolver_sockets.ADDRESS,
        search=host.dns_search,
        options=host.dns_options,
    )


def use_resolver(services: Services, record: ContainerRecord) -> None:
    """Point resolv.conf of a running container to the engine's DNS server.

    A file that was changed inside the container stays as it is.
    """
    host = record.body.host_config
    path = str(services.config.paths.container(record.id) / "resolv.conf")
    before = etc_files.resolv_conf(
        _read("/etc/resolv.conf"), dns=host.dns, search=host.dns_search, options=host.dns_options
    )
    if _read(path) == before:
        _write(path, _resolver_conf(record))


def add_addresses(services: Services, record: ContainerRecord, endpoint: Endpoint) -> None:
    """Add a further address of a running container to its hosts file."""
    path = str(services.config.paths.container(record.id) / "hosts")
    lines = etc_files.container_lines(
        record.hostname,
        record.body.domainname,
        [text for text in (endpoint.ipv4, endpoint.ipv6) if text],
    )
    text = _read(path)
    _write(path, text + ("" if text.endswith("\n") or not text else "\n") + "".join(lines))


def change_hosts(
    services: Services, record: ContainerRecord, change: Callable[[bytes], bytes]
) -> None:
    """Change a container's hosts file in place; lines of the container itself stay.

    The file is a mount in the container, so it is never replaced and no reader sees it empty.
    """
    path = services.config.paths.container(record.id) / "hosts"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # the container was never started
    with open(descriptor, "r+b", buffering=0) as file:
        before = file.read(_HOSTS_LIMIT + 1) or b""
        if len(before) > _HOSTS_LIMIT:
            log.warning("container %s: its hosts file is too large to be changed", record.name)
            return
        after = change(before)
        if after == before:
            return
        pairs = enumerate(zip(before, after, strict=False))
        first_change = next(
            (i for i, (old, new) in pairs if old != new), min(len(before), len(after))
        )
        file.seek(first_change)
        file.write(after[first_change:])
        if len(after) < len(before):
            file.truncate(len(after))


def written(services: Services, record: ContainerRecord) -> dict[str, str]:
    """Return the files that were written for the last start, by their path in the container."""
    try:
        directory = _directory(services, record)
    except NotFound:
        return {}  # the container whose network it had, and whose files they were, is removed
    files = {f"/etc/{name}": directory / name for name in _NAMES}
    return {destination: str(path) for destination, path in files.items() if path.exists()}


def own_files(services: Services, record: ContainerRecord) -> list[str]:
    """Return the files of the container, or of the container whose network namespace it joined."""
    paths = [_directory(services, record) / name for name in _NAMES]
    paths.append(services.config.paths.container(record.id) / _INIT)
    return [str(path) for path in paths if path.exists()]


def _directory(services: Services, record: ContainerRecord) -> Path:
    if owner := record.resolved.namespaces.net.container:
        return services.config.paths.container(services.container_store.find(owner).id)
    return services.config.paths.container(record.id)


def _copy(program: str, services: Services, record: ContainerRecord) -> str:
    path = services.config.paths.container(record.id) / _INIT
    shutil.copyfile(program, path)
    path.chmod(0o755)
    return str(path)


def read_text(path: str) -> str:
    """Return at most 1 MiB of a regular file of the host.

    A read allocates what it may return, so it asks for the size of the file.

    :raises OSError: when it cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(min(_FILE_LIMIT, os.fstat(file.fileno()).st_size + 1))


def _read(path: str) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    # O_NOFOLLOW: the directory is the engine's, but the container can write the file.
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
    )
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
