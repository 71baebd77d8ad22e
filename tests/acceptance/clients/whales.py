"""Use most of python-on-whales; prints one JSON document. Arguments: an image, a directory."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path

from python_on_whales import DockerClient, docker
from python_on_whales.exceptions import DockerException

image, directory = sys.argv[1], Path(sys.argv[2])
result: dict[str, object] = {}
began = datetime.datetime.now() - datetime.timedelta(seconds=2)

one = docker.run(
    image,
    ["sh", "-c", "echo hello; exec sleep 100"],
    detach=True,
    name="whale",
    init=True,
    envs={"COLOUR": "green"},
    labels={"kind": "test"},
    memory="64m",
)
try:
    result["state"] = [
        one.state.status,
        one.name,
        one.config.labels,
        one.host_config.memory,
    ]
    result["logs"] = next(iter(docker.logs(one, follow=True, stream=True)))[1].decode()
    words = ["sh", "-c", "echo out; sleep 0.3; echo err >&2"]
    result["stream"] = [
        [kind, data.decode()] for kind, data in docker.execute(one, words, stream=True)
    ]
    result["executed"] = docker.execute(one, ["sh", "-c", "echo $COLOUR"])
    result["listed"] = [c.name for c in docker.ps(filters=[("label", "kind=test")])]
    network = docker.network.create("whale-net", labels={"kind": "test"})
    docker.network.connect(network, one, alias="w")
    network.reload()
    result["network"] = [c.name for c in network.containers.values()]
    docker.network.disconnect(network, one)
    network.remove()
    volume = docker.volume.create("whale-data")
    (directory / "file").write_text("copied\n")
    docker.copy(directory / "file", (one, "/tmp/file"))
    docker.copy((one, "/tmp/file"), directory / "back")
    result["volume"] = (directory / "back").read_text()
    volume.remove()
    result["memory"] = docker.stats(one)[0].memory_used > 0
    try:
        docker.run(image, ["sh", "-c", "echo failed >&2; exit 3"], remove=True)
    except DockerException as error:
        result["exit"] = error.return_code
    docker.stop(one, time=2)
    one.reload()
    result["stopped"] = one.state.exit_code
    committed = docker.commit(one, tag="whales/committed:1")
    result["committed"] = committed.id.startswith("sha256:")
    docker.image.remove(committed)
finally:
    docker.remove(one, force=True, volumes=True)

built = docker.build(
    directory, build_args={"WORD": "built"}, tags="whales/built:1", load=True, progress=False
)
try:
    result["built"] = docker.run("whales/built:1", ["cat", "/word"], remove=True)
    docker.save("whales/built:1", output=directory / "image.tar")
    result["saved"] = docker.load(directory / "image.tar")
finally:
    docker.image.remove("whales/built:1", force=True)

project = DockerClient(
    compose_project_name="whales",
    compose_project_directory=directory,
    compose_files=[directory / "compose.yaml"],
)
project.compose.up(detach=True, quiet=True)
try:
    service = project.compose.ps()[0]
    labels = service.config.labels
    text = next(iter(docker.logs(service, follow=True, stream=True)))[1].decode()
    result["compose"] = [[labels["com.docker.compose.service"], service.state.status], text]
finally:
    project.compose.down(timeout=1, quiet=True)

events = docker.system.events(
    since=began, until=datetime.datetime.now(), filters={"type": "container", "container": "whale"}
)
result["events"] = [event.action for event in events if event.action in ("create", "start")]
for key, call in (
    ("missing", lambda: docker.container.inspect("whale")),
    ("absent", lambda: docker.image.inspect("whales/absent:1")),
):
    try:
        call()
    except DockerException as error:
        result[key] = type(error).__name__
print(json.dumps(result))
