"""Services of quadlet's files: each key, dependencies, and what is refused."""

import shlex

import pytest

from jaula.features.quadlet import convert, unit_keys
from jaula.features.quadlet.convert import Converter
from jaula.features.quadlet.unit_file import InvalidUnit, UnitFile


def units(**files: str) -> list[UnitFile]:
    """Return units; ``web_container`` is the file ``web.container``."""
    result = []
    for name, text in files.items():
        stem, _, kind = name.rpartition("_")
        unit = UnitFile(f"{stem}.{kind}", f"/etc/jaula/systemd/{stem}.{kind}")
        unit.read(text)
        result.append(unit)
    return sorted(result, key=lambda unit: unit_keys.ORDER.index(convert.kind_of(unit.name)))


def services(*, user: bool = False, **files: str) -> dict[str, UnitFile]:
    loaded = units(**files)
    converter = Converter(loaded, "jaula", user=user)
    return {service.name: service for service in map(converter.convert, loaded)}


def container(*lines: str) -> UnitFile:
    text = "\n".join(("[Container]", "Image=busybox", *lines))
    return services(web_container=text)["web.service"]


def command(service: UnitFile, key: str = "ExecStart") -> list[str]:
    return service.last_words("Service", key)


def has(service: UnitFile, *expected: str) -> bool:
    text = "\0".join(command(service)) + "\0"
    return "\0".join(expected) + "\0" in text


CASES = [
    ("AddCapability=NET_ADMIN SYS_TIME", "--cap-add net_admin --cap-add sys_time"),
    ("DropCapability=all", "--cap-drop all"),
    ("AddDevice=/dev/null:/dev/x", "--device /dev/null:/dev/x"),
    ("AddDevice=-/dev/null", "--device /dev/null"),
    ("AddHost=a:10.0.0.1", "--add-host a:10.0.0.1"),
    ("Annotation=a=b", "--annotation a=b"),
    ("AutoUpdate=registry", "--label io.containers.autoupdate=registry"),
    ("ContainerName=own", "--name own"),
    ("DNS=10.0.0.2", "--dns 10.0.0.2"),
    ("DNSOption=ndots:1", "--dns-option ndots:1"),
    ("DNSSearch=a.b", "--dns-search a.b"),
    ("Egress=tcp:a:443", "--egress tcp:a:443"),
    ("Entrypoint=/bin/x", "--entrypoint /bin/x"),
    ('Environment=B=2 "A=1 2"', "--env 'A=1 2' --env B=2"),
    ("EnvironmentFile=a.env", "--env-file /etc/jaula/systemd/a.env"),
    ("EnvironmentFile=%h/a.env", "--env-file %h/a.env"),
    ("EnvironmentHost=true", "--env-host"),
    ("Exec=sh -c 'echo \"a b\"'", "busybox sh -c 'echo \"a b\"'"),
    ("ExposeHostPort=80-90/udp", "--expose 80-90/udp"),
    ("User=1\nGroup=2", "--user 1:2"),
    ("GroupAdd=audio", "--group-add audio"),
    ("HealthCmd=/bin/true\nHealthInterval=5s", "--health-cmd /bin/true --health-interval 5s"),
    ("HealthOnFailure=kill", "--health-on-failure kill"),
    ("HealthOnFailure=restart", "--health-on-failure kill"),
    ("HealthCmd=none", "--no-healthcheck"),
    ("HostName=h", "--hostname h"),
    ("IP=10.0.0.9", "--ip 10.0.0.9"),
    ("Label=a=b c=d", "--label a=b --label c=d"),
    ("Listen=tcp:80", "--listen tcp:80"),
    ("LogDriver=journald\nLogOpt=tag=x", "--log-driver journald"),
    ("LogOpt=tag=x", "--log-opt tag=x"),
    ("Mask=/proc/a:/proc/b", "--security-opt mask=/proc/a:/proc/b"),
    ("Memory=64m", "--memory 64m"),
    ("Mount=type=tmpfs,destination=/a", "--mount type=tmpfs,destination=/a"),
    ("Network=host", "--network host"),
    ("Network=own:ip=10.0.0.3,mac=02:00:00:00:00:01",
     "--network name=own,ip=10.0.0.3,mac-address=02:00:00:00:00:01"),
    ("Network=container:other", "--network container:other"),
    ("NetworkAlias=a", "--network-alias a"),
    ("NoNewPrivileges=true", "--security-opt no-new-privileges"),
    ("Notify=true", "--sdnotify=container"),
    ("Notify=healthy", "--sdnotify=healthy"),
    ("PidsLimit=10", "--pids-limit 10"),
    ("PodmanArgs=--cpus 2", "--cpus 2 busybox"),
    ("JaulaArgs=--why", "--why busybox"),
    ("Profile=strict", "--profile strict"),
    ("PublishPort=80:80", "--publish 80:80"),
    ("Pull=newer", "--pull always"),
    ("ReadOnly=true", "--read-only --tmpfs /run --tmpfs /tmp --tmpfs /var/tmp"),
    ("ReadOnly=true\nTmpfs=/run:size=1m", "--read-only --tmpfs /tmp --tmpfs /var/tmp"),
    ("RunInit=yes", "--init"),
    ("SeccompProfile=/a.json", "--security-opt seccomp=/a.json"),
    ("Secret=key,target=x,type=mount", "--secret key,target=x"),
    ("SecurityLabelType=t", "--security-opt label=type:t"),
    ("SecurityLabelDisable=true", "--security-opt label=disable"),
    ("ShmSize=1m", "--shm-size 1m"),
    ("StopSignal=INT\nStopTimeout=3", "--stop-signal INT --stop-timeout 3"),
    ("Sysctl=net.a=1 net.b=2", "--sysctl net.a=1 --sysctl net.b=2"),
    ("Timezone=Europe/Madrid",
     "--volume /usr/share/zoneinfo/Europe/Madrid:/etc/localtime:ro"),
    ("Tmpfs=/a:size=1m", "--tmpfs /a:size=1m"),
    ("Ulimit=nofile=10:20", "--ulimit nofile=10:20"),
    ("Unmask=ALL", "--security-opt unmask=ALL"),
    ("UserNS=keep-id", "--userns keep-id"),
    ("RemapUsers=auto", "--userns auto"),
    ("Volume=/a:/b:ro", "-v /a:/b:ro"),
    ("Volume=./a:/b", "-v /etc/jaula/systemd/a:/b"),
    ("Volume=/b", "-v /b"),
    ("WorkingDir=/w", "--workdir /w"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_a_key_of_a_container_is_a_flag_of_run(line: str, expected: str) -> None:
    assert has(container(line), *shlex.split(expected))


def test_a_key_is_served_or_refused_or_named_as_without_effect() -> None:
    """Each key of a container that has no case above is here."""
    tested = {line.partition("=")[0] for line, _ in CASES}
    elsewhere = {
        *("CgroupsMode", "GlobalArgs", "Group", "HealthInterval", "HealthRetries"),
        *("HealthStartPeriod", "HealthTimeout", "IP6", "Image", "Pod", "ReadOnlyTmpfs"),
        *("ReloadCmd", "ReloadSignal", "RemapGid", "RemapUid", "RemapUidSize"),
        *("SecurityLabelFileType", "SecurityLabelLevel", "SecurityLabelNested", "ServiceName"),
        *("StartWithPod", "StopTimeout", "VolatileTmp"),
    }
    refused = {key for section, key in unit_keys.IMPOSSIBLE if section == "Container"}
    ignored = {key for section, key in unit_keys.IGNORED if section == "Container"}
    assert unit_keys.KEYS["Container"] == tested | elsewhere | refused | ignored


def test_a_service_runs_the_container_in_the_foreground() -> None:
    service = container("Exec=httpd -f")
    assert command(service)[:7] == [
        *("jaula", "run", "--name", "systemd-%N", "--cidfile=%t/%N.cid", "--replace", "--rm")
    ]
    assert "-d" not in command(service)
    assert service.text("Service", "Type") == "notify"
    assert service.text("Service", "KillMode") == "mixed"
    assert command(service, "ExecStop") == ["jaula", "stop", "-i", "--cidfile=%t/%N.cid"]
    assert command(service, "ExecStopPost")[0] == "-jaula"
    assert service.text("Unit", "After") == "network-online.target jaula.service"
    assert "Container" not in service.sections
    assert service.text("X-Container", "Image") == "busybox"


def test_a_service_of_a_user_does_not_wait_for_the_link() -> None:
    made = services(user=True, web_container="[Container]\nImage=x\n")["web.service"]
    assert made.text("Unit", "After") == "jaula.service"


def test_a_oneshot_service_does_not_notify() -> None:
    service = container("[Service]", "Type=oneshot")
    assert not any(word.startswith("--sdnotify") for word in command(service))


def test_default_dependencies_can_be_left_out() -> None:
    assert not container("[Quadlet]", "DefaultDependencies=no").has("Unit", "After")


def test_a_template_names_its_container_by_its_instance() -> None:
    text = "[Container]\nImage=x\n"
    loaded = units(**{"web@_container": text})
    assert has(Converter(loaded, "jaula").convert(loaded[0]), "--name", "systemd-%p_%i")


def test_an_entry_point_may_be_an_array() -> None:
    service = container('Entrypoint=["sh", "-c"]', "Exec=date")
    assert has(service, "--entrypoint", "sh", "busybox", "-c", "date")


def test_reload_runs_a_command_or_sends_a_signal() -> None:
    assert command(container("ReloadSignal=HUP"), "ExecReload")[1:4] == ["kill", "--signal", "HUP"]
    service = container("ReloadCmd=nginx -s reload")
    assert command(service, "ExecReload")[-4:] == ["systemd-%N", "nginx", "-s", "reload"]


def test_a_unit_needs_the_units_whose_resources_it_uses() -> None:
    made = services(
        web_container="""[Container]
Image=app.build
Volume=data.volume:/data
Mount=type=bind,source=/srv,target=/srv
Network=net.network:ip=10.0.0.5
Pod=all.pod
""",
        side_container="[Container]\nImage=base.image\nNetwork=web.container\n",
        data_volume="[Volume]\n",
        net_network="[Network]\nNetworkName=lan\n",
        all_pod="[Pod]\nPublishPort=80:80\n",
        app_build="[Build]\nImageTag=localhost/app\nSetWorkingDirectory=unit\n",
        base_image="[Image]\nImage=docker.io/library/busybox\n",
    )
    web = made["web.service"]
    assert web.texts("Unit", "Requires") == [
        "app-build.service", "net-network.service", "data-volume.service",
    ]  # fmt: skip
    assert web.texts("Unit", "BindsTo") == ["all-pod.service"]
    assert "/srv" in web.texts("Unit", "RequiresMountsFor")
    assert has(web, "--network", "name=lan,ip=10.0.0.5")
    assert has(web, "-v", "systemd-data:/data")
    assert has(web, "--pod-id-file", "%t/all-pod.pod-id", "localhost/app")
    assert has(made["side.service"], "--network", "container:systemd-web")
    assert made["all-pod.service"].texts("Unit", "Wants")[-1:] == ["web.service"]
    assert made["all-pod.service"].texts("Unit", "Before") == ["web.service"]
    start = command(made["all-pod.service"])
    assert start[1:] == [
        "pod",
        "start",
        "--wait",
        "--sdnotify=conmon",
        "--pod-id-file=%t/%N.pod-id",
    ]


def test_resources_are_made_once() -> None:
    made = services(
        data_volume="[Volume]\nDevice=tmpfs\nType=tmpfs\nUser=5\nOptions=size=1m\nLabel=a=b\n",
        net_network="[Network]\nSubnet=10.1.0.0/24\nGateway=10.1.0.1\nIPv6=false\nOptions=mtu=9000\n",
    )
    assert command(made["data-volume.service"])[1:] == [
        *("volume", "create", "--opt", "device=tmpfs", "--opt", "type=tmpfs"),
        *("--opt", "o=uid=5,size=1m", "--label", "a=b", "systemd-data"),
    ]
    assert command(made["net-network.service"])[1:] == [
        *("network", "create", "--ignore", "--ipv6=false", "--subnet", "10.1.0.0/24"),
        *("--gateway", "10.1.0.1", "--opt", "mtu=9000", "systemd-net"),
    ]
    assert made["data-volume.service"].text("Service", "Type") == "oneshot"
    assert made["data-volume.service"].text("Service", "RemainAfterExit") == "yes"


def test_a_kube_file_is_played_and_taken_down() -> None:
    made = services(
        app_kube="[Kube]\nYaml=app.yaml\nConfigMap=m.yaml\nSetWorkingDirectory=yaml\n"
        "PublishPort=80:80\nExitCodePropagation=any\n"
    )["app.service"]
    start = command(made)
    assert start[1:6] == ["kube", "play", "--replace", "--wait", "--sdnotify=conmon"]
    assert start[-1] == "/etc/jaula/systemd/app.yaml"
    assert command(made, "ExecStopPost")[1:] == ["kube", "down", "/etc/jaula/systemd/app.yaml"]
    assert made.text("Service", "WorkingDirectory") == "/etc/jaula/systemd"


def test_an_image_is_pulled_for_its_platform() -> None:
    made = services(
        a_image="[Image]\nImage=x\nArch=arm\nOS=linux\nVariant=v7\nAllTags=true\nAuthFile=/a\n"
    )["a-image.service"]
    assert command(made)[1:] == ["pull", "--all-tags", "--platform", "linux/arm/v7", "x"]
    assert made.text("Service", "Environment") == "REGISTRY_AUTH_FILE=/a"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a_container": "[Container]\nImage=x\nFoo=1\n"}, "unsupported key 'Foo' in group"),
        ({"a_container": "[Container]\nExec=x\n"}, "no Image key"),
        ({"a_container": "[Container]\nImage=x\nUIDMap=0:1:2\n"}, "UIDMap= cannot be served"),
        ({"a_container": "[Container]\nImage=x\nGroup=1\n"}, "Group set without User"),
        ({"a_container": "[Container]\nImage=x\nNetwork=b.network\n"}, "b.network was not found"),
        ({"a_container": "[Container]\nImage=b.image\n"}, "b.image was not found"),
        ({"a_container": "[Container]\nImage=x\nPod=b.pod\n"}, "b.pod does not exist"),
        ({"a_container": "[Container]\nImage=x\nPod=b\n"}, "not Quadlet based"),
        ({"a_container": "[Container]\nImage=x\nSecret=a,type=env\n"}, "type env"),
        ({"a_container": "[Container]\nImage=x\nExposeHostPort=a\n"}, "invalid port format"),
        ({"a_container": "[Container]\nImage=x\nTimezone=../../etc/shadow\n"}, "time zone"),
        ({"a_container": "[Container]\nImage=x\nEntrypoint=[1]\n"}, "array of words"),
        ({"a_container": "[Container]\nImage=x\n[Service]\nKillMode=none\n"}, "KillMode"),
        ({"a_container": "[Container]\nImage=x\n[Service]\nType=simple\n"}, "service Type"),
        ({"a_container": "[Pod]\n"}, "section"),
        ({"a_network": "[Network]\nGateway=10.0.0.1\n"}, "without subnet"),
        ({"a_volume": "[Volume]\nType=tmpfs\n"}, "without Device"),
        ({"a_volume": "[Volume]\nDriver=image\n"}, "Driver=image"),
        ({"a_build": "[Build]\nFile=x\n"}, "no ImageTag"),
        ({"a_build": "[Build]\nImageTag=x\nFile=./x\n"}, "SetWorkingDirectory"),
        ({"a_kube": "[Kube]\n"}, "no Yaml"),
        ({"a_image": "[Image]\n"}, "no Image"),
        ({"a_pod": "[Pod]\nNetwork=x:mode=1\n"}, "mode=1"),
    ],
)
def test_an_invalid_unit_is_an_error_that_names_the_key(
    files: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidUnit, match=message.replace("[", r"\[")):
        services(**files)


def test_a_unit_that_needs_one_with_an_error_is_an_error() -> None:
    loaded = units(
        a_container="[Container]\nImage=x\nVolume=b.volume:/b\n", b_volume="[Volume]\nFoo=1\n"
    )
    converter = Converter(loaded, "jaula")
    volume, user = loaded
    with pytest.raises(InvalidUnit):
        converter.convert(volume)
    with pytest.raises(InvalidUnit, match=r"b\.volume, which has an error"):
        converter.convert(user)
