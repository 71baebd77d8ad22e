"""Check that a resolved create request can be started here (moby ``verifyContainerSettings``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaula.cgroups import cgroup_path
from jaula.engine.containers import health, presets, restart_policy
from jaula.engine.containers.container_hostname import is_host_name
from jaula.engine.containers.log_config import log_options, requested_options
from jaula.engine.containers.storage_opt import size_limit
from jaula.engine.networks import container_links, port_bindings
from jaula.engine.oci_spec import host_facts, security_opt, spec_resources, start_spec
from jaula.engine.oci_spec.start_spec import arguments, working_directory
from jaula.engine.volumes import mount_spec
from jaula.errors import InvalidRequest
from jaula.network import etc_files
from jaula.spec import egress, listen, signals
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.state.container_records import ResolvedRequest, is_external, log_of

if TYPE_CHECKING:
    from jaula.engine.model.services import Services


def check_network_mode(body: ContainerCreate) -> None:
    """Check what a request may not have with the network of another container or of the host.

    Exposed ports of the image are not conflicts. Source: moby ``runconfig.validateNetMode``.

    :raises InvalidRequest: when options exclude each other.
    """
    host = body.host_config
    kind = host.network_mode.partition(":")[0]
    if kind not in ("container", "host"):
        return
    if host.links:
        what = "container type network" if kind == "container" else "host type networking"
        raise InvalidRequest(
            f"conflicting options: {what} can't be used with links. This would result in undefined"
            " behavior"
        )
    if kind == "host":
        return
    for present, what in (
        (body.hostname, "hostname and the network mode"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host.port_bindings or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (body.exposed_ports, "port exposing and the container type network mode"),
    ):
        if present:
            raise InvalidRequest(f"conflicting options: {what}")


def check(services: Services, body: ContainerCreate, resolved: ResolvedRequest) -> tuple[str, ...]:
    """Check that a request can be started and return its warnings.

    :raises InvalidRequest: when it cannot.
    """
    host, modes = body.host_config, resolved.namespaces
    arguments(body)
    working_directory(body.working_dir)
    warnings = [
        *spec_resources.check(host, services.host, resolved.pod_resources),
        *security_opt.check(host, resolved, host_facts.refresh(services.host)),
    ]
    if host.profile == presets.STRICT and not services.host.landlock:
        warnings.append("This kernel has no Landlock, which is a part of the profile strict")
    warnings += presets.warnings(host)
    _check_lists(host, resolved)
    warnings += _unlisted_ports(host, resolved)
    services.hooks.request_resolved(services, body, resolved)
    start_spec.check(body, resolved)
    restart_policy.check(host.restart_policy, auto_remove=host.auto_remove)
    if resolved.ports and modes.net.host:
        warnings.append("Published ports are discarded when using host network mode")
    if modes.net.host and not modes.user.host and not services.host.rootless:
        start = host_facts.unprivileged_port_start()
        warnings += port_bindings.host_network_warnings(body.exposed_ports, start)
    warnings += _ineffective(body)
    health.check(body.healthcheck)
    warnings += health.check_on_failure(body)
    if not modes.uts.private and body.hostname:
        raise InvalidRequest("conflicting options: hostname and the UTS mode")
    for request in resolved.mounts:
        mount_spec.check_propagation(
            request.mount, own_userns=not modes.user.host, external=is_external(host.runtime)
        )
    if "" in host.annotations:
        raise InvalidRequest(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    container_links.check(services, resolved)
    if host.isolation not in ("", "default"):
        raise InvalidRequest(
            f"invalid isolation {host.isolation!r}", hint="the other values are for Windows"
        )
    size_limit(host.storage_opt)
    if parent := host.cgroup_parent:
        cgroup_path.parent_path(parent, systemd=services.config.systemd_cgroups)
    if body.domainname and not is_host_name(body.domainname):
        raise InvalidRequest(f"invalid domain name: {body.domainname!r}")
    spec_resources.check_oom_score(host.oom_score_adj)
    if host.shm_size < 0:
        raise InvalidRequest("SHM size can not be less than 0")
    if body.stop_signal:
        signals.parse(body.stop_signal)
    requested_options(services.config, host.log_config)  # not a pod's, which only the engine sets
    log_options(services.config, log_of(body, resolved))
    for text in host.device_cgroup_rules:
        start_spec.cgroup_rule(text)
    for mapping in host.devices:
        start_spec.devices(mapping)
    for entry in host.extra_hosts:
        etc_files.parse_extra_host(entry)
    etc_files.resolv_conf("", dns=host.dns, search=host.dns_search, options=host.dns_options)
    return tuple(warnings)


def _ineffective(body: ContainerCreate) -> list[str]:
    """Return the warnings about members that have no effect, in Docker's words."""
    host, warnings = body.host_config, []
    if host.volume_driver and any(mount.type == "volume" for mount in host.mounts):
        warnings.append(
            f"WARNING: the container-wide volume-driver configuration is ignored for volumes"
            f' specified via "mount". Use "--mount type=volume,volume-driver={host.volume_driver}"'
            " instead"
        )
    return warnings


def _check_lists(host: HostConfig, resolved: ResolvedRequest) -> None:
    """Check the egress list and the listen list.

    :raises InvalidRequest: when an item is malformed, or the container shares its network.
    """
    egress.parse(host.egress or ())
    listen.parse(host.listen or ())
    subject = (
        "an egress list" if host.egress is not None
        else "a listen list" if host.listen is not None else ""
    )  # fmt: skip
    net = resolved.namespaces.net
    if subject and (net.host or net.container):
        other = "the host" if net.host else "another container"
        raise InvalidRequest(
            f"conflicting options: {subject} and the network of {other}",
            hint="the list restricts a network of the container's own",
        )


def _unlisted_ports(host: HostConfig, resolved: ResolvedRequest) -> Iterator[str]:
    """Yield a warning for published ports that the listen list lacks."""
    if host.listen is None:
        return
    ports = listen.parse(host.listen)
    allowed = listen.allowed(ports)
    refused = {
        f"{port.container_port}/{port.protocol}": f"{port.protocol}:{port.container_port}"
        for port in resolved.ports
        if (port.protocol, port.container_port) not in allowed
    }
    if refused:
        yield (
            f"published ports that the listen list lacks are refused: {', '.join(refused)};"
            f" --listen {','.join((*map(str, ports), *refused.values()))} allows them"
        )
