"""YAML of containers: what is written is planned to the same container."""

from typing import Any

from jaula.kube import generate, plan
from jaula.kube.documents import load


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
    (read,) = load(generate.render(document, "pod").encode())
    (pod,) = plan.plan([read]).pods
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


def test_a_deployment_has_the_pod_as_its_template() -> None:
    document = generate.pod("web-pod", None, [inspected("web", {"Image": "x"}, [])])
    (read,) = load(generate.render(document, "deployment").encode())
    assert read["kind"] == "Deployment"
    assert plan.plan([read]).pods[0].name == "web-pod"
