"""Kubernetes' YAML of containers, from the answers of ``inspect``. Pure."""

from __future__ import annotations

from typing import Any

KINDS = ("pod", "deployment")
_POLICIES = {"always": "Always", "unless-stopped": "Always", "on-failure": "OnFailure"}
_OWN = ("io.jaula.", "com.docker.", "desktop.docker.")
_DEFAULT_SHARES_PER_CPU = 1024
_PER_CPU = 10**9
_TYPES = {"bind": "hostPath", "volume": "persistentVolumeClaim"}


def pod(
    name: str, infra: dict[str, Any] | None, containers: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return a Pod. ``infra`` is the container that holds its namespaces, None if there is none."""
    labels = {"app": name}
    volumes: dict[str, dict[str, Any]] = {}
    spec: dict[str, Any] = {
        "containers": [_container(c, name, volumes) for c in containers],
    }
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
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


def render(document: dict[str, Any], kind: str) -> str:
    """Return the YAML of a Pod, as an object of ``kind``."""
    import yaml

    if kind == "deployment":
        metadata = document["metadata"]
        name = metadata["name"].removesuffix("-pod")
        document = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": metadata["labels"]},
            "spec": {
                "selector": {"matchLabels": metadata["labels"]},
                "template": {"metadata": {"labels": metadata["labels"]}, "spec": document["spec"]},
            },
        }
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text


def _container(document: dict[str, Any], pod: str, volumes: dict[str, Any]) -> dict[str, Any]:
    config, host = document["Config"], document["HostConfig"]
    name = str(document["Name"]).lstrip("/").removeprefix(f"{pod}-")
    result: dict[str, Any] = {"name": name.lower().replace("_", "-"), "image": config["Image"]}
    if config.get("Entrypoint"):
        result["command"] = list(config["Entrypoint"])
    if config.get("Cmd"):
        result["args"] = list(config["Cmd"])
    variables = [word.partition("=") for word in config.get("Env") or ()]
    if env := [{"name": n, "value": v} for n, _, v in variables if n != "PATH"]:
        result["env"] = env
    if config.get("WorkingDir") not in (None, "", "/"):
        result["workingDir"] = config["WorkingDir"]
    if config.get("Tty"):
        result["tty"] = True
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
        volume = _volume_name(source, volumes)
        volumes[source] = {"name": volume} | (
            {"hostPath": {"path": source}}
            if mount["Type"] == "bind"
            else {"persistentVolumeClaim": {"claimName": source}}
        )
        entry = {"name": volume, "mountPath": mount["Destination"]}
        mounts.append(entry if mount["RW"] else {**entry, "readOnly": True})
    if mounts:
        result["volumeMounts"] = mounts
    return result


def _volume_name(source: str, volumes: dict[str, dict[str, Any]]) -> str:
    """Return the name of a volume: a label of DNS, and each once."""
    if source in volumes:
        return str(volumes[source]["name"])
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
