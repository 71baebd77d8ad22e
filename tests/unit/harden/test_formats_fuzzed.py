"""Every form of any profile is read back as what was written, by the tools that are meant to read.

Either a value is refused by its grammar, or it is one value of the form and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.features.harden import profile_toml
from jaula.features.harden.formats import (
    apparmor,
    compose,
    docker,
    kubernetes,
    needs,
    quadlet,
    seccomp,
)
from jaula.features.harden.formats import yaml as yaml_form
from jaula.security.seccomp.docker_profile import parse
from jaula.spec import confinement_profile
from jaula.spec.confinement_profile import Files, Limits, Network, Process, Profile, Seccomp
from jaula.spec.quoted_string import quoted

FORMS = (apparmor, compose, docker, kubernetes, quadlet, seccomp)
GENERATOR = "/usr/lib/systemd/system-generators/podman-system-generator"
PARSER = shutil.which("apparmor_parser")
NASTY = (
    *("\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "\U0001f600", "\U000e0001"),
    *(" ", "'", '"', "\\", "$", "$(x)", "${x}", "%", "%n", ",", ";", "#", "=", "{", "}", "[", "]"),
    *("*", "?", "@", "^", "|", "&", "!", "-", "--", ": ", "- ", "\\\n", "]]>", "a", "b", "Z", "0"),
)
NAMES = st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}\Z", fullmatch=True)
PART = st.lists(st.sampled_from(NASTY), min_size=1, max_size=6).map("".join)
PATHS = st.lists(PART, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
MOUNTS = PATHS.map(lambda path: path.replace(":", "")).filter(confinement_profile.is_mount_path)
OPTIONS = st.sampled_from(["", "size=64m", "size=1m,mode=1777", "exec,size=2g"])
PROFILES = st.builds(
    lambda files, **fields: Profile(files=files, **fields),
    files=st.builds(
        Files,
        read_only_root=st.booleans(),
        tmpfs=st.dictionaries(MOUNTS, OPTIONS, max_size=3),
        volumes=st.lists(MOUNTS, max_size=3, unique=True).map(tuple),
        read=st.lists(PATHS, max_size=3, unique=True).map(tuple),
        write=st.lists(PATHS, max_size=3, unique=True).map(tuple),
        execute=st.lists(PATHS, max_size=3, unique=True).map(tuple),
        masked=st.lists(PATHS, max_size=3, unique=True).map(tuple),
    ),
    name=NAMES,
    image=st.sampled_from(["", "busybox", "r.example:5000/a/b:1", "x.image", "a@sha256:00"]),
    process=st.builds(Process, user=st.sampled_from(["", "0", "101:102", "www-data:www-data"])),
    capabilities=st.lists(
        st.sampled_from(["CHOWN", "CAP_KILL", "sys_admin"]), max_size=3, unique=True
    ).map(tuple),
    network=st.sampled_from(
        [Network(), Network(mode="none", egress=()), Network(listen=("tcp:80", "udp:0")),
         Network(egress=("tcp:192.0.2.1:443", "udp:[2001:db8::]/32:1-9", "tcp:db.example:*"))]
    ),
    limits=st.sampled_from([Limits(), Limits(pids=9, memory=1 << 26, cpus=0.0001)]),
    devices=st.sampled_from([(), ("/dev/fuse",), ("/dev/a$%:/x,y:rw", "/dev/b")]),
    notes=st.lists(PART, max_size=3, unique=True).map(tuple),
    seccomp=st.sampled_from([Seccomp(), Seccomp(syscalls={"x86_64": ("read", "mount")})]),
)  # fmt: skip
FUZZ = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
TOOL = settings(FUZZ, max_examples=25)


@FUZZ
@given(PROFILES)
def test_toml_reads_back(made: Profile) -> None:
    assert confinement_profile.load(profile_toml.dumps(made).encode(), "text") == made


@pytest.mark.parametrize(
    "name", ["y", "N", "yes", "No", "ON", "off", "true", "False", "null", "NULL"]
)
def test_a_word_of_yaml_is_a_name(name: str) -> None:
    made = Profile(name=name)
    assert list(yaml.safe_load(compose.render(made))["services"]) == [name]
    assert yaml.safe_load("\n".join(yaml_form.block({name: {name: name}}))) == {name: {name: name}}


@FUZZ
@given(PROFILES)
def test_compose_reads_back(made: Profile) -> None:
    read = yaml.safe_load(compose.render(made))
    assert list(read) == (["services", "volumes"] if made.files.volumes else ["services"])
    assert list(read["services"]) == [made.name]
    service = read["services"][made.name]

    def plain(words: list[str]) -> list[str]:
        return [word.replace("$$", "$") for word in words]

    assert plain(service.get("tmpfs", [])) == [
        f"{path}:{options}" if options else path for path, options in made.files.tmpfs.items()
    ]
    targets = [each["target"] for each in service.get("volumes", [])]
    assert plain(targets) == list(made.files.volumes)
    assert plain(service.get("devices", [])) == list(made.devices)
    assert service.get("cap_add", []) == list(needs.capabilities(made))
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not set(service) - {
        "image", "user", "cap_drop", "cap_add", "security_opt", "devices", "read_only", "tmpfs",
        "volumes", "network_mode", "expose", "pids_limit", "mem_limit", "memswap_limit", "cpus",
    }  # fmt: skip


@FUZZ
@given(PROFILES)
def test_kubernetes_reads_back(made: Profile) -> None:
    documents = list(yaml.safe_load_all(kubernetes.render(made)))
    assert {each["kind"] for each in documents} <= {"PersistentVolumeClaim", "Pod", "NetworkPolicy"}
    pod = next(each for each in documents if each["kind"] == "Pod")
    container = pod["spec"]["containers"][0]
    paths = [each["mountPath"] for each in container.get("volumeMounts", [])]
    assert paths == [*made.files.tmpfs, *made.files.volumes]
    added = container["securityContext"]["capabilities"].get("add", [])
    assert added == list(needs.capabilities(made))
    claims = [d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"]
    assert len(set(claims)) == len(made.files.volumes)
    assert all(quoted(claim) == f'"{claim}"' and len(claim) <= 63 for claim in claims)


@TOOL
@given(PROFILES)
def test_a_shell_reads_the_script(tmp_path_factory: pytest.TempPathFactory, made: Profile) -> None:
    directory = tmp_path_factory.mktemp("script")
    (directory / "docker").write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    (directory / "docker").chmod(0o755)
    (directory / "run.sh").write_text(docker.render(made))
    done = subprocess.run(
        ["sh", directory / "run.sh", "image"], capture_output=True, timeout=60,
        env={"PATH": f"{directory}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    words = done.stdout.decode().split("\0")[:-1]
    options = needs.settings(made).items()
    pairs = ((f"--{name}", value) for name, values in options for value in values)
    expected = [word for pair in pairs for word in pair if word]
    assert words[:1] == ["run"]
    assert words[1 : 1 + len(expected)] == expected
    assert words[-1] == "image"
    assert len(words) == 2 + len(expected) + (2 if made.seccomp.syscalls else 0)


@TOOL
@given(PROFILES)
def test_docker_compose_reads_the_service(
    tmp_path_factory: pytest.TempPathFactory, made: Profile
) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    directory = tmp_path_factory.mktemp("compose")
    (directory / "compose.yaml").write_text(compose.render(made))
    (directory / needs.seccomp_file(made)).write_text(seccomp.render(made))
    done = subprocess.run(
        ["docker-compose", "-p", "fuzz", "config", "--format", "json"], cwd=directory,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    service: Any = next(iter(json.loads(done.stdout)["services"].values()))
    volumes = [each["target"].replace("$$", "$") for each in service.get("volumes", [])]
    assert volumes == list(made.files.volumes)
    assert service["cap_drop"] == ["ALL"]
    assert sorted(service.get("cap_add", [])) == list(needs.capabilities(made))
    assert not service.get("privileged")


def settings_of(text: str, section: str) -> list[str]:
    """Return the settings of a section, as a line is one."""
    lines = text.split("\n")
    start = lines.index(f"[{section}]") + 1
    rest = lines[start:]
    end = next((n for n, line in enumerate(rest) if line.startswith("[")), len(rest))
    return [line for line in rest[:end] if line and not line.startswith("#")]


@TOOL
@given(PROFILES)
def test_podman_reads_every_line_of_the_unit(
    tmp_path_factory: pytest.TempPathFactory, made: Profile
) -> None:
    if not os.path.exists(GENERATOR):
        pytest.skip("podman is not installed")
    directory = tmp_path_factory.mktemp("quadlet")
    text = quadlet.render(made)
    (directory / "web.container").write_text(text)
    done = subprocess.run(
        [GENERATOR, "--dryrun"], env={"QUADLET_UNIT_DIRS": str(directory)}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + text
    written = settings_of(text, "Container")
    assert settings_of(done.stdout, "X-Container") == written
    assert "--cap-drop all" in done.stdout
    assert ("--network none" in done.stdout) == (made.network.mode == "none")


@TOOL
@given(PROFILES)
def test_apparmor_reads_its_profile(made: Profile) -> None:
    if PARSER is None:
        pytest.skip("apparmor is not installed")
    done = subprocess.run(
        [PARSER, "-QTK"], input=apparmor.render(made).encode(), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@FUZZ
@given(PROFILES)
def test_apparmor_has_one_rule_in_a_line(made: Profile) -> None:
    lines = apparmor.render(made).splitlines()
    assert all(line.isprintable() for line in lines)
    rules = [line.strip() for line in lines if line.startswith("  ")]
    assert [rule for rule in rules if rule.startswith("capability")] == [
        f"capability {name.lower()}," for name in needs.capabilities(made)
    ]
    files = [rule for rule in rules if rule.startswith(('"', "deny "))]
    assert all(rule.endswith(",") for rule in files)


@FUZZ
@given(PROFILES)
def test_the_seccomp_profile_reads_back(made: Profile) -> None:
    assert parse(seccomp.render(made), frozenset(), "6.18") is not None


@FUZZ
@given(st.text(max_size=30))
def test_a_scalar_of_yaml_reads_back(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    assert yaml.safe_load(quoted(text)) == text
    assert quoted(text).isprintable()


# --- values with another grammar ------------------------------------------------------------------

BAD: list[Profile] = [
    Profile(name="p\n"), Profile(name="p\nExecStart=/bin/sh"), Profile(name="a/b"),
    Profile(name="p", image="x\n[Service]\nExecStart=/x"), Profile(name="p", image="a b"),
    *(
        Profile(name="p", capabilities=(text,))
        for text in ("CHOWN\n/etc/shadow rw,", "CHOWN\nAddDevice=/dev/sda", "CHOWN\n", "ALL",
                     "NO_SUCH", "chown,", "\U0001f600")
    ),
    *(
        Profile(name="p", process=Process(user=text))
        for text in ("0\n", "0\nUser=1", "-1", "a b", "0:0:0", "$(id)")
    ),
    *(
        Profile(name="p", devices=(text,))
        for text in ("/dev/a\n", "/dev/a\nPrivileged=1", "/dev/a b", "/etc/shadow", "/dev/a:/b:x")
    ),
    *(
        Profile(name="p", network=Network(egress=(text,)))
        for text in ("tcp:x:1\n", "tcp:x\ny:1", "tcp:1.1.1.1:99999", "x", "tcp:[::1%\n]:1")
    ),
    *(Profile(name="p", network=Network(listen=(text,))) for text in ("tcp:80\n", "tcp:²", "80")),
    *(
        Profile(name="p", files=Files(tmpfs={path: options}))
        for path, options in (("/a:exec", ""), ("/a", "size=1m:x"), ("/a", "size=1\nVolume=/:/h"),
                              ("a", ""), ("/a/../b", ""), ("/a\0b", ""))
    ),
    *(
        Profile(name="p", files=Files(volumes=(path,)))
        for path in ("/data:ro", "/data:/etc", "relative", "/a/../..", "//a")
    ),
    Profile(name="p", files=Files(masked=("relative",))),
    Profile(name="p", limits=Limits(cpus=float("nan"))), Profile(name="p", limits=Limits(pids=-1)),
]  # fmt: skip


@pytest.mark.parametrize(
    "made", BAD, ids=lambda made: repr(profile_toml.dumps(made).split("\n")[3:9])[:80]
)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__.rpartition(".")[2])
def test_a_value_of_another_grammar_is_refused(form: ModuleType, made: Profile) -> None:
    with pytest.raises(InvalidRequest):
        form.render(made)


@pytest.mark.parametrize(
    "made", BAD, ids=lambda made: repr(profile_toml.dumps(made).split("\n")[3:9])[:80]
)
def test_a_file_with_such_a_value_is_refused(made: Profile) -> None:
    text = profile_toml.dumps(made)
    try:
        loaded = confinement_profile.load(text.encode(), "text")
    except InvalidRequest:
        return
    with pytest.raises(InvalidRequest):  # an unknown capability, which the host's engine tells
        needs.capabilities(loaded)


# --- names ----------------------------------------------------------------------------------------


def test_no_two_volumes_have_one_name() -> None:
    places = [
        ("web", "/a/b"), ("web", "/a-b"), ("web", "/a,b"), ("web", "/a/b/"), ("web", "/A/b"),
        ("web-a", "/b"), ("web-a-b", "/"), ("web", "/" + "x" * 300), ("web", "/" + "x" * 301),
        ("Web", "/a/b"), ("web.volume", "/x"), ("web", "/x.volume"), ("web", "/\u00e4"),
        ("web", "/\u00f6"),
    ]  # fmt: skip
    for form in (needs.volume_names, kubernetes._claim_names):
        alone = [
            form(Profile(name=name, files=Files(volumes=(path,))))[path] for name, path in places
        ]
        others = [each for each in zip(places, alone, strict=True) if each[0][0] != "web"]
        assert len({name for _, name in others}) == len(others)
        mine = tuple(path for name, path in places if name == "web")
        together = form(Profile(name="web", files=Files(volumes=mine)))
        assert len({name.lower() for name in together.values()}) == len(mine)
        assert not {name for _, name in others} & set(together.values())
        assert not any(name.endswith(".volume") for name in together.values())
        assert all(len(name) <= 128 for name in together.values())


def test_an_ordinary_volume_has_a_readable_name() -> None:
    made = Profile(name="web", files=Files(volumes=("/var/lib/web",)))
    assert needs.volume_names(made) == {"/var/lib/web": "web-var-lib-web"}
