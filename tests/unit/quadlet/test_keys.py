"""Each key of podman's unit files is served, named in a warning, or refused."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from jaula.features.quadlet import unit_keys
from jaula.features.quadlet.convert import Converter
from jaula.features.quadlet.unit_file import InvalidUnit, UnitFile

MAN_PAGE = Path("/usr/share/man/man5/podman-systemd.unit.5.gz")

# The keys of podman-systemd.unit(5) of podman 5.4.2.
PODMAN = {
    "Container": """AddCapability AddDevice AddHost Annotation AutoUpdate CgroupsMode ContainerName
        ContainersConfModule DNS DNSOption DNSSearch DropCapability Entrypoint Environment
        EnvironmentFile EnvironmentHost Exec ExposeHostPort GIDMap GlobalArgs Group GroupAdd
        HealthCmd HealthInterval HealthLogDestination HealthMaxLogCount HealthMaxLogSize
        HealthOnFailure HealthRetries HealthStartPeriod HealthStartupCmd HealthStartupInterval
        HealthStartupRetries HealthStartupSuccess HealthStartupTimeout HealthTimeout HostName IP
        IP6 Image Label LogDriver LogOpt Mask Mount Network NetworkAlias NoNewPrivileges Notify
        PidsLimit Pod PodmanArgs PublishPort Pull ReadOnly ReadOnlyTmpfs Rootfs RunInit
        SeccompProfile Secret SecurityLabelDisable SecurityLabelFileType SecurityLabelLevel
        SecurityLabelNested SecurityLabelType ShmSize StartWithPod StopSignal StopTimeout SubGIDMap
        SubUIDMap Sysctl Timezone Tmpfs UIDMap Ulimit Unmask User UserNS Volume WorkingDir""",
    "Pod": """AddHost ContainersConfModule DNS DNSOption DNSSearch GIDMap GlobalArgs IP IP6 Network
        NetworkAlias PodName PodmanArgs PublishPort ServiceName ShmSize SubGIDMap SubUIDMap UIDMap
        UserNS Volume""",
    "Kube": """AutoUpdate ConfigMap ContainersConfModule ExitCodePropagation GlobalArgs
        KubeDownForce LogDriver Network PodmanArgs PublishPort SetWorkingDirectory UserNS Yaml""",
    "Network": """ContainersConfModule DNS DisableDNS Driver Gateway GlobalArgs IPAMDriver IPRange
        IPv6 Internal Label NetworkName Options PodmanArgs Subnet""",
    "Volume": """ContainersConfModule Copy Device Driver GlobalArgs Group Image Label Options
        PodmanArgs Type User VolumeName""",
    "Build": """Annotation Arch AuthFile ContainersConfModule DNS DNSOption DNSSearch Environment
        File ForceRM GlobalArgs GroupAdd ImageTag Label Network PodmanArgs Pull Secret
        SetWorkingDirectory TLSVerify Target Variant Volume""",
    "Image": """AllTags Arch AuthFile CertDir ContainersConfModule Creds DecryptionKey GlobalArgs
        Image ImageTag OS PodmanArgs TLSVerify Variant""",
    "Quadlet": "DefaultDependencies",
}

# The lines that a unit needs, and those that a key needs beside it.
REQUIRED = {
    "Container": "Image=busybox",
    "Build": "ImageTag=localhost/x\nSetWorkingDirectory=/src",
    "Image": "Image=busybox",
    "Kube": "Yaml=/a.yaml",
}
BESIDE = {
    ("Container", "Group"): "User=1",
    ("Container", "ReadOnlyTmpfs"): "ReadOnly=true",
    ("Container", "StartWithPod"): "Pod=all.pod",
    ("Network", "Gateway"): "Subnet=10.9.0.0/24",
    ("Network", "IPRange"): "Subnet=10.9.0.0/24",
    **{("Volume", key): "Device=/dev/x" for key in ("Group", "Options", "Type", "User")},
}
VALUES = {
    "AddDevice": "/dev/null", "AutoUpdate": "registry", "CgroupsMode": "disabled",
    "Copy": "false", "DefaultDependencies": "false", "Environment": "A=b",
    "ExitCodePropagation": "all", "Gateway": "10.9.0.1", "IPRange": "10.9.0.0/25",
    "ImageTag": "localhost/y", "Label": "a=b", "Annotation": "a=b", "Mount": "type=tmpfs,target=/t",
    "Network": "host", "Notify": "healthy", "Options": "a=b", "Pod": "all.pod", "Pull": "always",
    "ReadOnlyTmpfs": "false", "RemapUsers": "keep-id", "Secret": "s",
    "SetWorkingDirectory": "unit", "StartWithPod": "false", "Subnet": "10.9.0.0/24",
    "Sysctl": "a=1", "Tmpfs": "/t", "UserNS": "host", "Volume": "/a:/b", "VolatileTmp": "true",
    "HealthOnFailure": "kill",
}  # fmt: skip
# Keys that are refused for the value in VALUES.
REFUSED = ("CgroupsMode", "Copy", "RemapGid", "RemapUid", "SecurityLabelNested")
# Keys that change the services of other units only.
WITHOUT_EFFECT = {("Image", "ImageTag")}


def convert(section: str, *lines: str) -> tuple[str, list[str]]:
    """Return the service of a unit, and the service of a pod beside it, and the warnings."""
    kind = next(kind for kind, name in unit_keys.SECTIONS.items() if name == section)
    common = [line for line in lines if line.startswith("DefaultDependencies")]
    own = [line for line in lines if line not in common]
    unit = UnitFile(f"web.{kind}", f"/etc/jaula/systemd/web.{kind}")
    unit.read("\n".join((f"[{section}]", *own, "[Quadlet]", *common)))
    pod = UnitFile("all.pod", "/etc/jaula/systemd/all.pod")
    pod.read("[Pod]\n")
    warnings: list[str] = []
    converter = Converter([unit, pod], "jaula", warn=warnings.append)
    services = [converter.convert(unit), converter.convert(pod)]
    for service in services:
        for name in [name for name in service.sections if name.startswith("X-")]:
            del service.sections[name]  # the copy of the unit
    return "".join(f"{service.name}\n{service.render()}" for service in services), warnings


@pytest.mark.parametrize(
    ("section", "key"),
    [(s, k) for s in unit_keys.SECTIONS.values() for k in sorted(unit_keys.KEYS[s])]
    + [("Container", "DefaultDependencies")],
)
def test_no_key_is_ignored_in_silence(section: str, key: str) -> None:
    lines = [*REQUIRED.get(section, "").split("\n"), BESIDE.get((section, key), "")]
    before, _ = convert(section, *lines)
    with_key = (*lines, f"{key}={VALUES.get(key, '1')}")
    if (section, key) in unit_keys.IMPOSSIBLE or key in REFUSED:
        with pytest.raises(InvalidUnit, match=key):  # it names the key
            convert(section, *with_key)
        return
    after, warnings = convert(section, *with_key)
    assert after != before or warnings or (section, key) in WITHOUT_EFFECT


@pytest.mark.parametrize("key", sorted(unit_keys.CLIENT_ONLY))
def test_a_limit_of_the_service_that_does_not_reach_the_container_is_named(key: str) -> None:
    for section in ("Container", "Kube", "Pod"):
        lines = (*REQUIRED.get(section, "").split("\n"), "[Service]", f"{key}=1")
        service, warnings = convert(section, *lines)
        assert any(f"{key}= of the service limits the client" in text for text in warnings)
        assert f"{key}=1" in service


def test_services_have_no_delegated_cgroup() -> None:
    """The processes of a container are in a cgroup of the engine, and never in the service's."""
    for section in ("Container", "Kube", "Pod"):
        service, _ = convert(section, *REQUIRED.get(section, "").split("\n"))
        assert "Delegate" not in service


def test_each_key_of_podman_is_known() -> None:
    for section, names in PODMAN.items():
        assert set(names.split()) <= unit_keys.KEYS[section]
    assert {section for section, _ in unit_keys.IMPOSSIBLE} <= set(PODMAN)
    assert all(
        key in unit_keys.KEYS[section]
        for section, key in (*unit_keys.IMPOSSIBLE, *unit_keys.IGNORED)
    )


@pytest.mark.skipif(not MAN_PAGE.exists(), reason="podman's man pages are not installed")
def test_the_list_of_keys_is_that_of_the_installed_podman() -> None:
    section, read = "", {name: set[str]() for name in PODMAN}
    for line in gzip.decompress(MAN_PAGE.read_bytes()).decode().splitlines():
        if heading := re.match(r"\.SH .*\[(\w+)\]", line):
            section = heading[1]
        elif line.startswith(".SH"):
            section = ""
        elif section and (key := re.match(r"\.SS \\fB(\w+)=", line)):
            read[section].add(key[1])
    assert read == {name: set(text.split()) for name, text in PODMAN.items()}
