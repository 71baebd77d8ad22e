"""Other forms of a profile, read back by parsers of their formats."""

import json
import shlex
from typing import Any

import pytest
import yaml

from jaula.features.harden.formats import apparmor, compose, docker, kubernetes, quadlet, seccomp
from jaula.security.seccomp.docker_profile import parse
from jaula.spec.confinement_profile import Files, Limits, Network, Process, Profile, Seccomp

HOSTILE = "/srv/a b\"c'd$e%f*g{h},i\nj\\k\x1b/"
WEB = Profile(
    name="Web_1",
    image="registry.example/web:1",
    process=Process(user="101:102"),
    capabilities=("CHOWN", "SETGID"),
    seccomp=Seccomp(
        syscalls={"x86_64": ("clone", "mount", "read", "socket")},
        unavailable={"x86_64": ("clone3",)},
    ),
    files=Files(
        tmpfs={"/tmp": "size=64m,mode=1777", HOSTILE.rstrip("/"): ""},
        volumes=("/var/lib/web", "/a,b"),
        read=("/etc/web.conf", HOSTILE),
        write=("/tmp/",),
        execute=("/usr/sbin/web",),
        masked=("/proc/kallsyms",),
    ),
    network=Network(
        listen=("tcp:0", "tcp:80", "udp:5353"),
        egress=("tcp:192.0.2.1:443", "tcp:[2001:db8::1]:443", "tcp:db.example:5432"),
    ),
    limits=Limits(pids=20, memory=1 << 26, cpus=0.5),
    devices=("/dev/fuse",),
    notes=("a note\nof two lines",),
)
LEAST = Profile(name="least")
OFFLINE = Profile(name="offline", network=Network(mode="none", egress=()))
ALL = pytest.mark.parametrize("profile", [WEB, LEAST, OFFLINE], ids=lambda profile: profile.name)
FORMS = pytest.mark.parametrize(
    "form", [docker, compose, kubernetes, quadlet, apparmor], ids=lambda form: form.__name__
)


@ALL
@FORMS
def test_no_text_of_a_profile_ends_a_comment_or_has_control_characters(
    form: Any, profile: Profile
) -> None:
    text = form.render(profile)
    assert all(line.isprintable() or form is docker for line in text.splitlines())
    assert not any(line.startswith("of two lines") for line in text.splitlines())


def test_a_form_says_what_it_cannot_express() -> None:
    assert "#   destinations that it may connect to" in docker.render(WEB).splitlines()
    assert "cannot express" not in docker.render(LEAST)
    assert "#   names as destinations" in kubernetes.render(WEB)


def test_flags_of_docker_are_words_of_a_shell() -> None:
    words = shlex.split(docker.render(WEB), comments=True)
    assert words[:3] == ["exec", "docker", "run"]
    assert words[words.index("--user") + 1] == "101:102"
    assert f"{HOSTILE.rstrip('/')}" in words
    assert "type=volume,src=Web_1-var-lib-web,dst=/var/lib/web" in words
    assert 'type=volume,src=Web_1-a-b,"dst=/a,b"' in words
    assert words[words.index("--memory-swap") + 1] == str(1 << 26)
    assert shlex.split(docker.render(OFFLINE), comments=True).count("none") == 1


def test_a_service_of_compose_has_the_options() -> None:
    document = yaml.safe_load(compose.render(WEB))
    service = document["services"]["Web_1"]
    assert service["cap_drop"] == ["ALL"]
    assert service["cap_add"] == ["CHOWN", "SETGID"]
    assert service["tmpfs"][1] == HOSTILE.rstrip("/").replace("$", "$$")
    assert service["volumes"][1]["target"] == "/a,b"
    assert service["read_only"] is True
    assert set(document["volumes"]) == {"Web_1-var-lib-web", "Web_1-a-b"}
    assert yaml.safe_load(compose.render(OFFLINE))["services"]["offline"]["network_mode"] == "none"


def test_a_pod_has_a_security_context_and_a_network_policy() -> None:
    documents = list(yaml.safe_load_all(kubernetes.render(WEB)))
    assert [each["kind"] for each in documents] == [
        "PersistentVolumeClaim", "PersistentVolumeClaim", "Pod", "NetworkPolicy",
    ]  # fmt: skip
    pod, policy = documents[2:]
    container = pod["spec"]["containers"][0]
    assert pod["metadata"]["name"] == container["name"] == "web-1"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "SETGID"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "Localhost", "localhostProfile": "Web_1.seccomp.json"},
        "runAsUser": 101,
        "runAsGroup": 102,
        "runAsNonRoot": True,
    }
    assert container["resources"]["limits"] == {"memory": str(1 << 26), "cpu": "500m"}
    assert pod["spec"]["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    assert pod["spec"]["securityContext"]["sysctls"][0]["value"] == "0"
    egress = policy["spec"]["egress"]
    assert egress[0]["to"][0]["ipBlock"]["cidr"] == "192.0.2.1/32"
    assert egress[1]["to"][0]["ipBlock"]["cidr"] == "2001:db8::1/128"
    assert egress[2]["ports"][0]["port"] == 53
    assert policy["spec"]["ingress"][0]["ports"][0] == {"protocol": "TCP", "port": 80}


def test_a_container_without_a_network_gets_no_connection_in_a_pod() -> None:
    policy = list(yaml.safe_load_all(kubernetes.render(OFFLINE)))[-1]
    assert policy["spec"]["ingress"] == policy["spec"]["egress"] == []


def test_a_quadlet_doubles_specifiers_and_leaves_out_what_needs_quotes() -> None:
    lines = quadlet.render(WEB).splitlines()
    assert "DropCapability=all" in lines
    assert "AddCapability=CAP_CHOWN" in lines
    assert "Mask=/proc/kallsyms" in lines
    assert "Sysctl=net.ipv4.ip_unprivileged_port_start=0" in lines
    assert not any(line.startswith("Tmpfs=/srv") for line in lines)
    assert any("Not in this unit" in line and "/srv/a b" in line for line in lines)
    assert quadlet.setting("Tmpfs", "/a%b$c") == "Tmpfs=/a%%b$$c"


def test_apparmor_escapes_patterns() -> None:
    text = apparmor.render(WEB)
    assert '"/usr/sbin/web" rmix,' in text
    assert '\\*g\\{h\\}\\,i\\012j\\\\k\\033/{,**}" rm,' in text
    assert 'deny "/proc/kallsyms{,/**}" rwklx,' in text
    assert '"/{,**}" rmix,' in apparmor.render(LEAST)


def rules_of(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [rule for rule in document["syscalls"] if name in rule["names"]]


def test_the_filter_keeps_the_conditions_of_the_default() -> None:
    document = seccomp.document(WEB)
    assert rules_of(document, "clone")[0]["args"][0]["op"] == "SCMP_CMP_MASKED_EQ"
    assert all(rule["args"] for rule in rules_of(document, "socket"))
    assert "args" not in rules_of(document, "read")[0]
    assert "args" not in rules_of(document, "mount")[0]
    assert rules_of(document, "clone3")[0]["errnoRet"] == 38
    assert not rules_of(document, "bpf")


@ALL
def test_the_filter_is_a_profile_of_docker(profile: Profile) -> None:
    text = seccomp.render(profile)
    filter_ = parse(text.encode(), {"CAP_CHOWN"}, "6.18")
    assert filter_.default_action == "SCMP_ACT_ERRNO"
    names = [name for rule in json.loads(text)["syscalls"] for name in rule["names"]]
    assert {"execve", "exit_group"} <= set(names)
