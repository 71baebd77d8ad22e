"""Quadlet's unit files as services of systemd. Pure, except for the devices that may be absent.

Source: podman-systemd.unit(5), systemd.service(5).

A service runs ``jaula run`` in the foreground. The client stays the main process of the service: it
passes the output to the journal, signals to the container, and the exit status to systemd. So
``Restart=`` and ``systemctl status`` work as for each other program.
"""

from __future__ import annotations

import os

from jaula.features.quadlet import unit_keys, unit_words
from jaula.features.quadlet.unit_file import InvalidUnit, UnitFile
from jaula.spec import run_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ENGINE = "jaula.service"
UNIT_LABEL = "io.jaula.systemd-unit"
AUTO_UPDATE_LABEL = "io.containers.autoupdate"
_ONLINE = "network-online.target"
CLEAN_STATUSES = "129 130 141 143"
"""Exit statuses of a program that HUP, INT, PIPE or TERM ends, which systemd takes as clean."""
_CID, _POD_ID = "%t/%N.cid", "%t/%N.pod-id"
_KILL_MODES = ("mixed", "control-group")
_WRITABLE = ("/run", "/tmp", "/var/tmp")


class Info:
    """The facts of a unit that others need: its service, and the name of the resource it makes."""

    def __init__(self, service: str, resource: str = "") -> None:
        self.service = service
        self.resource = resource
        self.containers: list[str] = []  # of a pod: the services that start with it

    @property
    def file(self) -> str:
        """Return the name of the service's file."""
        return f"{self.service}.service"


def kind_of(name: str) -> str:
    """Return the kind of a file by its name, '' if it is not one of quadlet's."""
    stem, dot, suffix = name.rpartition(".")
    return suffix if stem and dot and suffix in unit_keys.SECTIONS else ""


def infos(units: Iterable[UnitFile]) -> dict[str, Info]:
    """Return what is known of each unit before one is converted, by the name of its file."""
    result = {}
    for unit in units:
        kind = kind_of(unit.name)
        section = unit_keys.SECTIONS[kind]
        service = unit.text(section, "ServiceName") or _stem(unit) + unit_keys.SUFFIXES.get(
            kind, ""
        )
        info = Info(service)
        if kind == "container":
            name = _container_name(unit).replace("%N", service)
            info.resource = "" if "%" in name else name
        elif kind == "build":
            info.resource = next(iter(unit.texts(section, "ImageTag")), "")
        result[unit.name] = info
    return result


class Converter:
    """Makes services. ``program`` is the path of ``jaula``; ``user`` is set for a user's units."""

    def __init__(
        self,
        units: list[UnitFile],
        program: str,
        *,
        user: bool = False,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._program = program
        self._user = user
        self._warn = warn
        self._infos = infos(units)

    def convert(self, unit: UnitFile) -> UnitFile:
        """Return the service of a unit.

        :raises InvalidUnit: when a key is unknown, or a value cannot be used.
        """
        kind = kind_of(unit.name)
        section = unit_keys.SECTIONS[kind]
        self._check_keys(unit, section)
        service = unit.copy()
        service.name = self._infos[unit.name].file
        service.rename(section, f"X-{section}")
        service.rename(unit_keys.COMMON, f"X-{unit_keys.COMMON}")
        if unit.on(unit_keys.COMMON, "DefaultDependencies", True):
            needed = (ENGINE,) if self._user else (_ONLINE, ENGINE)  # a user cannot wait for a link
            service.insert("Unit", "After", " ".join(needed))
            service.insert("Unit", "Wants", " ".join(needed))
        if unit.path:
            service.add("Unit", "SourcePath", unit.path)
        if not unit.has("Service", "SyslogIdentifier"):
            service.put("Service", "SyslogIdentifier", "%N")
        makers = {
            "container": self._container,
            "volume": self._volume,
            "network": self._network,
            "pod": self._pod,
            "image": self._image,
            "build": self._build,
            "kube": self._kube,
        }
        makers[kind](unit, service)
        if kind in ("container", "kube", "pod"):
            self._check_limits(unit)
        return service

    def _check_limits(self, unit: UnitFile) -> None:
        """Warn of limits of the service: a container is in a cgroup of the engine's."""
        for key in unit.keys("Service"):
            if replacement := unit_keys.CLIENT_ONLY.get(key):
                self._warn(
                    f"{unit.path}: {key}= of the service limits the client and not the container:"
                    f" use {replacement}"
                )

    def _check_keys(self, unit: UnitFile, section: str) -> None:
        for name in (section, unit_keys.COMMON):
            for key in unit.keys(name):
                if key not in unit_keys.KEYS[name]:
                    raise InvalidUnit(f"unsupported key '{key}' in group '{name}' in {unit.path}")
                if (name, key) in unit_keys.IMPOSSIBLE and unit.texts(name, key):
                    raise InvalidUnit(f"{key}= cannot be served: {unit_keys.IMPOSSIBLE[name, key]}")
                if (name, key) in unit_keys.IGNORED:
                    self._warn(f"{unit.path}: {key}= has no effect: {unit_keys.IGNORED[name, key]}")
        if section not in unit.sections:
            raise InvalidUnit(f"there is no section [{section}]")

    # -- kinds -----------------------------------------------------------------------------------

    def _container(self, unit: UnitFile, service: UnitFile) -> None:
        section = "Container"
        image = unit.text(section, "Image")
        if not image:
            raise InvalidUnit("no Image key specified")
        image = self._image_source(service, image)
        _check_kill_mode(service)
        kind = service.text("Service", "Type")
        if kind not in ("", "notify", "oneshot"):
            raise InvalidUnit(f"invalid service Type '{kind}'")
        stop = self._command(unit, section, "stop", "-i", f"--cidfile={_CID}")
        service.add("Service", "ExecStop", unit_words.join(stop))
        remove = self._command(unit, section, "rm", "-v", "-f", "-i", f"--cidfile={_CID}")
        service.add("Service", "ExecStopPost", unit_words.join(["-" + remove[0], *remove[1:]]))
        if not unit.has("Service", "SuccessExitStatus"):
            service.put("Service", "SuccessExitStatus", CLEAN_STATUSES)

        run = self._command(unit, section, "run", "--name", _container_name(unit))
        run += [f"--cidfile={_CID}", "--replace", "--rm"]
        if kind != "oneshot":
            run.append(f"--sdnotify={_notify_mode(unit)}")
            service.put("Service", "Type", "notify")
            service.put("Service", "NotifyAccess", "main")
        run += ["--label", f"{UNIT_LABEL}=%n"]
        mode = unit.text(section, "CgroupsMode")
        if mode not in ("", "split", "enabled", "no-conmon"):
            raise InvalidUnit(f"CgroupsMode={mode} cannot be served: each container has a cgroup")
        run += _plain(unit, section, _PLAIN)
        if pull := unit.text(section, "Pull"):
            run += ["--pull", "always" if pull == "newer" else pull]
        for key, flag in (("RunInit", "--init"), ("EnvironmentHost", "--env-host")):
            if unit.has(section, key):
                run.append(flag if unit.on(section, key) else f"{flag}=false")
        run += self._networks(unit, service, section)
        run += _security(unit)
        run += _devices(unit)
        for key, flag in (("DropCapability", "--cap-drop"), ("AddCapability", "--cap-add")):
            run += unit_words.repeat(flag, [name.lower() for name in unit.names(section, key)])
        run += unit_words.repeat("--sysctl", unit.names(section, "Sysctl"))
        run += _read_only(unit)
        run += _user_of(unit)
        run += self._user_namespace(unit, section)
        run += self._volumes(unit, service, section)
        if update := unit.text(section, "AutoUpdate"):
            run += ["--label", f"{AUTO_UPDATE_LABEL}={update}"]
        for port in unit.texts(section, "ExposeHostPort"):
            if not _is_port_range(port):
                raise InvalidUnit(f"invalid port format '{port}'")
            run += ["--expose", port]
        run += unit_words.repeat("--publish", unit.texts(section, "PublishPort"))
        run += _pairs("--env", unit.pairs(section, "Environment"))
        run += _pairs("--label", unit.pairs(section, "Label"))
        run += _pairs("--annotation", unit.pairs(section, "Annotation"))
        for key in ("Mask", "Unmask"):
            run += [
                word
                for value in unit.words(section, key)
                for word in ("--security-opt", f"{key.lower()}={value}")
            ]
        files = unit.words(section, "EnvironmentFile")
        run += unit_words.repeat("--env-file", [_absolute(unit, file) for file in files])
        run += unit_words.repeat(
            "--secret", [_secret(word) for word in unit.words(section, "Secret")]
        )
        for mount in unit.words(section, "Mount"):
            run += ["--mount", self._mount(unit, service, mount)]
        run += self._health(unit)
        if timezone := unit.text(section, "Timezone"):
            run += ["--volume", _timezone(timezone)]
        run += self._pod_of(unit, service)
        run += _arguments(unit, section)
        command = unit.last_words(section, "Exec")
        entrypoint = unit.text(section, "Entrypoint")
        if entrypoint.startswith("["):
            program, *first = _entrypoint_words(entrypoint)
            run += ["--entrypoint", program]
            command = [*first, *command]
        elif entrypoint:
            run += ["--entrypoint", entrypoint]
        service.add("Service", "ExecStart", unit_words.join([*run, image, *command]))
        self._reload(unit, service)

    def _reload(self, unit: UnitFile, service: UnitFile) -> None:
        section = "Container"
        command, signal = unit.last_words(section, "ReloadCmd"), unit.text(section, "ReloadSignal")
        if command and signal:
            raise InvalidUnit("ReloadCmd and ReloadSignal are mutually exclusive")
        name = _container_name(unit)
        if command:
            reload = self._command(unit, section, "exec", name, *command)
            service.add("Service", "ExecReload", unit_words.join(reload))
        if signal:
            reload = self._command(unit, section, "kill", "--signal", signal, name)
            service.add("Service", "ExecReload", unit_words.join(reload))

    def _volume(self, unit: UnitFile, service: UnitFile) -> None:
        section = "Volume"
        name = unit.text(section, "VolumeName") or f"systemd-{_stem(unit)}"
        create = self._command(unit, section, "volume", "create")
        driver, device = unit.text(section, "Driver"), unit.text(section, "Device")
        if driver == "image":
            raise InvalidUnit(
                f"Driver=image cannot be served: {unit_keys.IMPOSSIBLE[section, 'Image']}"
            )
        if driver:
            create += ["--driver", driver]
        if unit.has(section, "Copy") and not unit.on(section, "Copy"):
            raise InvalidUnit("Copy=false cannot be served: set :nocopy at Volume= of a container")
        options = [
            f"{option}={unit.text(section, key)}"
            for key, option in (("User", "uid"), ("Group", "gid"))
            if unit.text(section, key)
        ]
        if options and not device:
            raise InvalidUnit(
                "User= and Group= need Device=: the user of the program owns another volume"
            )
        for key in ("Type", "Options"):
            if unit.text(section, key) and not device:
                raise InvalidUnit(f"key {key} can't be used without Device")
        if device:
            create += ["--opt", f"device={device}"]
        if kind := unit.text(section, "Type"):
            create += ["--opt", f"type={kind}"]
        if text := unit.text(section, "Options"):
            options.append(text)
        if options:
            create += ["--opt", "o=" + ",".join(options)]
        create += _pairs("--label", unit.pairs(section, "Label"))
        create += [*_arguments(unit, section), name]
        self._one_shot(unit, service, create, name)

    def _network(self, unit: UnitFile, service: UnitFile) -> None:
        section = "Network"
        name = unit.text(section, "NetworkName") or f"systemd-{_stem(unit)}"
        create = self._command(unit, section, "network", "create", "--ignore")
        for key, flag in (("Internal", "--internal"), ("IPv6", "--ipv6")):
            if unit.has(section, key):
                create.append(flag if unit.on(section, key) else f"{flag}=false")
        for key, flag in (("Driver", "--driver"), ("IPAMDriver", "--ipam-driver")):
            if value := unit.text(section, key):
                create += [flag, value]
        subnets, gateways, ranges = (
            unit.texts(section, key) for key in ("Subnet", "Gateway", "IPRange")
        )
        if not subnets and (gateways or ranges):
            raise InvalidUnit("cannot set gateway or range without subnet")
        if len(gateways) > len(subnets):
            raise InvalidUnit("cannot set more gateways than subnets")
        if len(ranges) > len(subnets):
            raise InvalidUnit("cannot set more ranges than subnets")
        for number, subnet in enumerate(subnets):
            create += ["--subnet", subnet]
            create += unit_words.repeat("--gateway", gateways[number : number + 1])
            create += unit_words.repeat("--ip-range", ranges[number : number + 1])
        create += _pairs("--opt", unit.pairs(section, "Options"))
        create += _pairs("--label", unit.pairs(section, "Label"))
        create += [*_arguments(unit, section), name]
        self._one_shot(unit, service, create, name)

    def _image(self, unit: UnitFile, service: UnitFile) -> None:
        section = "Image"
        image = unit.text(section, "Image")
        if not image:
            raise InvalidUnit("no Image key specified")
        pull = self._command(unit, section, "pull")
        if unit.on(section, "AllTags"):
            pull.append("--all-tags")
        pull += _platform(unit, section)
        self._auth_file(unit, service, section)
        pull += [*_arguments(unit, section), image]
        self._one_shot(unit, service, pull, unit.text(section, "ImageTag") or image)

    def _build(self, unit: UnitFile, service: UnitFile) -> None:
        section = "Build"
        if not unit.texts(section, "ImageTag"):
            raise InvalidUnit("no ImageTag key specified")
        build = self._command(unit, section, "build")
        pull = unit.text(section, "Pull")
        if pull in ("always", "newer", "true"):
            build.append("--pull")
        elif pull not in ("", "missing", "false", "never"):
            raise InvalidUnit(f"Pull={pull}: must be one of always, missing, never, newer")
        if target := unit.text(section, "Target"):
            build += ["--target", target]
        build += _platform(unit, section)
        self._auth_file(unit, service, section)
        if unit.has(section, "ForceRM"):
            build.append("--force-rm" if unit.on(section, "ForceRM") else "--force-rm=false")
        build += unit_words.repeat("--tag", unit.texts(section, "ImageTag"))
        build += _pairs("--label", unit.pairs(section, "Label"))
        build += self._networks(unit, service, section)
        build += unit_words.repeat("--secret", unit.words(section, "Secret"))
        context = _working_directory(unit, service, section)
        directory, file = service.text("Service", "WorkingDirectory"), unit.text(section, "File")
        if not (directory or file or context):
            raise InvalidUnit("neither SetWorkingDirectory, nor File key specified")
        if file:
            build += ["--file", file]
        build += _arguments(unit, section)
        if context:
            build.append(context)
        elif file.startswith("/"):
            build.append(os.path.dirname(file))
        elif not _is_url(file):
            if not directory:
                raise InvalidUnit(
                    "relative path in File key requires SetWorkingDirectory key to be set"
                )
            build.append(directory)
        self._one_shot(unit, service, build, self._infos[unit.name].resource, stays=False)

    def _kube(self, unit: UnitFile, service: UnitFile) -> None:
        section = "Kube"
        if not unit.text(section, "Yaml"):
            raise InvalidUnit("no Yaml key specified")
        path = _absolute(unit, unit.text(section, "Yaml"))
        _check_kill_mode(service)
        kind = service.text("Service", "Type")
        if kind not in ("", "notify", "oneshot"):
            raise InvalidUnit(f"invalid service Type '{kind}'")
        play = self._command(unit, section, "kube", "play", "--replace")
        if kind != "oneshot":
            play += ["--wait", "--sdnotify=conmon"]
            service.put("Service", "Type", "notify")
            service.put("Service", "NotifyAccess", "main")
        if mode := unit.text(section, "ExitCodePropagation"):
            if mode not in ("all", "any", "none"):
                raise InvalidUnit(f"ExitCodePropagation={mode}: must be one of all, any, none")
            play.append(f"--service-exit-code-propagation={mode}")
        if driver := unit.text(section, "LogDriver"):
            play += ["--log-driver", driver]
        play += unit_words.repeat("--log-opt", unit.names(section, "LogOpt"))
        play += self._user_namespace(unit, section)
        play += self._networks(unit, service, section)
        for update in unit.names(section, "AutoUpdate"):
            container, slash, policy = update.rpartition("/")
            play.append(f"--annotation={AUTO_UPDATE_LABEL}{slash}{container}={policy}")
        maps = [_absolute(unit, path) for path in unit.names(section, "ConfigMap")]
        play += unit_words.repeat("--configmap", maps)
        play += unit_words.repeat("--publish", unit.texts(section, "PublishPort"))
        play += ["--label", f"{UNIT_LABEL}=%n", *_arguments(unit, section), path]
        service.add("Service", "ExecStart", unit_words.join(play))
        down = self._command(unit, section, "kube", "down")
        if unit.has(section, "KubeDownForce"):
            down.append("--force" if unit.on(section, "KubeDownForce") else "--force=false")
        service.add("Service", "ExecStopPost", unit_words.join([*down, path]))
        if not unit.has("Service", "SuccessExitStatus"):
            service.put("Service", "SuccessExitStatus", CLEAN_STATUSES)
        _working_directory(unit, service, section)

    def _pod(self, unit: UnitFile, service: UnitFile) -> None:
        section = "Pod"
        name = unit.text(section, "PodName") or f"systemd-{_stem(unit)}"
        info = self._infos[unit.name]
        info.resource = name
        for container in info.containers:
            service.add("Unit", "Wants", container)
            service.add("Unit", "Before", container)
        id_file = f"--pod-id-file={_POD_ID}"
        create = self._command(unit, section, "pod", "create", id_file)
        create += ["--exit-policy=stop", "--replace"]
        create += self._user_namespace(unit, section)
        create += unit_words.repeat("--publish", unit.texts(section, "PublishPort"))
        create += self._networks(unit, service, section)
        create += _plain(unit, section, _POD_OPTIONS)
        create += _pairs("--label", unit.pairs(section, "Label"))
        create += self._volumes(unit, service, section)
        create += ["--label", f"{UNIT_LABEL}=%n", "--name", name, *_arguments(unit, section)]
        service.add("Service", "ExecStartPre", unit_words.join(create))
        start = self._command(unit, section, "pod", "start", "--wait", "--sdnotify=conmon", id_file)
        service.add("Service", "ExecStart", unit_words.join(start))
        stop = self._command(unit, section, "pod", "stop", id_file, "--ignore", "--time=10")
        service.add("Service", "ExecStop", unit_words.join(stop))
        remove = self._command(unit, section, "pod", "rm", id_file, "--ignore", "--force")
        service.add("Service", "ExecStopPost", unit_words.join(remove))
        service.put("Service", "Type", "notify")
        service.put("Service", "NotifyAccess", "main")
        if not unit.has("Service", "Restart"):
            service.put("Service", "Restart", "on-failure")
        if not unit.has("Service", "SuccessExitStatus"):
            service.put("Service", "SuccessExitStatus", CLEAN_STATUSES)

    # -- parts of a command ----------------------------------------------------------------------

    def _command(self, unit: UnitFile, section: str, *command: str) -> list[str]:
        return [self._program, *unit.words(section, "GlobalArgs"), *command]

    def _one_shot(
        self,
        unit: UnitFile,
        service: UnitFile,
        command: list[str],
        resource: str,
        *,
        stays: bool = True,
    ) -> None:
        """Make the service of a resource, which runs ``command`` once."""
        service.add("Service", "ExecStart", unit_words.join(command))
        if not unit.has("Service", "Type"):
            service.put("Service", "Type", "oneshot")
        if stays and not unit.has("Service", "RemainAfterExit"):
            service.put("Service", "RemainAfterExit", "yes")
        self._infos[unit.name].resource = resource

    def _require(self, service: UnitFile, name: str, problem: str) -> Info:
        """Let ``service`` need the service of the file ``name``; return what is known of it."""
        info = self._infos.get(name)
        if info is None:
            raise InvalidUnit(problem)
        if not info.resource and "@" not in name:
            raise InvalidUnit(f"it needs {name}, which has an error")
        service.add("Unit", "Requires", info.file)
        service.add("Unit", "After", info.file)
        return info

    def _image_source(self, service: UnitFile, image: str) -> str:
        if not image.endswith((".image", ".build")):
            return image
        return self._require(
            service, image, f"requested Quadlet image {image} was not found"
        ).resource

    def _source(
        self, unit: UnitFile, service: UnitFile, source: str, kinds: tuple[str, ...]
    ) -> str:
        """Return the source of a mount: a path or the name of a resource."""
        if source.startswith("."):
            source = _absolute(unit, source)
        if source.startswith("/"):
            service.add("Unit", "RequiresMountsFor", unit_words.join([source]))
        elif source.endswith(kinds):
            problem = f"requested Quadlet source {source} was not found"
            source = self._require(service, source, problem).resource
        return source

    def _volumes(self, unit: UnitFile, service: UnitFile, section: str) -> list[str]:
        result = []
        for volume in unit.texts(section, "Volume"):
            source, colon, rest = volume.partition(":")
            if colon and source:
                volume = f"{self._source(unit, service, source, ('.volume',))}:{rest}"
            result += ["-v", volume.lstrip(":")]
        return result

    def _mount(self, unit: UnitFile, service: UnitFile, mount: str) -> str:
        fields = mount.split(",")
        kind = next((f.partition("=")[2] for f in fields if f.startswith("type=")), "volume")
        if kind not in ("bind", "volume", "image", "tmpfs"):
            raise InvalidUnit(f"Mount={mount}: mounts of type {kind} are not supported")
        if kind == "tmpfs":
            return mount
        kinds = (".volume", ".image", ".build")
        for number, field in enumerate(fields):
            key, _, value = field.partition("=")
            if key in ("source", "src"):
                if not value:
                    raise InvalidUnit("source parameter does not include a value")
                fields[number] = f"source={self._source(unit, service, value, kinds)}"
        return ",".join(fields)

    def _networks(self, unit: UnitFile, service: UnitFile, section: str) -> list[str]:
        result = []
        for network in unit.texts(section, "Network"):
            name, colon, options = network.partition(":")
            if name.endswith(".container"):
                if colon:
                    raise InvalidUnit(
                        "extra options are not supported when joining another container's network"
                    )
                result += ["--network", f"container:{self._resource(service, name)}"]
            elif name.endswith(".network"):
                result += ["--network", _network(self._resource(service, name), options)]
            elif name == "container":
                result += ["--network", network]
            elif name == "ns":
                raise InvalidUnit(f"Network={network} cannot be served: join a container instead")
            elif name in ("slirp4netns", "pasta", "private"):
                self._warn(f"{unit.path}: Network={network}: it is the default network of jaula")
            else:
                result += ["--network", _network(name, options)]
        return result

    def _resource(self, service: UnitFile, name: str) -> str:
        info = self._require(service, name, f"requested Quadlet unit {name} was not found")
        if not info.resource:  # the name of a template's container has its instance
            raise InvalidUnit(f"cannot get the resource name of {name}")
        return info.resource

    def _user_namespace(self, unit: UnitFile, section: str) -> list[str]:
        remap = unit.text(section, "RemapUsers")
        if userns := unit.text(section, "UserNS"):
            if remap or unit.texts(section, "RemapUid") or unit.texts(section, "RemapGid"):
                raise InvalidUnit("deprecated Remap keys are set along with explicit mapping keys")
        else:
            if remap not in ("", "auto", "keep-id", "manual"):
                raise InvalidUnit(f"unsupported RemapUsers option '{remap}'")
            for key in ("RemapUid", "RemapGid"):
                if unit.texts(section, key):
                    raise InvalidUnit(f"{key}= cannot be served: {unit_keys.IMPOSSIBLE[_USER_MAP]}")
            if remap == "manual":
                raise InvalidUnit(f"RemapUsers=manual: {unit_keys.IMPOSSIBLE[_USER_MAP]}")
            userns = remap
        mode, colon, _ = userns.partition(":")
        if mode == "auto" and colon:
            self._warn(f"{unit.path}: UserNS={userns}: the engine selects the size of the range")
            userns = mode
        if mode in ("nomap", "ns", "private") or (mode == "keep-id" and colon):
            raise InvalidUnit(
                f"UserNS={userns} cannot be served: {unit_keys.IMPOSSIBLE[_USER_MAP]}"
            )
        return ["--userns", userns] if userns else []

    def _health(self, unit: UnitFile) -> list[str]:
        section, result = "Container", []
        for option in _HEALTH:
            value = unit.text(section, option.quadlet)
            if option.quadlet == "HealthCmd" and value == "none":
                result.append("--no-healthcheck")
            elif value:
                result += [f"--{option.name}", value]
        action = unit.text(section, "HealthOnFailure")
        if action == "restart":
            self._warn(
                f"{unit.path}: HealthOnFailure=restart is kill here: Restart= of the service"
                " starts the container again"
            )
            action = "kill"
        return result + (["--health-on-failure", action] if action else [])

    def _pod_of(self, unit: UnitFile, service: UnitFile) -> list[str]:
        pod = unit.text("Container", "Pod")
        if not pod:
            return []
        if not pod.endswith(".pod"):
            raise InvalidUnit(f"pod {pod} is not Quadlet based")
        info = self._infos.get(pod)
        if info is None:
            raise InvalidUnit(f"quadlet pod unit {pod} does not exist")
        service.add("Unit", "BindsTo", info.file)
        service.add("Unit", "After", info.file)
        if unit.on("Container", "StartWithPod", True):
            info.containers.append(service.name)
        return ["--pod-id-file", f"%t/{info.service}.pod-id"]

    def _auth_file(self, unit: UnitFile, service: UnitFile, section: str) -> None:
        if file := unit.text(section, "AuthFile"):
            service.add("Service", "Environment", unit_words.join([f"REGISTRY_AUTH_FILE={file}"]))


_USER_MAP = ("Container", "UIDMap")
_PLAIN = tuple(
    option
    for option in run_options.OPTIONS
    if option.quadlet in unit_keys.KEYS["Container"] - unit_keys.CONVERTED and not option.alias_of
)
"""The options whose values a unit has as the command line has them."""
_POD_KEYS = ("IP", "IP6", "ShmSize", "HostName", "NetworkAlias", "DNS", "DNSOption", "DNSSearch",
             "AddHost")  # fmt: skip
_POD_OPTIONS = tuple(option for key in _POD_KEYS for option in _PLAIN if option.quadlet == key)
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}  # names of platforms
_HEALTH = tuple(
    option
    for option in run_options.OPTIONS
    if option.quadlet and option.document == run_options.HEALTHCHECK
)


def _plain(unit: UnitFile, section: str, options: Iterable[run_options.Option]) -> list[str]:
    """Return the flags of options that a unit has under keys of their own: texts, then lists."""
    texts, lists = [], []
    for option in options:
        flag = f"--{option.name}"
        if option.kind == "list":
            lists += unit_words.repeat(flag, unit.texts(section, option.quadlet))
        elif value := unit.text(section, option.quadlet):
            texts += [flag, value]
    return texts + lists


def _stem(unit: UnitFile) -> str:
    return unit.name.rpartition(".")[0]


def _container_name(unit: UnitFile) -> str:
    """Return the name of a container, with the specifiers of systemd."""
    default = "systemd-%p_%i" if "@" in unit.name else "systemd-%N"
    return unit.text("Container", "ContainerName") or default


def _pairs(flag: str, pairs: dict[str, str]) -> list[str]:
    return unit_words.repeat(flag, [f"{name}={pairs[name]}" for name in sorted(pairs)])


def _arguments(unit: UnitFile, section: str) -> list[str]:
    return unit.words(section, "PodmanArgs") + unit.words(section, "JaulaArgs")


def _absolute(unit: UnitFile, path: str) -> str:
    """Return ``path`` below the directory of the unit, unless it begins with a specifier."""
    if path.startswith("/") or (path.startswith("%") and not path.startswith("%%")):
        return path
    return os.path.normpath(os.path.join(os.path.dirname(unit.path) or os.getcwd(), path))


def _check_kill_mode(service: UnitFile) -> None:
    """Set ``KillMode=``; refuse one with which processes of the container could stay."""
    mode = service.text("Service", "KillMode")
    if service.has("Service", "KillMode") and mode not in _KILL_MODES:
        raise InvalidUnit(f"invalid KillMode '{mode}'")
    if not mode:
        service.put("Service", "KillMode", "mixed")


def _notify_mode(unit: UnitFile) -> str:
    if unit.text("Container", "Notify").lower() == "healthy":
        return "healthy"
    return "container" if unit.on("Container", "Notify") else "conmon"


def _network(name: str, options: str) -> str:
    """Return the value of ``--network``; ``options`` has podman's form ``ip=ADDRESS,mac=...``."""
    if not options:
        return name
    fields = [f"name={name}"]
    for option in options.split(","):
        key, equals, value = option.partition("=")
        if not equals or key not in ("ip", "ip6", "mac", "alias"):
            raise InvalidUnit(
                f"Network={name}:{options}: {option!r} cannot be served,"
                " it must be one of ip, ip6, mac, alias"
            )
        fields.append(f"{'mac-address' if key == 'mac' else key}={value}")
    return ",".join(fields)


def _security(unit: UnitFile) -> list[str]:
    section, options = "Container", []
    if unit.on(section, "NoNewPrivileges"):
        options.append("no-new-privileges")
    if unit.on(section, "SecurityLabelDisable"):
        options.append("label=disable")
    if unit.on(section, "SecurityLabelNested"):
        raise InvalidUnit("SecurityLabelNested= cannot be served: no container changes labels")
    for key, name in (("Type", "type"), ("FileType", "filetype"), ("Level", "level")):
        if value := unit.text(section, f"SecurityLabel{key}"):
            options.append(f"label={name}:{value}")
    if unit.has(section, "SeccompProfile"):
        options.append(f"seccomp={unit.text(section, 'SeccompProfile')}")
    return unit_words.repeat("--security-opt", options)


def _devices(unit: UnitFile) -> list[str]:
    devices = []
    for device in unit.names("Container", "AddDevice"):
        if device.startswith("-"):  # may be absent
            device = device[1:]
            if not os.path.exists(device.partition(":")[0]):
                continue
        devices.append(device)
    return unit_words.repeat("--device", devices)


def _read_only(unit: UnitFile) -> list[str]:
    """Return the flags of a read-only root: podman's has three writable directories."""
    section = "Container"
    if not unit.has(section, "ReadOnly"):
        result = []
    elif not unit.on(section, "ReadOnly"):
        result = ["--read-only=false"]
    else:
        result = ["--read-only"]
        if unit.on(section, "ReadOnlyTmpfs", True):
            given = {value.partition(":")[0] for value in unit.texts(section, "Tmpfs")} | {
                value.split(":")[-1] for value in unit.texts(section, "Volume")
            }
            result += unit_words.repeat(
                "--tmpfs", [path for path in _WRITABLE if path not in given]
            )
    if unit.on(section, "VolatileTmp") and not unit.on(section, "ReadOnly"):
        result += ["--tmpfs", "/tmp:rw,size=512M,mode=1777"]
    return result


def _user_of(unit: UnitFile) -> list[str]:
    user, group = unit.text("Container", "User"), unit.text("Container", "Group")
    if group and not user:
        raise InvalidUnit("invalid Group set without User")
    return ["--user", f"{user}:{group}" if group else user] if user else []


def _secret(word: str) -> str:
    """Return the value of ``--secret`` for podman's, which may be an environment variable."""
    fields = word.split(",")
    kind = next((f.partition("=")[2] for f in fields if f.startswith("type=")), "mount")
    if kind != "mount":
        raise InvalidUnit(
            f"Secret={word}: a secret is a file below /run/secrets, not of type {kind}"
        )
    return ",".join(field for field in fields if not field.startswith("type="))


def _timezone(zone: str) -> str:
    """Return the volume that gives a container the local time of ``zone``."""
    if zone == "local":
        return "/etc/localtime:/etc/localtime:ro"
    if not zone.replace("/", "").replace("_", "").replace("-", "").replace("+", "").isalnum():
        raise InvalidUnit(f"Timezone={zone}: it is not the name of a time zone")
    return f"/usr/share/zoneinfo/{zone}:/etc/localtime:ro"


def _entrypoint_words(text: str) -> list[str]:
    """Return the words of an entry point that is a JSON array."""
    from jaula.spec import fast_json

    try:
        value = fast_json.decode(text.encode("utf-8", "surrogateescape"))
    except ValueError:
        value = None
    if not isinstance(value, list) or not value or not all(isinstance(w, str) for w in value):
        raise InvalidUnit(f"Entrypoint={text}: it is not an array of words")
    return value


def _is_port_range(text: str) -> bool:
    ports = text
    for suffix in ("/udp", "/tcp"):
        ports = ports.removesuffix(suffix)
    first, dash, last = ports.partition("-")
    return first.isdigit() and (last.isdigit() or not dash)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://", "git://", "github.com/"))


def _platform(unit: UnitFile, section: str) -> list[str]:
    """Return the flag of a platform, which podman has as three keys."""
    system, machine = unit.text(section, "OS"), unit.text(section, "Arch")
    variant = unit.text(section, "Variant")
    if not (system or machine or variant):
        return []
    machine = machine or _MACHINES.get(os.uname().machine, os.uname().machine)
    return ["--platform", "/".join(part for part in (system or "linux", machine, variant) if part)]


def _working_directory(unit: UnitFile, service: UnitFile, section: str) -> str:
    """Set ``WorkingDirectory=`` by ``SetWorkingDirectory=``; return the context of a build."""
    value = unit.text(section, "SetWorkingDirectory")
    if not value:
        return ""
    context = file = ""
    match value.lower():
        case "unit":
            file = unit.path
        case "yaml" | "file" as name:
            key, owner = {"yaml": ("Yaml", "Kube"), "file": ("File", "Build")}[name]
            if section != owner:
                raise InvalidUnit(
                    f"SetWorkingDirectory={value} is only supported in .{owner.lower()} files"
                )
            file = unit.text(section, key)
            if not file:
                raise InvalidUnit(f"no {key} key specified")
        case _:
            if section != "Build":
                raise InvalidUnit(f"unsupported value for WorkingDirectory: {value}")
            context = value
            file = "" if value.startswith("/") else unit.path
    if not file or _is_url(context):
        return context
    if unit.text("Service", "WorkingDirectory"):
        return ""
    service.add("Service", "WorkingDirectory", os.path.dirname(_absolute(unit, file)))
    return context
