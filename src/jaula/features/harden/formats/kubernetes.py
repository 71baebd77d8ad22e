"""A profile as a pod and a network policy of Kubernetes. Pure.

Source: the API reference of ``v1 Pod``, ``v1 PersistentVolumeClaim`` and ``networking.k8s.io/v1
NetworkPolicy``. The seccomp profile is a file of each node, below the kubelet's seccomp directory
(``/var/lib/kubelet/seccomp``).

Facts about low ports: kubelet does not make ports below 1024 free for all users, as Docker does.
A pod that listens on one without CAP_NET_BIND_SERVICE has the sysctl
``net.ipv4.ip_unprivileged_port_start``, which kubelet regards as safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from ipaddress import ip_network
from typing import Any

from jaula.features.harden.formats import needs, yaml
from jaula.spec.confinement_profile import Profile

_LOW_PORTS = 1024
_SIZE = re.compile(r"size=([0-9]{1,18})([kmg]?)")
_SUFFIXES = {"": "", "k": "Ki", "m": "Mi", "g": "Gi"}
NODE_LIMIT = "the number of processes (podPidsLimit of the kubelet limits it)"
NAMES = "names as destinations (a network policy has addresses only)"
USER = "the name of the user (a pod has a number; the user of the image is used)"


def object_name(text: str) -> str:
    """Return a text as a DNS label."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-") or "container"


def _claim_names(profile: Profile) -> dict[str, str]:
    """Return the name of the claim for each volume, a DNS label as its own name allows."""
    result = {}
    for path, name in needs.volume_names(profile).items():
        plain, _, digest = name.rpartition("--")
        label = object_name(name)
        if not plain and (label != name.lower() or profile.name != profile.name.lower()):
            digest = blake2b(f"{profile.name}\0{path}".encode(), digest_size=10).hexdigest()
            plain = name
        result[path] = f"{object_name(plain)[:40].strip('-')}--{digest}" if plain else label
    return result


def _size(options: str) -> re.Match[str] | None:
    """Return the size in the options of a tmpfs; the last one counts."""
    found = [match for each in options.split(",") if (match := _SIZE.fullmatch(each))]
    return found[-1] if found else None


def render(profile: Profile) -> str:
    """Return the documents: claims, pod, network policy.

    :raises InvalidRequest: when a value of the profile is not valid.
    """
    profile = needs.checked(profile)
    cannot = [needs.PROGRAM_FILES, needs.MASKED]
    if profile.limits.pids:
        cannot.append(NODE_LIMIT)
    if any(_destination(item) is None for item in profile.network.egress or ()):
        cannot.append(NAMES)
    if profile.process.user and not profile.process.user.partition(":")[0].isdigit():
        cannot.append(USER)
    lines = list(
        needs.comments(profile, f"The least that {profile.name} needs, as a pod.", tuple(cannot))
    )
    if profile.seccomp.syscalls:
        lines.append(
            f"# Each node has /var/lib/kubelet/seccomp/{needs.seccomp_file(profile)}, written by: "
            "jaula harden --profile FILE --format seccomp"
        )
    for number, document in enumerate(_documents(profile)):
        lines += ["---"] if number else []
        lines += yaml.block(document)
    return "\n".join(lines) + "\n"


def _documents(profile: Profile) -> Iterator[dict[str, Any]]:
    name = object_name(profile.name)
    claims = _claim_names(profile)
    for path in profile.files.volumes:
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claims[path]},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
    yield {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": name}},
        "spec": _pod(profile, name, claims),
    }
    if (policy := _network_policy(profile, name)) is not None:
        yield policy


def _pod(profile: Profile, name: str, claims: dict[str, str]) -> dict[str, Any]:
    files, limits, process = profile.files, profile.limits, profile.process
    security: dict[str, Any] = {
        "allowPrivilegeEscalation": not process.no_new_privileges,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": files.read_only_root,
    }
    if profile.capabilities:
        security["capabilities"]["add"] = list(needs.capabilities(profile))
    if profile.seccomp.syscalls:
        security["seccompProfile"] = {
            "type": "Localhost",
            "localhostProfile": needs.seccomp_file(profile),
        }
    else:
        security["seccompProfile"] = {"type": "RuntimeDefault"}
    user, _, group = process.user.partition(":")
    if user.isdigit():
        security |= {"runAsUser": int(user), "runAsNonRoot": int(user) != 0}
        if group.isdigit():
            security["runAsGroup"] = int(group)
    container: dict[str, Any] = {
        "name": name,
        "image": profile.image or name,
        "securityContext": security,
    }
    if ports := needs.ports(profile):
        container["ports"] = [
            {"containerPort": port, "protocol": protocol.upper()} for protocol, port in ports
        ]
    ceilings: dict[str, Any] = {}
    if limits.memory:
        ceilings["memory"] = str(limits.memory)
    if limits.cpus:
        ceilings["cpu"] = f"{max(1, round(limits.cpus * 1000))}m"
    if ceilings:
        container["resources"] = {"limits": ceilings, "requests": ceilings}
    volumes, mounts = [], []
    for number, (path, options) in enumerate(files.tmpfs.items()):
        memory: dict[str, Any] = {"medium": "Memory"}
        if size := _size(options):
            memory["sizeLimit"] = size[1] + _SUFFIXES[size[2]]
        volumes.append({"name": f"tmpfs-{number}", "emptyDir": memory})
        mounts.append({"name": f"tmpfs-{number}", "mountPath": path})
    for number, path in enumerate(files.volumes):
        volumes.append(
            {"name": f"data-{number}", "persistentVolumeClaim": {"claimName": claims[path]}}
        )
        mounts.append({"name": f"data-{number}", "mountPath": path})
    if mounts:
        container["volumeMounts"] = mounts
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostUsers": False,
    }
    low = any(port < _LOW_PORTS for _, port in needs.ports(profile))
    if low and "NET_BIND_SERVICE" not in needs.capabilities(profile):
        sysctl = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
        spec["securityContext"] = {"sysctls": [sysctl]}
    spec["containers"] = [container]
    if volumes:
        spec["volumes"] = volumes
    return spec


def _network_policy(profile: Profile, name: str) -> dict[str, Any] | None:
    network = profile.network
    if network.egress is None and not network.mode:
        return None
    ports = [{"protocol": proto.upper(), "port": port} for proto, port in needs.ports(profile)]
    unrestricted = network.listen is None and not network.mode
    egress: list[dict[str, Any]] = []
    for item in network.egress or ():
        destination = _destination(item)
        if destination is None:
            continue
        protocol, cidr, first, last = destination
        port: dict[str, Any] = {"protocol": protocol.upper(), "port": first}
        if last != first:
            port["endPort"] = last
        egress.append({"to": [{"ipBlock": {"cidr": cidr}}], "ports": [port]})
    if any(_destination(item) is None for item in network.egress or ()):
        egress.append(
            {
                "to": [{
                    "namespaceSelector": {},
                    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                }],
                "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
            }
        )  # fmt: skip
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{}] if unrestricted else [{"ports": ports}] if ports else [],
            "egress": egress,
        },
    }


def _destination(item: str) -> tuple[str, str, int, int] | None:
    """Return protocol, CIDR and ports of an address; None for a name."""
    protocol, _, rest = item.partition(":")
    host, _, port = rest.rpartition(":")
    first, _, last = port.partition("-")
    try:
        network = ip_network(host.strip("[]"), strict=False)
    except ValueError:
        return None
    if port == "*":
        return protocol, str(network), 1, 65535
    return protocol, str(network), int(first), int(last or first)
