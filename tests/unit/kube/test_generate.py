"""YAML of containers: what is written is planned to the same container."""

from typing import Any

import pytest

from jaula.features.kubernetes.kube import generate, kube_plan
from jaula.features.kubernetes.kube.kube_documents import load


def inspected(name: str, body: dict[str, Any], mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what ``inspect`` shows of a container that ``body`` made."""
    host = {"RestartPolicy": {"Name": "always"}, **body.get("HostConfig", {})}
    return {"Name": f"/{name}", "Config": body, "HostConfig": host, "Mounts": mounts}


def test_a_container_is_written_and_planned_with_the_same_values() -> None:
    body = {
        "Image": "busybox",
        "Entrypoint": ["sh", "-c"],
        "Cmd": ["echo 1"],
        "Env": ["PATH=/bin", "A=yes", "N=1"],
        "User": "1:2",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 2 * 10**9, "Retries": 2},
        "HostConfig": {
            "Memory": 1 << 26, "NanoCpus": 500_000_000, "CapDrop": ["ALL"],
            "ReadonlyRootfs": True, "SecurityOpt": ["no-new-privileges"],
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        },
    }  # fmt: skip
    mounts = [
        {"Type": "bind", "Source": "/srv/a b", "Destination": "/a", "RW": False},
        {"Type": "volume", "Name": "data", "Source": "/var", "Destination": "/d", "RW": True},
        {"Type": "tmpfs", "Source": "", "Destination": "/t", "RW": True},
    ]
    document = generate.pod("web-pod", None, [inspected("web", body, mounts)])
    (read,) = load(generate.render([document]).encode())
    (pod,) = kube_plan.plan([read]).pods
    (container,) = pod.containers
    made, host = container.body, container.body["HostConfig"]
    assert container.name == "web"
    assert made["Entrypoint"] == ["sh", "-c"]
    assert made["Env"] == ["A=yes", "N=1"]
    assert made["User"] == "1:2"
    assert made["Healthcheck"]["Test"] == ["CMD", "/bin/sh", "-c", "true"]
    assert (host["Memory"], host["NanoCpus"]) == (1 << 26, 500_000_000)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert [(m["Type"], m["Source"], m["ReadOnly"]) for m in host["Mounts"]] == [
        ("bind", "/srv/a b", True),
        ("volume", "data", False),
    ]
    assert pod.infra["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] == "8080"


@pytest.mark.parametrize("kind", ["deployment", "daemonset", "job"])
def test_an_object_has_the_pod_as_its_template(kind: str) -> None:
    document = generate.pod("web-pod", None, [inspected("web", {"Image": "x"}, [])])
    (read,) = load(generate.render([generate.controller(document, kind)]).encode())
    assert read["kind"].lower() == kind
    result = kube_plan.plan([read])
    assert result.pods[0].name == "web-pod"
    assert result.warnings == []


def test_replicas_and_a_service_are_written() -> None:
    ports = {"80/udp": [{"HostIp": "", "HostPort": "8080"}]}
    container = inspected("web", {"Image": "x", "HostConfig": {"PortBindings": ports}}, [])
    document = generate.pod("web-pod", None, [container])
    assert generate.controller(document, "deployment", 3)["spec"]["replicas"] == 3
    service = generate.service(document)
    assert service is not None
    assert service["spec"]["selector"] == document["metadata"]["labels"]
    assert service["spec"]["ports"] == [
        {"name": "80", "port": 80, "targetPort": 80, "protocol": "UDP"}
    ]
    without = generate.pod("web-pod", None, [inspected("web", {"Image": "x"}, [])])
    assert generate.service(without) is None


@pytest.mark.parametrize("text", ["echo $$", "$(A)", "$$(A) $HOME", "a$", "$", "$$$"])
def test_a_text_with_dollars_is_the_same_after_a_play(text: str) -> None:
    body = {"Image": "x", "Entrypoint": [text], "Cmd": [text], "Env": ["A=1", f"B={text}"]}
    document = generate.pod("p", None, [inspected("c", body, [])])
    made = kube_plan.plan(load(generate.render([document]).encode())).pods[0].containers[0].body
    assert (made["Entrypoint"], made["Cmd"], made["Env"][1]) == ([text], [text], f"B={text}")


def test_containers_share_a_volume_and_no_temporary_file_system() -> None:
    stored = generate.Stored(empty_dirs={"p-shared": {}}, secrets={"s.k": ("s", "k")})
    secret = {"Source": "s.k", "Target": "/s/k", "Mode": 0o400}
    mount = {"Type": "volume", "Name": "p-shared", "Source": "", "Destination": "/v", "RW": True}
    body = {"Image": "x", "HostConfig": {"Tmpfs": {"/tmp": ""}, "Secrets": [secret]}}
    containers = [inspected(name, body, [mount]) for name in ("p-a", "p-b")]
    document = generate.pod("p", None, containers, stored)
    options = kube_plan.Options(secrets={"s": ["k"]})
    first, second = kube_plan.plan([document], options).pods[0].containers
    sources = [
        [mount["Source"] for mount in container.body["HostConfig"]["Mounts"]]
        for container in (first, second)
    ]
    assert sources[0][0] == sources[1][0] == "p-shared"
    assert sources[0][1] != sources[1][1]
    assert [c.body["HostConfig"]["Secrets"][0]["Target"] for c in (first, second)] == ["/s/k"] * 2


def test_volumes_secrets_and_maps_of_a_play_are_written_as_such() -> None:
    stored = generate.Stored(
        empty_dirs={"p-scratch": {}, "p-memory": {"type": "tmpfs", "o": "size=64m"}},
        secrets={"login.key": ("login", "key")},
        configs={"p.site.index.html": ("site", "index.html", b"page"),
                 "p.site.blob": ("site", "blob", b"\xff")},
    )  # fmt: skip
    host = {
        "Tmpfs": {"/tmp": "size=10%"},
        "Secrets": [{"Source": "login.key", "Target": "/s/k", "Mode": 0o400},
                    {"Source": "other", "Target": "/o", "Mode": 0o400}],
        "Configs": [{"Source": "p.site.index.html", "Target": "/www/index.html", "Mode": 0o444},
                    {"Source": "p.site.blob", "Target": "/www/blob", "Mode": 0o444}],
    }  # fmt: skip
    mounts = [
        {"Type": "volume", "Name": name, "Source": "", "Destination": f"/{name}", "RW": True}
        for name in ("p-scratch", "p-memory", "kept")
    ]
    body = {"Image": "x", "HostConfig": host, "StopTimeout": 3, "Labels": {"app": "shop"}}
    containers = [inspected("p-c", body, mounts)]
    assert generate.unknown_files(containers, stored) == ["other"]
    document = generate.pod("p", None, containers, stored)
    assert document["metadata"]["labels"] == {"app": "shop"}
    documents = [*generate.config_maps(containers, stored), document]
    options = kube_plan.Options(secrets={"login": ["key"]})
    result = kube_plan.plan(load(generate.render(documents).encode()), options)
    assert result.warnings == []
    (pod,) = result.pods
    assert {volume.name: volume.options for volume in pod.volumes} == {
        "p-scratch": {},
        "p-memory": {"type": "tmpfs", "device": "tmpfs", "o": f"size={64 << 20}"},
        "p-tmpfs-tmp": {"type": "tmpfs", "device": "tmpfs"},
    }
    made = pod.containers[0].body["HostConfig"]
    assert [(m["Source"], m["Target"]) for m in made["Mounts"]] == [
        ("p-scratch", "/p-scratch"),
        ("p-memory", "/p-memory"),
        ("kept", "/kept"),
        ("p-tmpfs-tmp", "/tmp"),
    ]
    assert [(s["Source"], s["Target"], s["Mode"]) for s in made["Secrets"]] == [
        ("login.key", "/s/k", 0o400)
    ]
    assert {file.name: file.data for file in pod.files} == {
        "p.site.index.html": b"page",
        "p.site.blob": b"\xff",
    }
    assert pod.containers[0].body["StopTimeout"] == 3
