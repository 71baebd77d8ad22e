"""The plan of Kubernetes' objects: podman's table of fields, and what is refused."""

from typing import Any

import pytest
import yaml

from jaula.kube import plan as kube_plan
from jaula.kube.documents import InvalidDocument, load
from jaula.kube.plan import INFRA, Container, Options, Plan

CONTAINER: dict[str, Any] = {"name": "c", "image": "busybox"}


def play(*objects: dict[str, Any], options: Options | None = None) -> Plan:
    return kube_plan.plan(load(yaml.safe_dump_all(objects).encode()), options)


def pod(spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    """Return a Pod with one container, which has the given members too."""
    containers = {"containers": [{**CONTAINER, **container}]}
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": {**containers, **(spec or {})}}


def config_map(**data: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}


def secret(**data: str) -> dict[str, Any]:
    return {"kind": "Secret", "metadata": {"name": "s"}, "stringData": data}


def made(*objects: dict[str, Any]) -> Container:
    return play(*objects).pods[0].containers[0]


def test_a_container_joins_the_namespaces_of_its_pod() -> None:
    (planned,) = play(pod()).pods
    host = planned.containers[0].body["HostConfig"]
    infra = f"container:{INFRA}"
    assert {host[m] for m in ("NetworkMode", "IpcMode", "UTSMode", "UsernsMode")} == {infra}
    assert host["RestartPolicy"] == {"Name": "always"}
    assert planned.infra["Hostname"] == "p"


@pytest.mark.parametrize(
    ("spec", "member", "expected"),
    [
        ({"restartPolicy": "Never"}, "RestartPolicy", {"Name": "no"}),
        ({"restartPolicy": "OnFailure"}, "RestartPolicy", {"Name": "on-failure"}),
        ({"hostNetwork": True}, "NetworkMode", "host"),
        ({"hostPID": True}, "PidMode", "host"),
        ({"hostIPC": True}, "IpcMode", "host"),
        ({"shareProcessNamespace": True}, "PidMode", f"container:{INFRA}"),
        ({"securityContext": {"supplementalGroups": [1, 2]}}, "GroupAdd", ["1", "2"]),
        ({"securityContext": {"seLinuxOptions": {"type": "t"}}}, "SecurityOpt", ["label=type:t"]),
    ],
)
def test_a_field_of_a_pod_is_an_option_of_its_containers(
    spec: dict[str, Any], member: str, expected: object
) -> None:
    assert made(pod(spec)).body["HostConfig"][member] == expected


@pytest.mark.parametrize(
    ("spec", "member", "expected"),
    [
        ({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}, "ExtraHosts",
         ["a:1.2.3.4", "b:1.2.3.4"]),
        ({"dnsConfig": {"nameservers": ["1.1.1.1"]}}, "Dns", ["1.1.1.1"]),
        ({"dnsConfig": {"searches": ["a.b"]}}, "DnsSearch", ["a.b"]),
        ({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}, {"name": "x"}]}},
         "DnsOptions", ["ndots:1", "x"]),
        ({"securityContext": {"sysctls": [{"name": "net.a", "value": "1"}]}}, "Sysctls",
         {"net.a": "1"}),
        ({"hostUsers": True}, "UsernsMode", "host"),
    ],
)  # fmt: skip
def test_a_field_of_a_pod_is_an_option_of_the_infra_container(
    spec: dict[str, Any], member: str, expected: object
) -> None:
    assert play(pod(spec)).pods[0].infra["HostConfig"][member] == expected


@pytest.mark.parametrize(
    ("member", "value", "path", "expected"),
    [
        ("command", ["a", "b"], "Entrypoint", ["a", "b"]),
        ("args", ["x"], "Cmd", ["x"]),
        ("workingDir", "/w", "WorkingDir", "/w"),
        ("tty", True, "Tty", True),
        ("securityContext", {"runAsUser": 1, "runAsGroup": 2}, "User", "1:2"),
        ("securityContext", {"privileged": True}, "HostConfig.Privileged", True),
        ("securityContext", {"readOnlyRootFilesystem": True}, "HostConfig.ReadonlyRootfs", True),
        ("securityContext", {"allowPrivilegeEscalation": False}, "HostConfig.SecurityOpt",
         ["no-new-privileges"]),
        ("securityContext", {"seccompProfile": {"type": "Unconfined"}}, "HostConfig.SecurityOpt",
         ["seccomp=unconfined"]),
        ("securityContext", {"procMount": "Unmasked"}, "HostConfig.MaskedPaths", []),
        ("securityContext", {"capabilities": {"add": ["A"], "drop": ["ALL"]}},
         "HostConfig.CapDrop", ["ALL"]),
        ("resources", {"limits": {"cpu": "500m"}}, "HostConfig.NanoCpus", 500_000_000),
        ("resources", {"limits": {"memory": "64Mi"}}, "HostConfig.Memory", 1 << 26),
        ("resources", {"requests": {"cpu": 2}}, "HostConfig.CpuShares", 2048),
        ("resources", {"requests": {"memory": "1Mi"}}, "HostConfig.MemoryReservation", 1 << 20),
        ("resources", {"limits": {"podman.io/device=/dev/fuse": 1}}, "HostConfig.Devices",
         [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse",
           "CgroupPermissions": "rwm"}]),
        ("livenessProbe", {"exec": {"command": ["x"]}, "periodSeconds": 2}, "Healthcheck.Test",
         ["CMD", "x"]),
        ("livenessProbe", {"exec": {"command": ["x"]}, "periodSeconds": 2},
         "Healthcheck.Interval", 2 * 10**9),
        ("livenessProbe", {"tcpSocket": {"port": 80}}, "Healthcheck.Test",
         ["CMD-SHELL", "nc -z -w 1 'localhost' 80 || exit 1"]),
    ],
)  # fmt: skip
def test_a_field_of_a_container_is_a_member_of_its_body(
    member: str, value: object, path: str, expected: object
) -> None:
    body: Any = made(pod(**{member: value})).body
    for key in path.split("."):
        body = body[key]
    assert body == expected


def test_ports_are_published_by_the_infra_container() -> None:
    ports = [{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 53}]
    infra = play(pod(ports=ports)).pods[0].infra
    bindings = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert infra["HostConfig"]["PortBindings"] == bindings
    every = play(pod(ports=ports), options=Options(publish_all=True)).pods[0].infra
    assert set(every["ExposedPorts"]) == {"80/tcp", "53/tcp"}


def test_variables_have_their_sources_and_refer_to_earlier_ones() -> None:
    env = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
        {"name": "B", "value": "$(A)-$$(A)-$(NONE)"},
        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
        {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "E", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "x",
                                                        "optional": True}}},
        {"name": "F", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory",
                                                         "divisor": "1Mi"}}},
    ]  # fmt: skip
    container = made(
        config_map(k="v"),
        secret(p="w"),
        pod(
            env=env,
            envFrom=[{"configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}, "prefix": "S_"}],
            resources={"limits": {"memory": "64Mi"}},
            args=["$(A)"],
        ),
    )
    assert container.body["Env"] == [
        *("k=v", "S_p=w", "A=v", "B=v-$(A)-$(NONE)", "C=w", "D=p", "F=64")
    ]
    assert container.body["Cmd"] == ["v"]


def test_volumes_are_mounts_files_and_paths() -> None:
    spec = {
        "volumes": [
            {"name": "h", "hostPath": {"path": "/srv", "type": "Directory"}},
            {"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "d", "emptyDir": {}},
            {"name": "v", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "m", "configMap": {"name": "m", "items": [{"key": "k", "path": "a/b"}]}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "i", "image": {"reference": "busybox"}},
        ]
    }
    mounts = [
        {"name": "h", "mountPath": "/h", "readOnly": True, "subPath": "x"},
        {"name": "e", "mountPath": "/e"},
        {"name": "d", "mountPath": "/d", "subPath": "y"},
        {"name": "v", "mountPath": "/v"},
        {"name": "m", "mountPath": "/m"},
        {"name": "s", "mountPath": "/s"},
        {"name": "i", "mountPath": "/i"},
    ]
    planned = play(config_map(k="v"), secret(p="w"), pod(spec, volumeMounts=mounts))
    (result,) = planned.pods
    host = result.containers[0].body["HostConfig"]
    assert host["Mounts"] == [
        {"Target": "/h", "ReadOnly": True, "Type": "bind", "Source": "/srv/x"},
        {"Target": "/e", "ReadOnly": False, "Type": "volume", "Source": "p-e"},
        {"Target": "/d", "ReadOnly": False, "Type": "volume", "Source": "p-d",
         "VolumeOptions": {"Subpath": "y"}},
        {"Target": "/v", "ReadOnly": False, "Type": "volume", "Source": "data"},
        {"Target": "/i", "Type": "image", "Source": "busybox"},
    ]  # fmt: skip
    assert host["Configs"] == [{"Source": "p.m.k", "Target": "/m/a/b", "Mode": 0o644}]
    assert host["Secrets"] == [{"Source": "s.p", "Target": "/s/p", "Mode": 256}]
    assert [volume.name for volume in result.volumes] == ["p-e", "p-d"]
    assert result.volumes[0].options == {"type": "tmpfs", "device": "tmpfs", "o": "size=1048576"}
    assert [path.path for path in result.host_paths] == ["/srv"]
    assert [(file.name, file.data) for file in planned.files] == [("s.p", b"w")]


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet", "Job", "StatefulSet", "ReplicaSet"])
def test_an_object_with_a_template_is_one_pod(kind: str) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    spec = {"replicas": 3, "template": template}
    document = {"kind": kind, "metadata": {"name": "web"}, "spec": spec}
    planned = play(document)
    assert planned.pods[0].name == "web-pod"
    assert planned.pods[0].infra["Labels"] == {"a": "b"}
    assert any("replicas" in warning for warning in planned.warnings)


def test_init_containers_come_first() -> None:
    spec = {"initContainers": [{"name": "i", "image": "x"},
                               {"name": "s", "image": "x", "restartPolicy": "Always"}]}  # fmt: skip
    containers = play(pod(spec)).pods[0].containers
    assert [(c.name, c.init) for c in containers] == [("i", True), ("s", False), ("c", False)]
    assert containers[0].body["HostConfig"]["RestartPolicy"] == {"Name": "no"}


def test_a_claim_is_a_volume_with_the_options_of_its_annotations() -> None:
    notes = {"volume.podman.io/device": "tmpfs", "volume.podman.io/type": "tmpfs",
             "volume.podman.io/uid": "5", "volume.podman.io/mount-options": "size=1m"}  # fmt: skip
    planned = play({"kind": "PersistentVolumeClaim",
                    "metadata": {"name": "data", "annotations": notes}})  # fmt: skip
    assert planned.volumes[0].options == {"device": "tmpfs", "type": "tmpfs", "o": "uid=5,size=1m"}


def test_a_field_without_effect_is_named() -> None:
    warnings = play(pod({"priority": 1}, lifecycle={"preStop": {}})).warnings
    assert warnings == [
        "Pod.spec.priority has no effect",
        "Pod.spec.containers[0].lifecycle has no effect",
    ]
    assert play(pod(), {"kind": "Service"}).warnings == ["Service has no effect on one host"]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([{"kind": "CronJob"}], "CronJob"),
        ([{"kind": "Pod", "metadata": {"name": "p"}, "spec": {}}], "containers is missing"),
        ([{"kind": "Pod", "metadata": {"name": "../x"}, "spec": {}}], "not a name"),
        ([{"kind": "Pod", "spec": {}}], "metadata.name is missing"),
        ([{"kind": "Pod", "metadata": {"name": "p"}, "spec": []}], "not an object"),
        ([pod(), pod()], "two pods"),
        ([pod(name="C!")], "must be a name"),
        ([pod(image="")], "image is missing"),
        ([pod(command="a")], "not a list"),
        ([pod(command=[1])], "not a text"),
        ([pod(env=[{"name": "A", "value": 1}])], "quotes make it one"),
        ([pod(env=[{"name": "A=B", "value": "1"}])], "equals sign"),
        ([pod(envFrom=[{"secretRef": {"name": "s"}}])], "no Secret 's'"),
        ([pod(ports=[{"containerPort": 70000}])], "port"),
        ([pod(ports=[{"containerPort": 1, "hostPort": 2}, {"containerPort": 3, "hostPort": 2}])],
         "used twice"),
        ([pod(volumeMounts=[{"name": "x", "mountPath": "/x"}])], "no volume 'x'"),
        ([pod({"volumes": [{"name": "x", "nfs": {}}]},
              volumeMounts=[{"name": "x", "mountPath": "/x"}])], "not supported"),
        ([pod({"volumes": [{"name": "x", "emptyDir": {}}]},
              volumeMounts=[{"name": "x", "mountPath": "/x", "subPath": "../y"}])], "below"),
        ([pod({"volumes": [{"name": "x", "hostPath": {"path": "etc"}}]},
              volumeMounts=[{"name": "x", "mountPath": "/x"}])], "absolute"),
        ([pod({"restartPolicy": "Sometimes"})], "restartPolicy"),
        ([pod(imagePullPolicy="x")], "imagePullPolicy"),
        ([pod(securityContext={"runAsUser": 0, "runAsNonRoot": True})], "contradict"),
        ([pod(securityContext={"runAsUser": "root"})], "not a whole number"),
        ([pod(securityContext={"seccompProfile": {"type": "Localhost"}})], "RuntimeDefault"),
        ([pod(livenessProbe={"grpc": {}})], "exec, httpGet or tcpSocket"),
        ([pod(resources={"limits": {"memory": "much"}})], "quantity"),
        ([{"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "%"}}], "base64"),
        ([{"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a/b": "x"}}], "file"),
    ],
)  # fmt: skip
def test_an_object_that_is_not_valid_names_the_field(
    objects: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InvalidDocument, match=message.replace("[", r"\[")):
        play(*objects)
