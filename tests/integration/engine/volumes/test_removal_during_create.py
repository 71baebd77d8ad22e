"""Volumes of a container that is being created, while clients remove volumes."""

from __future__ import annotations

import json
import threading
import urllib.parse

import pytest

from harness import containers
from harness.engine import PrivateEngine
from harness.images import busybox_entries, directory, file, import_image

FILES = 2000  # copied to the new volume: long enough for many removals


@pytest.mark.slow
@pytest.mark.parametrize("way", ["prune", "remove"])
def test_a_volume_stays_while_a_container_with_it_is_created(
    engine: PrivateEngine, way: str
) -> None:
    image, volume = containers.unique("copy"), containers.unique("volume")
    files = [file(f"data/{number}", b"kept\n") for number in range(FILES)]
    import_image(engine, image, [*busybox_entries(), directory("data"), *files])
    mount = {
        "Type": "volume",
        "Source": volume,
        "Target": "/data",
        "VolumeOptions": {"Labels": {"removed": volume}},
    }
    body = {
        "Image": image,
        "Cmd": ["sh", "-c", "ls /data | wc -l"],
        "HostConfig": {"Mounts": [mount]},
    }
    filters = urllib.parse.quote(json.dumps({"all": ["1"], "label": [f"removed={volume}"]}))
    created = threading.Event()
    statuses: list[int] = []

    def remove() -> None:
        while not created.is_set():
            if way == "prune":
                statuses.append(engine.request("POST", f"/volumes/prune?filters={filters}").status)
            else:
                statuses.append(engine.request("DELETE", f"/volumes/{volume}").status)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        name = containers.unique("during")
        try:
            made = engine.request("POST", f"/containers/create?name={name}", body)
        finally:
            created.set()
            thread.join()
        assert made.status == 201, made
        assert set(statuses) <= ({200} if way == "prune" else {404, 409})  # 404 before it exists
        assert engine.cli("jaula", "start", "-a", name).stdout.strip() == str(FILES)
        refused = engine.request("DELETE", f"/volumes/{volume}")
        assert refused.status == 409, refused
        assert made.json()["Id"] in refused.json()["message"]
    finally:
        engine.cli("jaula", "rm", "-f", name)
        engine.cli("jaula", "volume", "rm", volume)
        engine.cli("jaula", "rmi", image)
