"""The plan of Kubernetes' objects: podman's table of fields, and what is refused."""

import contextlib
import json
from typing import Any

import pytest
import yaml

from jaula.features.kubernetes.kube import kube_plan
from jaula.features.kubernetes.kube.kube_documents import InvalidDocument, load
from jaula.features.kubernetes.kube.kube_plan import INFRA, Container, Options, Plan

CONTAINER: dict[str, Any] = {"name": "c", "image": "busybox"}


def play(*objects: dict[str, Any], options: Options | None = None) -> Plan:
    return kube_plan.plan(load(yaml.safe_dump_all(objects).encode()), options)


def pod(spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    """Return a Pod with one container, which has the given members too."""
    containers = {"containers": [{**CONTAINER, **container}]}
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": {**containers, **(spec or {})}}


def annotated(annotations: dict[str, str], **spec: Any) -> dict[str, Any]:
    """Return a Pod with annotations of podman."""
    result = pod(spec)
    notes = {f"io.podman.annotations.{key}": value for key, value in annotations.items()}
    return result | {"metadata": {"name": "p", "annotations": notes}}


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


def test_annotations_of_podman_are_options_of_containers() -> None:
    first = {"name": "first", "image": "busybox"}
    notes = {
        "infra.name": "holder",
        "volumes-from/c": "first:ro",
        "pids-limit/c": "20",
        "ulimit": "nofile=10:20,core=0",
    }
    (planned,) = play(annotated(notes, initContainers=[first])).pods
    assert planned.infra_name == "holder"
    host = planned.containers[1].body["HostConfig"]
    assert host["VolumesFrom"] == ["p-first:ro"]
    assert host["PidsLimit"] == 20
    assert host["Ulimits"] == [
        {"Name": "nofile", "Soft": 10, "Hard": 20},
        {"Name": "core", "Soft": 0, "Hard": 0},
    ]
    assert "PidsLimit" not in planned.containers[0].body["HostConfig"]


def test_a_startup_probe_delays_the_failures_of_the_liveness_probe() -> None:
    probe = {"exec": {"command": ["true"]}}
    late = {**probe, "periodSeconds": 5, "failureThreshold": 6, "initialDelaySeconds": 2}
    result = play(pod(livenessProbe={**probe, "initialDelaySeconds": 1}, startupProbe=late))
    check = result.pods[0].containers[0].body["Healthcheck"]
    assert check["StartPeriod"] == 33 * 10**9
    assert result.warnings == []
    assert play(pod(startupProbe=late)).warnings == [
        "Pod.spec.containers[0].startupProbe has no effect"
    ]


def test_a_seccomp_profile_is_a_file_below_the_root() -> None:
    profile = {"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}}
    options = Options(seccomp_root="/profiles")
    (planned,) = play(pod(securityContext=profile), options=options).pods
    host = planned.containers[0].body["HostConfig"]
    assert host["SecurityOpt"] == ["seccomp=/profiles/a/b.json"]


def test_a_secret_of_another_file_is_mounted_and_is_no_variable() -> None:
    options = Options(secrets={"s": ["user", "key"]})
    mounted = pod({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
                  volumeMounts=[{"name": "v", "mountPath": "/s"}])  # fmt: skip
    planned = play(mounted, options=options)
    secrets = planned.pods[0].containers[0].body["HostConfig"]["Secrets"]
    assert [(s["Source"], s["Target"]) for s in secrets] == [
        ("s.user", "/s/user"),
        ("s.key", "/s/key"),
    ]
    assert planned.files == []
    with pytest.raises(InvalidDocument, match="mount it as a volume"):
        play(pod(envFrom=[{"secretRef": {"name": "s"}}]), options=options)


def test_a_field_that_two_readers_need_is_not_without_effect() -> None:
    probe = {"tcpSocket": {"port": "web"}}
    variable = {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}
    result = play(
        pod(
            ports=[{"containerPort": 80, "hostPort": 80, "name": "web"}],
            livenessProbe=probe,
            env=[variable],
            resources={"limits": {"cpu": 1, "memory": "1Mi"}},
        )
    )
    assert result.warnings == []


def test_names_need_no_object_that_the_file_refers_to() -> None:
    objects = [pod(envFrom=[{"configMapRef": {"name": "elsewhere"}}]), secret(a="b"),
               {"kind": "DaemonSet", "metadata": {"name": "d"}}, {"kind": "Service"},
               {"kind": "PersistentVolumeClaim", "metadata": {"name": "v"}}]  # fmt: skip
    result = kube_plan.names(objects)
    assert (result.pods, result.volumes, result.secrets) == (["p", "d-pod"], ["v"], ["s"])
    with pytest.raises(InvalidDocument, match="metadata"):
        kube_plan.names([{"kind": "Pod", "metadata": []}])


def test_variables_of_variables_do_not_fill_the_memory() -> None:
    env = [{"name": "A0", "value": "x" * 99}]
    env += [{"name": f"A{n}", "value": f"$(A{n - 1})" * 2} for n in range(1, 40)]
    with pytest.raises(InvalidDocument, match="131072 characters"):
        play(pod(env=env))


def test_an_error_about_a_long_value_is_short() -> None:
    with pytest.raises(InvalidDocument) as caught:
        play(pod(command={"x" * 99999: 1}, image="y" * 99999, name="z" * 99999))
    assert len(str(caught.value)) < 600


def test_a_path_of_the_host_without_a_slash_is_a_volume() -> None:
    planned = made(
        pod(
            {"volumes": [{"name": "x", "hostPath": {"path": "data"}}]},
            volumeMounts=[{"name": "x", "mountPath": "/x"}],
        )
    )
    (mount,) = planned.body["HostConfig"]["Mounts"]
    assert (mount["Type"], mount["Source"]) == ("volume", "data")


def test_a_size_without_a_medium_is_named() -> None:
    volume = {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}
    assert play(pod({"volumes": [volume]})).warnings == [
        "Pod.spec.volumes[0].emptyDir.sizeLimit has no effect"
    ]


WRONG = (None, True, -1, 1 << 70, 1.5, "", "\0", [1], {"a": 1}, [{}])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [
        place
        for key, item in items
        for place in [
            (*path, key),
            *(places(item, (*path, key)) if isinstance(item, dict | list) else ()),
        ]
    ]


def test_a_value_of_any_type_at_any_place_is_used_or_refused() -> None:
    objects = [annotated({"ulimit": "nofile=1"}, **COMPLETE), config_map(a="b"), secret(a="b"),
               {"kind": "Job", "metadata": {"name": "j"},
                "spec": {"template": {"metadata": {"labels": {}}, "spec": pod()["spec"]}}},
               {"kind": "PersistentVolumeClaim", "metadata": {"name": "v", "annotations": {}}},
               ]  # fmt: skip
    assert play(*objects).warnings == []
    for place in places(objects):
        for value in WRONG:
            changed = json.loads(json.dumps(objects))
            parent = changed
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = value
            if not all(isinstance(o, dict) and isinstance(o.get("kind"), str) for o in changed):
                continue  # load() refuses it
            with contextlib.suppress(InvalidDocument):
                kube_plan.plan(changed)


COMPLETE: dict[str, Any] = {
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
    "dnsConfig": {"nameservers": ["10.0.0.1"], "options": [{"name": "ndots", "value": "1"}]},
    "securityContext": {"runAsUser": 1, "supplementalGroups": [1], "fsGroup": 2,
                        "sysctls": [{"name": "a", "value": "b"}]},
    "initContainers": [{"name": "i", "image": "x", "restartPolicy": "Always"}],
    "containers": [{
        **CONTAINER, "command": ["a"], "ports": [{"containerPort": 1, "name": "n"}],
        "envFrom": [{"prefix": "a", "configMapRef": {"name": "m", "optional": True}}],
        "env": [
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a"}}},
        ],
        "resources": {"limits": {"cpu": "500m", "a.b/c=d": 1}, "requests": {"memory": "1Mi"}},
        "securityContext": {"capabilities": {"add": ["A"]}, "seccompProfile": {"type": "Localhost",
                            "localhostProfile": "x"}, "seLinuxOptions": {"type": "t"}},
        "livenessProbe": {"tcpSocket": {"port": "n"}}, "startupProbe": {"periodSeconds": 1},
        "volumeMounts": [{"name": n, "mountPath": f"/{n}"} for n in ("e", "h", "m", "s", "p")],
    }],
    "volumes": [
        {"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "h", "hostPath": {"path": "/a", "type": "File"}},
        {"name": "m", "configMap": {"name": "m", "items": [{"key": "a", "path": "b"}]}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 256}},
        {"name": "p", "persistentVolumeClaim": {"claimName": "v"}},
    ],
}  # fmt: skip


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
        ([pod({"volumes": [{"name": "x", "hostPath": {"path": "./etc"}}]},
              volumeMounts=[{"name": "x", "mountPath": "/x"}])], "absolute"),
        ([pod({"restartPolicy": "Sometimes"})], "restartPolicy"),
        ([pod(imagePullPolicy="x")], "imagePullPolicy"),
        ([pod(securityContext={"runAsUser": 0, "runAsNonRoot": True})], "contradict"),
        ([pod(securityContext={"runAsUser": "root"})], "not a whole number"),
        ([pod(securityContext={"seccompProfile": {"type": "Other"}})], "RuntimeDefault"),
        ([pod(securityContext={"seccompProfile": {"type": "Localhost"}})], "localhostProfile"),
        ([pod(securityContext={"seccompProfile": {"type": "Localhost",
                                                  "localhostProfile": "../x"}})], "below"),
        ([annotated({"volumes-from/c": "later"})], "no earlier container"),
        ([annotated({"ulimit": "nofile=x"})], "SOFT:HARD"),
        ([annotated({"pids-limit/c": "many"})], "not a number"),
        ([{"kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"metadata": []}}}],
         "not an object"),
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
