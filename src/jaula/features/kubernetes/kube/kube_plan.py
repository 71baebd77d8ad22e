"""The plan for Kubernetes' objects on one host: volumes, files, and pods with their containers.

Source: Kubernetes API v1, podman-kube-play(1) and podman's table of supported fields. A pod is an
infra container that holds the namespaces, and containers that join them. The bodies are those of
``POST /containers/create``. :data:`INFRA` stands for the id of the infra container in them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from jaula.features.kubernetes.kube import quantity
from jaula.features.kubernetes.kube.kube_documents import InvalidDocument
from jaula.features.kubernetes.kube.node import Node

INFRA = "\0infra"
NETWORK = "jaula-kube"
SECCOMP_ROOT = "/var/lib/kubelet/seccomp"
_KINDS = ("Pod", "Deployment", "DaemonSet", "Job", "ReplicaSet", "StatefulSet")
_IGNORED_KINDS = ("Service", "Namespace", "ServiceAccount", "Ingress", "NetworkPolicy")
_FIELDS_OF_CLUSTER = (
    "nodeSelector", "nodeName", "affinity", "tolerations", "schedulerName",
    "topologySpreadConstraints", "terminationMessagePath", "terminationMessagePolicy", "status",
    "replicas", "selector", "strategy", "revisionHistoryLimit", "minReadySeconds", "apiVersion",
    "creationTimestamp", "resourceVersion", "uid", "generation", "managedFields",
)  # fmt: skip
_SHARES_PER_CPU, _MIN_SHARES = 1024, 2
_HOST_PATH_TYPES = ("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket",
                    "CharDevice", "BlockDevice")  # fmt: skip
_ANNOTATION = "io.podman.annotations."
_USERNS_ANNOTATIONS = (f"{_ANNOTATION}userns", "io.jaula.userns")
_MAX_HOST_PORT = 65535
_MAX_WORD = 131072  # characters of an argument or variable, as execve(2)


@dataclass
class File:
    """A file of a ConfigMap or Secret that containers mount. ``noun`` is secrets or configs."""

    noun: str
    name: str
    data: bytes
    owner: str  # the name of the object


@dataclass
class Volume:
    """A volume to create. ``kept`` volumes outlive their pod."""

    name: str
    options: dict[str, str]
    driver: str
    labels: dict[str, str]
    kept: bool


@dataclass
class Container:
    """A container of a pod: the name in the pod and the body. ``pull`` is a policy of the CLI."""

    name: str
    body: dict[str, Any]
    pull: str
    init: bool = False


@dataclass
class HostPath:
    """A path of the host that a pod needs: type of the volume, and the part that is mounted."""

    path: str
    kind: str
    part: str = ""


@dataclass
class Pod:
    """A pod: the body of its infra container, and its containers in their order."""

    name: str
    infra: dict[str, Any]
    containers: list[Container] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    host_paths: list[HostPath] = field(default_factory=list)
    host_network: bool = False
    infra_name: str = ""


@dataclass
class Options:
    """The flags of ``kube play`` that change a plan."""

    publish: tuple[dict[str, list[dict[str, str]]], ...] = ()
    publish_all: bool = False
    log: dict[str, Any] = field(default_factory=dict)
    userns: str = ""
    host_network: bool = False
    seccomp_root: str = SECCOMP_ROOT
    secrets: dict[str, list[str]] = field(default_factory=dict)  # keys in the engine, by Secret
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass
class Plan:
    """The objects to create. ``warnings`` name the fields without effect."""

    pods: list[Pod] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Names:
    """The names of what objects make: pods, volumes of claims, and Secrets."""

    pods: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


def names(objects: list[dict[str, Any]]) -> Names:
    """Return the names of what the objects make. References between them are not followed.

    :raises InvalidDocument: when an object has no name.
    """
    result = Names()
    for document in objects:
        kind = document["kind"]
        if kind not in (*_KINDS, "PersistentVolumeClaim", "Secret"):
            continue
        name = Node(document, kind).node("metadata").required("name")
        if kind == "PersistentVolumeClaim":
            result.volumes.append(name)
        elif kind == "Secret":
            result.secrets.append(name)
        else:
            result.pods.append(name if kind == "Pod" else f"{name}-pod")
    return result


def plan(
    objects: list[dict[str, Any]],
    options: Options | None = None,
    config_maps: list[dict[str, Any]] | None = None,
) -> Plan:
    """Return what the objects ask for. ``config_maps`` are ConfigMaps of other files.

    :raises InvalidDocument: when one is invalid, or asks for what is impossible.
    """
    result, options = Plan(), options or Options()
    sources = _Sources()
    for document in [*(config_maps or ()), *objects]:
        if document["kind"] in ("ConfigMap", "Secret"):
            sources.add(Node(document, document["kind"]))
    result.files += sources.secret_files()
    names: set[str] = set()
    for document in objects:
        kind = document["kind"]
        node = Node(document, kind)
        if kind in ("ConfigMap", "Secret"):
            continue
        if kind == "PersistentVolumeClaim":
            result.volumes.append(_claim(node))
        elif kind in _KINDS:
            template, name = _template(node, result.warnings)
            pod = _Builder(template, name, sources, options).build()
            if pod.name in names:
                raise InvalidDocument(f"{kind}: two pods are named {pod.name!r}")
            names.add(pod.name)
            result.pods.append(pod)
        elif kind in _IGNORED_KINDS:
            result.warnings.append(f"{kind} has no effect on one host")
            continue
        else:
            raise InvalidDocument(
                f"the kind {kind!r} is not supported; it must be one of "
                + ", ".join((*_KINDS, "PersistentVolumeClaim", "ConfigMap", "Secret"))
            )
        result.warnings += [
            f"{path} has no effect"
            for path in node.unused()
            if path.rpartition(".")[2] not in _FIELDS_OF_CLUSTER
        ]
    if not (result.pods or result.volumes or result.files or sources.count):
        raise InvalidDocument("it has nothing to play")
    return result


def _template(node: Node, warnings: list[str]) -> tuple[Node, str]:
    """Return the pod of an object, itself or its template, and the name that podman gives it."""
    node.get("apiVersion"), node.get("kind")
    metadata = node.node("metadata")
    if node.path == "Pod":
        return node, metadata.required("name")
    metadata.get("labels")  # those of the template are the pod's
    spec = node.node("spec")
    if spec.number("replicas", 1) > 1:
        warnings.append(f"{node.path}.spec.replicas: one pod runs on one host")
    if node.path == "Job":
        for key, one in (("completions", 1), ("parallelism", 1)):
            if spec.number(key, one) != one:
                warnings.append(f"Job.spec.{key}: it is 1 on one host")
    template = spec.node("template")
    template.node("metadata").get("name")  # the name is that of the object
    return template, f"{metadata.required('name')}-pod"


def _claim(node: Node) -> Volume:
    """Return the volume of a PersistentVolumeClaim; its annotations are podman's."""
    metadata = node.node("metadata")
    notes = metadata.pairs("annotations")
    options = {}
    for key, name in (("device", "device"), ("type", "type"), ("mount-options", "o")):
        if value := notes.get(f"volume.podman.io/{key}"):
            options[name] = value
    for key in ("import-source", "image"):
        if f"volume.podman.io/{key}" in notes:
            raise InvalidDocument(f"{node.path}: the annotation volume.podman.io/{key} is refused")
    ids = [
        f"{key}={notes[note]}"
        for key in ("uid", "gid")
        if (note := f"volume.podman.io/{key}") in notes
    ]
    if ids:
        options["o"] = ",".join([*ids, *([options["o"]] if "o" in options else [])])
    node.get("spec"), node.get("apiVersion"), node.get("kind")
    driver = notes.get("volume.podman.io/driver", "")
    return Volume(metadata.required("name"), options, driver, metadata.pairs("labels"), kept=True)


class _Sources:
    """The ConfigMaps and Secrets by name."""

    def __init__(self) -> None:
        self._maps: dict[tuple[str, str], dict[str, bytes]] = {}

    @property
    def count(self) -> int:
        return len(self._maps)

    def add(self, node: Node) -> None:
        name = node.node("metadata").required("name")
        data: dict[str, bytes] = {}
        is_secret = node.path == "Secret"
        for member, encoded in (("data", is_secret), ("binaryData", True), ("stringData", False)):
            for key, value in node.pairs(member).items():
                if not key or "/" in key or key in (".", ".."):
                    raise InvalidDocument(f"{node.path} {name}: {key!r} is not the name of a file")
                data[key] = (
                    _decoded(value, f"{node.path} {name}: {key}") if encoded else value.encode()
                )
        self._maps[node.path, name] = data

    def data(self, kind: str, name: str) -> dict[str, bytes] | None:
        return self._maps.get((kind, name))

    def secret_files(self) -> list[File]:
        """Return the Secrets as files: they are objects of their own, also without a pod."""
        return [
            File("secrets", f"{name}.{key}", value, name)
            for (kind, name), data in self._maps.items()
            if kind == "Secret"
            for key, value in data.items()
        ]


def _decoded(text: str, path: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidDocument(f"{path} is not base64") from None


class _Builder:
    """Makes one pod."""

    def __init__(self, node: Node, name: str, sources: _Sources, options: Options) -> None:
        metadata = node.node("metadata")
        self._name = name
        if not _is_name(name):
            raise InvalidDocument(f"{node.path}.metadata.name is not a name: {name!r}")
        self._labels = metadata.pairs("labels") | options.labels
        self._annotations = metadata.pairs("annotations") | options.annotations
        metadata.get("namespace")
        self._path = node.path
        self._spec = node.node("spec")
        self._sources = sources
        self._options = options
        self._volumes: dict[str, Node] = {}
        self._pod = Pod(self._name, {})

    def build(self) -> Pod:
        """Return the pod.

        :raises InvalidDocument: when it is invalid.
        """
        spec, pod = self._spec, self._pod
        pod.host_network = spec.on("hostNetwork") or self._options.host_network
        pod.infra_name = self._annotations.get(f"{_ANNOTATION}infra.name", "")
        for volume in spec.nodes("volumes"):
            name = volume.required("name")
            if name in self._volumes:
                raise InvalidDocument(f"{volume.path}: two volumes are named {name!r}")
            self._volumes[name] = volume
            if volume.has("emptyDir"):
                pod.volumes.append(self._empty_dir(volume.node("emptyDir"), name))
        ports: dict[str, list[dict[str, str]]] = {}
        context = spec.node("securityContext")
        pod.infra = self._infra(context)
        restart = _restart_policy(spec.text("restartPolicy", "Always"), spec.path)
        grace = spec.number("terminationGracePeriodSeconds", -1)
        names: set[str] = set()
        for key in ("initContainers", "containers"):
            for node in spec.nodes(key):
                name = node.required("name")
                if not _is_name(name) or name in names:
                    raise InvalidDocument(f"{node.path}.name must be a name, and once: {name!r}")
                body = self._body(node, name, context, ports)
                self._annotate(body["HostConfig"], name, names)
                names.add(name)
                policy = node.text("restartPolicy")
                init = key == "initContainers" and policy != "Always"
                host = body["HostConfig"]
                host["RestartPolicy"] = {"Name": "no"} if init else restart
                if grace >= 0:
                    body["StopTimeout"] = grace
                pull = _pull(node, str(body["Image"]))
                pod.containers.append(Container(name, body, pull, init))
        if not any(not container.init for container in pod.containers):
            raise InvalidDocument(f"{spec.path}.containers is missing")
        self._publish(ports)
        return pod

    def _infra(self, context: Node) -> dict[str, Any]:
        spec = self._spec
        host: dict[str, Any] = {"IpcMode": "host" if spec.on("hostIPC") else "shareable"}
        if self._pod.host_network:
            host["NetworkMode"] = "host"
        if spec.on("hostPID"):
            host["PidMode"] = "host"
        userns = self._options.userns or next(
            (self._annotations[n] for n in _USERNS_ANNOTATIONS if n in self._annotations), ""
        )
        if spec.get("hostUsers") is True:
            userns = "host"
        if userns:
            host["UsernsMode"] = userns
        aliases = [
            f"{name}:{alias.required('ip')}"
            for alias in spec.nodes("hostAliases")
            for name in alias.texts("hostnames")
        ]
        if aliases:
            host["ExtraHosts"] = aliases
        dns = spec.node("dnsConfig")
        for key, member in (("nameservers", "Dns"), ("searches", "DnsSearch")):
            if values := dns.texts(key):
                host[member] = values
        options = [
            option.required("name") + (f":{value}" if (value := option.text("value")) else "")
            for option in dns.nodes("options")
        ]
        if options:
            host["DnsOptions"] = options
        sysctls = {s.required("name"): s.text("value") for s in context.nodes("sysctls")}
        if sysctls:
            host["Sysctls"] = sysctls
        body: dict[str, Any] = {"Labels": dict(self._labels), "HostConfig": host}
        if not self._pod.host_network:
            body["Hostname"] = spec.text("hostname") or self._name
        return body

    def _publish(self, ports: dict[str, list[dict[str, str]]]) -> None:
        """Publish the ports of all containers at the infra container, which has the network."""
        for bindings in self._options.publish:
            for port, hosts in bindings.items():
                ports[port] = hosts  # a flag replaces what the YAML says
        if self._pod.host_network or not ports:
            return
        used: set[tuple[str, str, str]] = set()
        for port, hosts in ports.items():
            for binding in hosts:
                key = (binding.get("HostIp", ""), binding["HostPort"], port.rpartition("/")[2])
                if binding["HostPort"] not in ("", "0") and key in used:
                    raise InvalidDocument(
                        f"{self._path}: host port {key[1]}/{key[2]} is used twice"
                    )
                used.add(key)
        self._pod.infra["ExposedPorts"] = {port: {} for port in ports}
        self._pod.infra["HostConfig"]["PortBindings"] = ports

    # -- a container -----------------------------------------------------------------------------

    def _annotate(self, host: dict[str, Any], name: str, earlier: set[str]) -> None:
        """Apply podman's annotations of a container; ``earlier`` are the containers before it."""
        key = f"{_ANNOTATION}volumes-from/{name}"
        for reference in filter(None, self._annotations.get(key, "").split(";")):
            source, colon, mode = reference.partition(":")
            if source not in earlier:
                raise InvalidDocument(f"{self._path}: {key}: {source!r} is no earlier container")
            host.setdefault("VolumesFrom", []).append(f"{self._name}-{source}{colon}{mode}")
        key = f"{_ANNOTATION}pids-limit/{name}"
        if limit := self._annotations.get(key, ""):
            if not limit.removeprefix("-").isdecimal():
                raise InvalidDocument(f"{self._path}: {key} is not a number: {limit!r}")
            host["PidsLimit"] = int(limit)
        if limits := self._annotations.get(f"{_ANNOTATION}ulimit", ""):
            host["Ulimits"] = [_ulimit(word, self._path) for word in limits.split(",")]

    def _body(
        self, node: Node, name: str, pod_context: Node, ports: dict[str, list[dict[str, str]]]
    ) -> dict[str, Any]:
        image = node.required("image")
        variables = self._environment(node, name)
        host: dict[str, Any] = {
            "UsernsMode": f"container:{INFRA}",
            "IpcMode": f"container:{INFRA}",
            "NetworkMode": "host" if self._pod.host_network else f"container:{INFRA}",
        }
        if not self._pod.host_network:
            host["UTSMode"] = f"container:{INFRA}"
        if self._spec.on("hostPID"):
            host["PidMode"] = "host"
        elif self._spec.on("shareProcessNamespace"):
            host["PidMode"] = f"container:{INFRA}"
        if self._spec.on("hostIPC"):
            host["IpcMode"] = "host"
        if self._pod.infra["HostConfig"].get("UsernsMode") == "host":
            host["UsernsMode"] = "host"
        if self._options.log:
            host["LogConfig"] = self._options.log
        body: dict[str, Any] = {
            "Image": image,
            "Labels": dict(self._labels),
            "HostConfig": host,
            "AttachStdout": False,
            "AttachStderr": False,
        }
        if variables:
            body["Env"] = [f"{key}={value}" for key, value in variables.items()]
        for key, member in (("command", "Entrypoint"), ("args", "Cmd")):
            if words := node.texts(key):
                body[member] = [_expand(word, variables) for word in words]
        if "Entrypoint" in body and "Cmd" not in body:
            body["Cmd"] = []
        if directory := node.text("workingDir"):
            body["WorkingDir"] = directory
        for key, member in (("stdin", "OpenStdin"), ("stdinOnce", "StdinOnce"), ("tty", "Tty")):
            if node.on(key):
                body[member] = True
        _ports(node, ports, publish_all=self._options.publish_all)
        _resources(node.node("resources"), host)
        self._security(node, pod_context, body)
        self._mounts(node, host)
        _probe(node, body)
        return body

    def _environment(self, node: Node, container: str) -> dict[str, str]:
        """Return the variables: those of ``envFrom`` first, as Kubernetes."""
        result: dict[str, str] = {}
        for source in node.nodes("envFrom"):
            prefix = source.text("prefix")
            for member, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if not source.has(member):
                    continue
                data = self._data(source.node(member), kind)
                result |= {prefix + key: _text(value, key) for key, value in data.items()}
        for entry in node.nodes("env"):
            name = entry.required("name")
            if "=" in name:
                raise InvalidDocument(f"{entry.path}.name has an equals sign: {name!r}")
            if entry.has("valueFrom"):
                value = self._value_from(entry.node("valueFrom"), node, container)
                if value is None:
                    continue
            else:
                value = _expand(entry.text("value"), result)
            result[name] = value
        return result

    def _data(self, node: Node, kind: str) -> dict[str, bytes]:
        name, optional = node.required("name"), node.on("optional")
        data = self._sources.data(kind, name)
        if data is None and not optional:
            hint = ""
            if kind == "Secret" and name in self._options.secrets:
                hint = "; the engine has it, and returns no value of a secret: mount it as a volume"
            raise InvalidDocument(f"{node.path}: there is no {kind} {name!r} in this file{hint}")
        return data or {}

    def _value_from(self, node: Node, container: Node, name: str) -> str | None:
        for member, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if not node.has(member):
                continue
            reference = node.node(member)
            data, key = self._data(reference, kind), reference.required("key")
            if key in data:
                return _text(data[key], key)
            if reference.on("optional"):
                return None
            raise InvalidDocument(f"{reference.path}: {kind} has no key {key!r}")
        if node.has("fieldRef"):
            return self._field(node.node("fieldRef"))
        if node.has("resourceFieldRef"):
            return _resource_field(node.node("resourceFieldRef"), container)
        raise InvalidDocument(f"{node.path} has no source that is supported")

    def _field(self, node: Node) -> str:
        path = node.required("fieldPath")
        node.get("apiVersion")
        fields = {"metadata.name": self._name, "metadata.namespace": "default"}
        if path in fields:
            return fields[path]
        for prefix, pairs in (
            ("metadata.labels['", self._labels),
            ("metadata.annotations['", self._annotations),
        ):
            if path.startswith(prefix) and path.endswith("']"):
                return pairs.get(path[len(prefix) : -2], "")
        raise InvalidDocument(
            f"{node.path}.fieldPath {path!r} is not supported: it must be metadata.name, "
            "metadata.namespace, metadata.labels['KEY'] or metadata.annotations['KEY']"
        )

    def _security(self, node: Node, pod_context: Node, body: dict[str, Any]) -> None:
        context, host = node.node("securityContext"), body["HostConfig"]
        user = context.number("runAsUser", pod_context.number("runAsUser", -1))
        group = context.number("runAsGroup", pod_context.number("runAsGroup", -1))
        if user >= 0:
            body["User"] = f"{user}:{group}" if group >= 0 else str(user)
        elif group >= 0:
            body["User"] = f"0:{group}"
        if context.on("runAsNonRoot", pod_context.on("runAsNonRoot")) and user == 0:
            raise InvalidDocument(f"{context.path}: runAsNonRoot and runAsUser 0 contradict")
        groups = pod_context.get("supplementalGroups") or []
        if not isinstance(groups, list) or not all(type(g) is int for g in groups):
            raise InvalidDocument(f"{pod_context.path}.supplementalGroups is not a list of numbers")
        if (fs_group := pod_context.number("fsGroup", -1)) >= 0:
            groups = [*groups, fs_group]
        if groups:
            host["GroupAdd"] = [str(number) for number in groups]
        if context.on("privileged"):
            host["Privileged"] = True
        if context.on("readOnlyRootFilesystem"):
            host["ReadonlyRootfs"] = True
        capabilities = context.node("capabilities")
        for key, member in (("add", "CapAdd"), ("drop", "CapDrop")):
            if names := capabilities.texts(key):
                host[member] = names
        options = []
        if not context.on("allowPrivilegeEscalation", True):
            options.append("no-new-privileges")
        if context.text("procMount", "Default") == "Unmasked":
            host["MaskedPaths"] = host["ReadonlyPaths"] = []
        selinux = context if context.has("seLinuxOptions") else pod_context
        labels = selinux.node("seLinuxOptions")
        options += [
            f"label={key}:{value}"
            for key in ("user", "role", "type", "level")
            if (value := labels.text(key))
        ]
        seccomp = context if context.has("seccompProfile") else pod_context
        profile = seccomp.node("seccompProfile")
        kind = profile.text("type", "RuntimeDefault")
        if kind == "Unconfined":
            options.append("seccomp=unconfined")
        elif kind == "Localhost":
            file = profile.required("localhostProfile")
            if file.startswith("/") or ".." in file.split("/"):
                raise InvalidDocument(f"{profile.path}.localhostProfile must be below the root")
            options.append(f"seccomp={self._options.seccomp_root}/{file}")
        elif kind != "RuntimeDefault":
            raise InvalidDocument(
                f"{profile.path}.type {kind!r} is unknown: "
                "it must be RuntimeDefault, Localhost or Unconfined"
            )
        if options:
            host["SecurityOpt"] = options

    # -- volumes ---------------------------------------------------------------------------------

    def _empty_dir(self, node: Node, name: str) -> Volume:
        options = {}
        if node.text("medium") == "Memory":
            options = {"type": "tmpfs", "device": "tmpfs"}
            if node.has("sizeLimit"):
                size = quantity.parse(node.get("sizeLimit"), f"{node.path}.sizeLimit")
                options["o"] = f"size={int(size)}"
        return Volume(f"{self._name}-{name}", options, "", {}, kept=False)

    def _mounts(self, node: Node, host: dict[str, Any]) -> None:
        mounts: list[dict[str, Any]] = []
        for entry in node.nodes("volumeMounts"):
            name, target = entry.required("name"), entry.required("mountPath")
            if not target.startswith("/"):
                raise InvalidDocument(f"{entry.path}.mountPath must be an absolute path")
            read_only, part = entry.on("readOnly"), entry.text("subPath")
            if part.startswith("/") or ".." in part.split("/"):
                raise InvalidDocument(f"{entry.path}.subPath must be below the volume")
            volume = self._volumes.get(name)
            if volume is None:
                raise InvalidDocument(f"{entry.path}: there is no volume {name!r}")
            mount: dict[str, Any] = {"Target": target, "ReadOnly": read_only}
            if volume.has("hostPath") and "/" not in volume.node("hostPath").required("path"):
                source = volume.node("hostPath").required("path")  # podman's: a named volume
                mount |= {"Type": "volume", "Source": source}
                if part:
                    mount["VolumeOptions"] = {"Subpath": part}
            elif volume.has("hostPath"):
                source = self._host_path(volume.node("hostPath"), part)
                mount |= {"Type": "bind", "Source": f"{source}/{part}" if part else source}
            elif volume.has("emptyDir") or volume.has("persistentVolumeClaim"):
                claim = (
                    volume.node("persistentVolumeClaim")
                    if volume.has("persistentVolumeClaim")
                    else None
                )
                source = claim.required("claimName") if claim else f"{self._name}-{name}"
                mount |= {"Type": "volume", "Source": source}
                if part:
                    mount["VolumeOptions"] = {"Subpath": part}
                if claim and claim.on("readOnly"):
                    mount["ReadOnly"] = True
            elif volume.has("image"):
                image = volume.node("image")
                image.get("pullPolicy")
                mount |= {"Type": "image", "Source": image.required("reference")}
                del mount["ReadOnly"]
            elif volume.has("configMap") or volume.has("secret"):
                self._files(volume, target, part, host)
                continue
            else:
                raise InvalidDocument(
                    f"{volume.path} is not supported: it must be hostPath, emptyDir, configMap,"
                    " secret, persistentVolumeClaim or image"
                )
            mounts.append(mount)
        if mounts:
            host["Mounts"] = mounts

    def _host_path(self, node: Node, part: str) -> str:
        path, kind = node.required("path"), node.text("type")
        if kind not in _HOST_PATH_TYPES:
            raise InvalidDocument(f"{node.path}.type {kind!r} is unknown")
        if not path.startswith("/"):
            raise InvalidDocument(f"{node.path}.path must be an absolute path")
        host_path = HostPath(path, kind, part)
        if host_path not in self._pod.host_paths:
            self._pod.host_paths.append(host_path)
        return path

    def _files(self, volume: Node, target: str, part: str, host: dict[str, Any]) -> None:
        """Mount the keys of a ConfigMap or Secret as files below ``target``."""
        is_secret = volume.has("secret")
        node = volume.node("secret" if is_secret else "configMap")
        kind, noun = ("Secret", "secrets") if is_secret else ("ConfigMap", "configs")
        name, optional = node.text("secretName" if is_secret else "name"), node.on("optional")
        data = self._sources.data(kind, name)
        if data is None and is_secret and name in self._options.secrets:
            data = dict.fromkeys(self._options.secrets[name], b"")  # only the engine has the values
        if data is None:
            if optional:
                return
            raise InvalidDocument(f"{node.path}: there is no {kind} {name!r} in this file")
        mode = node.number("defaultMode", 0o644)
        items = {
            i.required("key"): (i.required("path"), i.number("mode", mode))
            for i in node.nodes("items")
        }
        chosen = items or {key: (key, mode) for key in data}
        for key, (path, file_mode) in chosen.items():
            if key not in data:
                if optional:
                    continue
                raise InvalidDocument(f"{node.path}: {kind} {name!r} has no key {key!r}")
            if path.startswith("/") or ".." in path.split("/"):
                raise InvalidDocument(f"{node.path}: {path!r} must be below the volume")
            if part and path != part:
                continue
            source = f"{name}.{key}"
            if not is_secret:
                source = f"{self._name}.{source}"
                if not any(file.name == source for file in self._pod.files):
                    self._pod.files.append(File(noun, source, data[key], self._name))
            reference = {
                "Source": source,
                "Target": target if part else f"{target.rstrip('/')}/{path}",
                "Mode": file_mode,
            }
            host.setdefault(noun.capitalize(), []).append(reference)


# -- parts without a pod ---------------------------------------------------------------------------


def _is_name(text: str) -> bool:
    """Return whether a text is a DNS subdomain, as Kubernetes' names."""
    return (
        0 < len(text) <= 253
        and text.isascii()
        and all(char.islower() or char.isdigit() or char in "-." for char in text)
        and text[0] not in "-."
        and text[-1] not in "-."
    )


def _text(value: bytes, key: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidDocument(f"the key {key!r} is not text and cannot be a variable") from None


def _expand(text: str, variables: dict[str, str]) -> str:
    """Replace ``$(NAME)`` by the variable; ``$$(NAME)`` and an unknown one stay ``$(NAME)``."""
    result: list[str] = []
    length, position = 0, 0
    while (start := text.find("$", position)) >= 0:
        result.append(text[position:start])
        if text.startswith("$$", start):
            result.append("$")
            position = start + 2
            continue
        end = text.find(")", start)
        if not text.startswith("$(", start) or end < 0:
            result.append("$")
            position = start + 1
            continue
        name = text[start + 2 : end]
        result.append(variables.get(name, text[start : end + 1]))
        length += len(result[-1])
        if length > _MAX_WORD:  # a variable of two others that have two others grows without end
            raise InvalidDocument(f"{text[:40]!r} has more than {_MAX_WORD} characters")
        position = end + 1
    return "".join([*result, text[position:]])


def _ulimit(word: str, path: str) -> dict[str, Any]:
    """Return the API's document of ``NAME=SOFT[:HARD]``."""
    name, _, values = word.partition("=")
    soft, _, hard = values.partition(":")
    limits = [text.removeprefix("-") for text in (soft, hard or soft)]
    if not name or not all(text.isdecimal() and len(text) < 20 for text in limits):
        raise InvalidDocument(f"{path}: {_ANNOTATION}ulimit: {word[:40]!r} is not NAME=SOFT:HARD")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _restart_policy(name: str, path: str) -> dict[str, str]:
    policies = {"Always": "always", "OnFailure": "on-failure", "Never": "no"}
    if name not in policies:
        raise InvalidDocument(f"{path}.restartPolicy must be Always, OnFailure or Never")
    return {"Name": policies[name]}


def _pull(node: Node, image: str) -> str:
    policy = node.text("imagePullPolicy")
    policies = {"Always": "always", "IfNotPresent": "missing", "Never": "never", "": "missing"}
    if policy not in policies:
        raise InvalidDocument(f"{node.path}.imagePullPolicy must be Always, IfNotPresent or Never")
    return policies[policy]


def _ports(node: Node, ports: dict[str, list[dict[str, str]]], *, publish_all: bool) -> None:
    for entry in node.nodes("ports"):
        inside, outside = entry.number("containerPort"), entry.number("hostPort")
        protocol = entry.text("protocol", "TCP").lower()
        entry.text("name")
        if not 0 < inside <= _MAX_HOST_PORT or not 0 <= outside <= _MAX_HOST_PORT:
            raise InvalidDocument(f"{entry.path}: a port must be 1 to {_MAX_HOST_PORT}")
        if protocol not in ("tcp", "udp", "sctp"):
            raise InvalidDocument(f"{entry.path}.protocol must be TCP, UDP or SCTP")
        address = entry.text("hostIP")
        if outside or publish_all:
            binding = {"HostIp": address, "HostPort": str(outside or inside)}
            ports.setdefault(f"{inside}/{protocol}", []).append(binding)


def _resources(node: Node, host: dict[str, Any]) -> None:
    limits, requests = node.node("limits"), node.node("requests")
    if limits.has("cpu"):
        cpu = quantity.parse(limits.get("cpu"), f"{limits.path}.cpu")
        host["NanoCpus"] = int(cpu * 10**9)
    if limits.has("memory"):
        host["Memory"] = int(quantity.parse(limits.get("memory"), f"{limits.path}.memory"))
    if requests.has("cpu"):
        cpu = quantity.parse(requests.get("cpu"), f"{requests.path}.cpu")
        host["CpuShares"] = max(_MIN_SHARES, int(cpu * _SHARES_PER_CPU))
    if requests.has("memory"):
        size = int(quantity.parse(requests.get("memory"), f"{requests.path}.memory"))
        host["MemoryReservation"] = size
    for name in list(limits.value):
        if "=" in name or "/" in name:  # a device of CDI, as podman's
            limits.get(name)
            device = name.removeprefix("podman.io/device=")
            if device != name:
                host.setdefault("Devices", []).append(
                    {"PathOnHost": device, "PathInContainer": device, "CgroupPermissions": "rwm"}
                )
            else:
                host.setdefault("DeviceRequests", []).append({"Driver": "cdi", "DeviceIDs": [name]})


def _resource_field(node: Node, container: Node) -> str:
    resource = node.required("resource")
    part, _, name = resource.partition(".")
    if part not in ("limits", "requests") or name not in ("cpu", "memory"):
        raise InvalidDocument(f"{node.path}.resource {resource!r} is not supported")
    values = container.node("resources").node(part)
    if not values.has(name):
        return "0"
    value = quantity.parse(values.get(name), f"{values.path}.{name}")
    divisor = quantity.parse(node.get("divisor") or 1, f"{node.path}.divisor") or 1
    return str(-(-value // divisor))


def _probe(node: Node, body: dict[str, Any]) -> None:
    """Make a health check of the liveness probe; it restarts the container, as in Kubernetes."""
    if not node.has("livenessProbe"):
        return
    probe = node.node("livenessProbe")
    if probe.has("exec"):
        command = probe.node("exec").texts("command")
        if not command:
            raise InvalidDocument(f"{probe.path}.exec.command is missing")
        test = ["CMD", *command]
    elif probe.has("httpGet"):
        get = probe.node("httpGet")
        scheme, host = get.text("scheme", "HTTP").lower(), get.text("host", "localhost")
        url = f"{scheme}://{host}:{_probe_port(get, node)}{get.text('path', '/')}"
        quoted = "'" + url.replace("'", "'\\''") + "'"
        check = (
            f"if command -v curl >/dev/null; then curl -fsk {quoted}; else wget -qO- {quoted}; fi"
        )
        test = ["CMD-SHELL", check + " >/dev/null || exit 1"]
    elif probe.has("tcpSocket"):
        socket = probe.node("tcpSocket")
        host = "'" + socket.text("host", "localhost").replace("'", "'\\''") + "'"
        test = ["CMD-SHELL", f"nc -z -w 1 {host} {_probe_port(socket, node)} || exit 1"]
    else:
        raise InvalidDocument(f"{probe.path} must have exec, httpGet or tcpSocket")
    second = 10**9
    body["Healthcheck"] = {
        "Test": test,
        "Interval": probe.number("periodSeconds", 10) * second,
        "Timeout": probe.number("timeoutSeconds", 1) * second,
        "Retries": probe.number("failureThreshold", 3),
        "StartPeriod": probe.number("initialDelaySeconds", 0) * second,
    }
    if node.has("startupProbe"):  # until it succeeds, failures of the liveness probe do not count
        startup = node.node("startupProbe")
        for key in ("exec", "httpGet", "tcpSocket", "timeoutSeconds", "successThreshold"):
            startup.get(key)
        seconds = startup.number("periodSeconds", 10) * startup.number("failureThreshold", 3)
        body["Healthcheck"]["StartPeriod"] += (
            seconds + startup.number("initialDelaySeconds", 0)
        ) * second
    probe.number("successThreshold", 1)
    body["Labels"]["io.jaula.health-on-failure"] = "restart"


def _probe_port(node: Node, container: Node) -> int:
    """Return a port that is a number, or the name of a port of the container."""
    port = node.get("port")
    if isinstance(port, str):
        for entry in container.nodes("ports"):
            if entry.text("name") == port:
                return entry.number("containerPort")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= _MAX_HOST_PORT:
        raise InvalidDocument(f"{node.path}.port is not a port: {port!r}")
    return port
