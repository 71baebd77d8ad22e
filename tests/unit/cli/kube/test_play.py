"""What a play of Kubernetes' YAML that fails removes: what it has created, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jaula.cli.errors import EngineError
from jaula.cli.kube import play as kube_play


class Engine:
    """Volumes and secrets, and another client that acts before the request of a play."""

    def __init__(self, other: str = "") -> None:
        self.other = other
        self.volumes: dict[str, dict[str, Any]] = {}
        self.removed: list[str] = []

    def volume(self, name: str, labels: dict[str, str], created: str) -> None:
        self.volumes[name] = {
            "Name": name,
            "Labels": labels,
            "CreatedAt": created,
            "Options": None,
        }

    def get(self, path: str, query: object = ()) -> Any:
        name = path.rpartition("/")[2]
        if name not in self.volumes:
            raise EngineError(404, "no such volume")
        return self.volumes[name]

    def document(self, method: str, path: str, query: object = (), body: Any = None) -> Any:
        if path == "/volumes/create":
            if self.other == "creates":
                self.volume(body["Name"], {"of": "another"}, "2026-01-01T00:00:00Z")
            if body["Name"] not in self.volumes:
                self.volume(body["Name"], body["Labels"], "2026-01-01T00:00:01Z")
            return dict(self.volumes[body["Name"]])
        return {"ID": "s" * 25}

    def request(self, method: str, path: str, query: object = (), body: object = None) -> None:
        assert method == "DELETE"
        self.removed.append(path)


def played(engine: Engine) -> kube_play.Play:
    made: Any = kube_play.Play.__new__(kube_play.Play)
    made._client = engine
    made._undo = []
    return made  # type: ignore[no-any-return]


def volume(name: str) -> Any:
    return SimpleNamespace(name=name, labels={}, driver="", options={})


@pytest.mark.parametrize(
    ("other", "removed"),
    [("", ["/volumes/data"]), ("creates", []), ("replaces", []), ("has", []), ("removes", [])],
)
def test_a_volume_of_another_client_stays(other: str, removed: list[str]) -> None:
    engine = Engine(other)
    if other == "has":
        engine.volume("data", {"of": "another"}, "2025-01-01T00:00:00Z")
    play = played(engine)
    play._create_volume(volume("data"), "pod")
    if other == "replaces":
        engine.volume("data", {"of": "another"}, "2026-01-01T00:00:09Z")
    if other == "removes":
        del engine.volumes["data"]
    play._remove_created()
    assert engine.removed == removed


def test_a_secret_is_removed_by_its_id() -> None:
    engine = Engine()
    play = played(engine)
    file: Any = SimpleNamespace(noun="secrets", name="key", owner="o", data=b"x")
    play._create_file(file)
    play._remove_created()
    assert engine.removed == [f"/secrets/{'s' * 25}"]


def test_a_pod_that_another_client_has_created_meanwhile_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> str:
        raise EngineError(409, "the name is in use")

    removed: list[str] = []
    other: Any = SimpleNamespace(name="pod", id="other")
    monkeypatch.setattr(kube_play.pods, "listed", lambda client: [other])
    monkeypatch.setattr(kube_play, "remove_pod", lambda client, pod: removed.append(pod.id))
    monkeypatch.setattr(kube_play.pods, "create_infra", refused)
    monkeypatch.setattr(kube_play, "check_host_paths", lambda client, pod: None)
    play: Any = played(Engine())
    play._settings = SimpleNamespace(networks=(), addresses=())
    pod: Any = SimpleNamespace(
        name="pod", containers=(), infra={"HostConfig": {}, "Labels": {}}, host_network=True,
        infra_name="", volumes=(), files=(),
    )  # fmt: skip
    with pytest.raises(EngineError):
        play._play(pod, 0)
    play._remove_created()
    assert removed == []
