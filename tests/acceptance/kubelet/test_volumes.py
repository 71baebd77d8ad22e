"""Volumes of static pods: directories of the pod and the host, memory, projections, images."""

from __future__ import annotations

from harness.kubelet import Kubelet, container, pod


def test_volumes_of_the_pod_are_shared_and_those_in_memory_are_bounded(node: Kubelet) -> None:
    mounts = [{"name": "disk", "mountPath": "/disk"}, {"name": "ram", "mountPath": "/ram"}]
    node.apply(
        pod(
            "empty",
            container(
                "writer", "echo hi > /disk/a; echo hi > /ram/b; sleep 1000", volumeMounts=mounts
            ),
            container("reader", "sleep 1000", volumeMounts=mounts),
            volumes=[
                {"name": "disk", "emptyDir": {}},
                {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ],
        )
    )
    node.ready("empty")
    assert node.run("empty", "reader", "cat", "/disk/a", "/ram/b") == "hi\nhi\n"
    mounted = node.run("empty", "reader", "grep", "/ram", "/proc/mounts").split()
    assert mounted[2] == "tmpfs" and "size=1024k" in mounted[3]


def test_a_directory_of_the_host_and_files_about_the_pod_are_mounted(node: Kubelet) -> None:
    host = node.directory / "host"
    (host / "below").mkdir(parents=True)
    (host / "below" / "file").write_text("from the host\n")
    items = [
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
    ]
    body = pod(
        "files",
        container(
            "main",
            "sleep 1000",
            volumeMounts=[
                {"name": "host", "mountPath": "/host", "readOnly": True},
                {"name": "host", "mountPath": "/sub", "subPath": "below"},
                {"name": "about", "mountPath": "/about"},
            ],
            env=[{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        ),
        volumes=[
            {"name": "host", "hostPath": {"path": str(host), "type": "Directory"}},
            {"name": "about", "downwardAPI": {"items": items}},
        ],
    )
    body["metadata"]["labels"] = {"app": "files"}
    node.apply(body)
    node.ready("files")
    assert (
        node.run("files", "main", "cat", "/host/below/file", "/sub/file") == "from the host\n" * 2
    )
    assert node.run("files", "main", "cat", "/about/name", "/about/labels") == (
        'files-nodeapp="files"'
    )
    assert "NODE=node\0" in node.run("files", "main", "cat", "/proc/self/environ")
    assert " ro," in node.run("files", "main", "grep", "/host", "/proc/mounts")


def test_an_image_is_mounted_as_a_volume(node: Kubelet) -> None:
    node.apply(
        pod(
            "image",
            container(
                "main",
                "sleep 1000",
                volumeMounts=[
                    {"name": "image", "mountPath": "/image"},
                    {"name": "image", "mountPath": "/programs", "subPath": "bin"},
                ],
            ),
            volumes=[
                {"name": "image", "image": {"reference": "busybox", "pullPolicy": "Never"}},
            ],
        )
    )
    node.ready("image")
    assert node.run("image", "main", "/image/bin/busybox", "echo", "hi") == "hi\n"
    assert node.run("image", "main", "/programs/busybox", "echo", "hi") == "hi\n"
    assert " ro," in node.run("image", "main", "grep", "/image", "/proc/mounts")
