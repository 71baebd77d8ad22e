"""Kubernetes' YAML of containers, from the answers of ``inspect``. Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

KINDS = ("pod", "deployment", "daemonset", "job")
_NAMES = {"deployment": "Deployment", "daemonset": "DaemonSet", "job": "Job"}
_POLICIES = {"always": "Always", "unless-stopped": "Always", "on-failure": "OnFailure"}
_OWN = ("io.jaula.", "com.docker.", "desktop.docker.")
_DEFAULT_SHARES_PER_CPU = 1024
_PER_CPU = 10**9
_TYPES = {"bind": "hostPath", "volume": "persistentVolumeClaim"}


@dataclass
class Stored:
    """What the engine stores for containers.

    ``empty_dirs`` are the options of volumes that belong to a pod. ``secrets`` are the Secret and
    the key of a secret by its name, and ``configs`` the ConfigMap, the key and the content.
    """

    empty_dirs: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[str, tuple[str, str]] = field(default_factory=dict)
    configs: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)


def pod(
    name: str,
    infra: dict[str, Any] | None,
    containers: list[dict[str, Any]],
    stored: Stored | None = None,
) -> dict[str, Any]:
    """Return a Pod. ``infra`` is the container that holds its namespaces, None if there is none."""
    stored = stored or Stored()
    volumes: dict[str, dict[str, Any]] = {}
    spec: dict[str, Any] = {
        "containers": [_container(c, name, volumes, stored) for c in containers],
    }
    timeouts = {c["Config"].get("StopTimeout") for c in containers}
    if len(timeouts) == 1 and (seconds := timeouts.pop()) is not None:
        spec["terminationGracePeriodSeconds"] = seconds
    policies = {c["HostConfig"]["RestartPolicy"]["Name"] for c in containers}
    spec["restartPolicy"] = next((_POLICIES[p] for p in _POLICIES if p in policies), "Never")
    holder = infra or containers[0]
    host = holder["HostConfig"]
    if host.get("NetworkMode") == "host":
        spec["hostNetwork"] = True
    elif infra is not None and holder["Config"].get("Hostname"):
        spec["hostname"] = holder["Config"]["Hostname"]
    if host.get("PidMode") == "host":
        spec["hostPID"] = True
    if host.get("IpcMode") == "host":
        spec["hostIPC"] = True
    if aliases := _host_aliases(host.get("ExtraHosts") or ()):
        spec["hostAliases"] = aliases
    dns = {
        key: list(host[member])
        for key, member in (("nameservers", "Dns"), ("searches", "DnsSearch"))
        if host.get(member)
    }
    if dns:
        spec["dnsConfig"] = dns
    ports = [port for c in ([infra] if infra else containers) for port in _ports(c)]
    if ports:
        spec["containers"][0]["ports"] = ports
    if volumes:
        spec["volumes"] = list(volumes.values())
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": _labels(name, holder)},
        "spec": spec,
    }


def controller(document: dict[str, Any], kind: str, replicas: int = 1) -> dict[str, Any]:
    """Return a Pod as the template of an object of ``kind``; a Pod stays as it is."""
    if kind == "pod":
        return document
    metadata = document["metadata"]
    labels = metadata["labels"]
    spec: dict[str, Any] = {"template": {"metadata": {"labels": labels}, "spec": document["spec"]}}
    if kind != "job":
        spec = {"selector": {"matchLabels": labels}, **spec}
    if kind == "deployment" and replicas != 1:
        spec = {"replicas": replicas, **spec}
    return {
        "apiVersion": "batch/v1" if kind == "job" else "apps/v1",
        "kind": _NAMES[kind],
        "metadata": {"name": metadata["name"].removesuffix("-pod"), "labels": labels},
        "spec": spec,
    }


def service(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return a Service for the ports of a Pod, None if it has no port."""
    ports = [port for c in document["spec"]["containers"] for port in c.get("ports", ())]
    if not ports:
        return None
    metadata = document["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": metadata["name"], "labels": metadata["labels"]},
        "spec": {
            "type": "NodePort",
            "selector": metadata["labels"],
            "ports": [
                {
                    "name": str(port["containerPort"]),
                    "port": port["containerPort"],
                    "targetPort": port["containerPort"],
                    **({"protocol": port["protocol"]} if "protocol" in port else {}),
                }
                for port in ports
            ],
        },
    }


def config_maps(containers: list[dict[str, Any]], stored: Stored) -> list[dict[str, Any]]:
    """Return the ConfigMaps that containers mount."""
    maps: dict[str, dict[str, bytes]] = {}
    for container in containers:
        for reference in container["HostConfig"].get("Configs") or ():
            if known := stored.configs.get(reference["Source"]):
                name, key, content = known
                maps.setdefault(name, {})[key] = content
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **_data(content)}
        for name, content in maps.items()
    ]


def _data(content: dict[str, bytes]) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, str]] = {}
    for key, value in content.items():
        try:
            result.setdefault("data", {})[key] = value.decode()
        except UnicodeDecodeError:
            encoded = base64.b64encode(value).decode()
            result.setdefault("binaryData", {})[key] = encoded
    return result


def unknown_files(containers: list[dict[str, Any]], stored: Stored) -> list[str]:
    """Return the secrets and configs of containers that no Secret or ConfigMap has made."""
    return [
        reference["Source"]
        for container in containers
        for member, known in (("Secrets", stored.secrets), ("Configs", stored.configs))
        for reference in container["HostConfig"].get(member) or ()
        if reference["Source"] not in known
    ]


def render(documents: list[dict[str, Any]]) -> str:
    """Return the YAML of objects. Every text is read back as it is.

    PyYAML writes U+0085 as it is in some texts, and each reader makes a space or a line break of
    it. So a text with characters that are not printable has double quotes and escapes.
    """
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # it has no types
        pass

    def represent(dumper: yaml.SafeDumper, text: str) -> Any:
        plain = all(line.isprintable() for line in text.split("\n"))
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, None if plain else '"')

    Dumper.add_representer(str, represent)
    text: str = yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    return text


def _labels(name: str, holder: dict[str, Any]) -> dict[str, str]:
    """Return the labels of a pod: those of its user, or its name as ``app``."""
    labels = holder["Config"].get("Labels") or {}
    return {k: labels[k] for k in labels if not k.startswith(_OWN)} or {"app": name}


def _literal(text: str) -> str:
    """Return a text in which Kubernetes replaces no ``$(NAME)`` and no ``$$``."""
    return text.replace("$", "$$") if "$(" in text or "$$" in text else text


def _container(
    document: dict[str, Any], pod: str, volumes: dict[str, Any], stored: Stored
) -> dict[str, Any]:
    config, host = document["Config"], document["HostConfig"]
    name = str(document["Name"]).lstrip("/").removeprefix(f"{pod}-")
    result: dict[str, Any] = {"name": name.lower().replace("_", "-"), "image": config["Image"]}
    if config.get("Entrypoint"):
        result["command"] = [_literal(word) for word in config["Entrypoint"]]
    if config.get("Cmd"):
        result["args"] = [_literal(word) for word in config["Cmd"]]
    variables = [word.partition("=") for word in config.get("Env") or ()]
    if env := [{"name": n, "value": _literal(v)} for n, _, v in variables if n != "PATH"]:
        result["env"] = env
    if config.get("WorkingDir") not in (None, "", "/"):
        result["workingDir"] = config["WorkingDir"]
    for key, member in (("stdin", "OpenStdin"), ("tty", "Tty")):
        if config.get(member):
            result[key] = True
    if probe := _probe(config.get("Healthcheck") or {}):
        result["livenessProbe"] = probe
    if security := _security(config, host):
        result["securityContext"] = security
    if resources := _resources(host):
        result["resources"] = resources
    mounts = []
    for mount in document.get("Mounts") or ():
        if mount["Type"] not in _TYPES:
            continue
        source = mount["Source"] if mount["Type"] == "bind" else mount["Name"]
        options = stored.empty_dirs.get(source) if mount["Type"] == "volume" else None
        text = source if options is None else source.removeprefix(f"{pod}-")
        volume = volumes[source]["name"] if source in volumes else _volume_name(text, volumes)
        if mount["Type"] == "bind":
            definition: dict[str, Any] = {"hostPath": {"path": source}}
        elif options is not None:
            definition = {"emptyDir": _empty_dir(options)}
        else:
            definition = {"persistentVolumeClaim": {"claimName": source}}
        volumes[source] = {"name": volume, **definition}
        entry = {"name": volume, "mountPath": mount["Destination"]}
        mounts.append(entry if mount["RW"] else {**entry, "readOnly": True})
    for target, text in (host.get("Tmpfs") or {}).items():
        volume = _volume_name(f"tmpfs{target}", volumes)
        volumes[volume] = {"name": volume, "emptyDir": _empty_dir({"type": "tmpfs", "o": text})}
        mounts.append({"name": volume, "mountPath": target})
    mounts += _files(host, volumes, stored)
    if mounts:
        result["volumeMounts"] = mounts
    return result


def _empty_dir(options: dict[str, str]) -> dict[str, str]:
    """Return ``emptyDir`` with the options of a volume."""
    if options.get("type") != "tmpfs":
        return {}
    words = options.get("o", "").split(",")
    sizes = [o[5:] for o in words if o.startswith("size=") and not o.endswith("%")]
    return {"medium": "Memory"} | ({"sizeLimit": _quantity(sizes[-1])} if sizes else {})


def _quantity(size: str) -> str:
    """Return the quantity of a size of tmpfs(5), such as ``64m``."""
    return size[:-1] + {"k": "Ki", "m": "Mi", "g": "Gi"}.get(size[-1:].lower(), size[-1:])


def _files(host: dict[str, Any], volumes: dict[str, Any], stored: Stored) -> list[dict[str, Any]]:
    """Add the volumes of Secrets and ConfigMaps, and return where a container mounts them."""
    mounts = []
    secrets = {name: ("secret", *known) for name, known in stored.secrets.items()}
    configs = {name: ("configMap", *known[:2]) for name, known in stored.configs.items()}
    for member, known in (("Secrets", secrets), ("Configs", configs)):
        directories: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for reference in host.get(member) or ():
            if reference["Source"] in known:
                kind, owner, key = known[reference["Source"]]
                directory, _, path = reference["Target"].rpartition("/")
                item = {"key": key, "path": path, "mode": reference.get("Mode", 0o444)}
                directories.setdefault((kind, owner, directory or "/"), []).append(item)
        for (kind, owner, directory), items in directories.items():
            name = _volume_name(owner, volumes)
            volumes[f"{kind}/{name}"] = {
                "name": name,
                kind: {"secretName" if kind == "secret" else "name": owner, "items": items},
            }
            mounts.append({"name": name, "mountPath": directory})
    return mounts


def _volume_name(source: str, volumes: dict[str, dict[str, Any]]) -> str:
    """Return a name for a volume that no other one has: a label of DNS."""
    text = "".join(char if char.isalnum() and char.isascii() else "-" for char in source.lower())
    base = text.strip("-")[:50].strip("-") or "volume"
    names = {volume["name"] for volume in volumes.values()}
    return next(
        n for n in (base, *(f"{base}-{i}" for i in range(len(names) + 1))) if n not in names
    )


def _probe(check: dict[str, Any]) -> dict[str, Any]:
    """Return a liveness probe with the command of a health check, {} if there is none."""
    kind, *command = check.get("Test") or [""]
    if kind not in ("CMD", "CMD-SHELL"):
        return {}
    words = ["/bin/sh", "-c", *command] if kind == "CMD-SHELL" else command
    result: dict[str, Any] = {"exec": {"command": words}}
    for member, key in (
        ("Interval", "periodSeconds"),
        ("Timeout", "timeoutSeconds"),
        ("StartPeriod", "initialDelaySeconds"),
    ):
        if check.get(member):
            result[key] = max(1, check[member] // 10**9)
    if check.get("Retries"):
        result["failureThreshold"] = check["Retries"]
    return result


def _security(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    user, _, group = (config.get("User") or "").partition(":")
    if user.isdigit():
        result["runAsUser"] = int(user)
    if group.isdigit():
        result["runAsGroup"] = int(group)
    if host.get("Privileged"):
        result["privileged"] = True
    if host.get("ReadonlyRootfs"):
        result["readOnlyRootFilesystem"] = True
    if any(o.startswith("no-new-privileges") for o in host.get("SecurityOpt") or ()):
        result["allowPrivilegeEscalation"] = False
    capabilities = {
        key: list(host[member])
        for key, member in (("add", "CapAdd"), ("drop", "CapDrop"))
        if host.get(member)
    }
    if capabilities:
        result["capabilities"] = capabilities
    return result


def _resources(host: dict[str, Any]) -> dict[str, Any]:
    limits, requests = {}, {}
    if host.get("NanoCpus"):
        limits["cpu"] = f"{host['NanoCpus'] * 1000 // _PER_CPU}m"
    if host.get("Memory"):
        limits["memory"] = str(host["Memory"])
    if host.get("CpuShares"):
        requests["cpu"] = f"{host['CpuShares'] * 1000 // _DEFAULT_SHARES_PER_CPU}m"
    if host.get("MemoryReservation"):
        requests["memory"] = str(host["MemoryReservation"])
    parts = {"limits": limits, "requests": requests}
    return {key: value for key, value in parts.items() if value}


def _ports(document: dict[str, Any]) -> list[dict[str, Any]]:
    result = []
    for port, bindings in sorted((document["HostConfig"].get("PortBindings") or {}).items()):
        number, _, protocol = port.partition("/")
        for binding in bindings or ():
            entry: dict[str, Any] = {"containerPort": int(number)}
            if binding.get("HostPort", "").isdigit() and int(binding["HostPort"]):
                entry["hostPort"] = int(binding["HostPort"])
            if binding.get("HostIp"):
                entry["hostIP"] = binding["HostIp"]
            if protocol not in ("", "tcp"):
                entry["protocol"] = protocol.upper()
            result.append(entry)
    return result


def _host_aliases(lines: Any) -> list[dict[str, Any]]:
    names: dict[str, list[str]] = {}
    for line in lines:
        name, _, address = str(line).partition(":")
        names.setdefault(address, []).append(name)
    return [{"ip": address, "hostnames": hosts} for address, hosts in names.items()]
