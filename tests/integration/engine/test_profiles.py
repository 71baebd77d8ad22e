"""Presets by their effect, and how verify and inspect tell of them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine


def relaxations(engine: PrivateEngine, name: str) -> str:
    done = engine.cli("jaula", "verify", "--format", "json", name)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    rows = list(found)
    assert not [row for row in rows if row["verdict"] in ("FAILS", "unknown")]
    return next(row["effective"] for row in rows if row["id"] == "relaxations")


def test_strict_is_in_effect(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, flags=("--profile", "strict")) as name:
        facts = containers.status(containers.pid(engine, name))
        assert int(facts["CapBnd"], 16) == 0
        assert facts["NoNewPrivs"] == "1"
        inside = engine.cli("jaula", "exec", name, "sh", "-c", "ls /sys/class/net; touch /x")
        assert inside.stdout.split() == ["lo"]
        assert "Read-only file system" in inside.stderr
        for place in ("/tmp", "/run", "/var/tmp"):
            assert engine.cli("jaula", "exec", name, "touch", f"{place}/x").returncode == 0
        document = containers.inspect(engine, name)
        assert document["HostConfig"]["Profile"] == "strict"
        assert document["HostConfig"]["PidsLimit"] == 256
        assert relaxations(engine, name) == "none"


def test_explicit_options_override_the_profile_and_are_shown(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = (
        "--profile",
        "strict",
        "--network",
        "bridge",
        "--cap-add",
        "NET_RAW",
        "--read-only=false",
    )
    with containers.running(engine, busybox, flags=flags) as name:
        assert engine.cli("jaula", "exec", name, "touch", "/x").returncode == 0
        told = relaxations(engine, name)
    assert told == "cap-add=NET_RAW, writable root, network=bridge"


def test_docker_has_the_ids_of_the_host(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, flags=("--profile", "docker")) as name:
        pid = containers.pid(engine, name)
        with open(f"/proc/{pid}/uid_map") as file:
            assert file.read().split() == ["0", "0", str(2**32 - 1)]
        assert containers.inspect(engine, name)["HostConfig"]["Profile"] == "docker"
        told = relaxations(engine, name)
    assert "host-namespace=user" in told
    assert "landlock=off" in told


def test_an_annotation_is_enough_for_other_clients(engine: PrivateEngine, busybox: str) -> None:
    body = {"Image": busybox, "HostConfig": {"Annotations": {"io.jaula.profile": "strict"}}}
    made = engine.request("POST", "/containers/create", body).json()["Id"]
    assert containers.inspect(engine, made)["HostConfig"]["CapDrop"] == ["ALL"]
    engine.request("DELETE", f"/containers/{made}")


def test_an_operator_chooses_the_default(new_engine: Callable[..., PrivateEngine]) -> None:
    private = new_engine("--default-profile", "strict")
    load_image(private, "busybox")
    with containers.running(private, "busybox") as name:
        assert containers.inspect(private, name)["HostConfig"]["Profile"] == "strict"
        assert int(containers.status(containers.pid(private, name))["CapEff"], 16) == 0


@pytest.mark.parametrize("profile", ["", "Strict", "none"])
def test_an_unknown_profile_is_refused(engine: PrivateEngine, busybox: str, profile: str) -> None:
    done = engine.cli("jaula", "create", f"--profile={profile or 'x'}", busybox)
    assert done.returncode != 0
    assert "unknown profile" in done.stderr
