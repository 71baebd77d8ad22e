"""What a play of Kubernetes' YAML that fails removes: what it has created, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jaula.cli.cli_errors import EngineError
from jaula.features.kubernetes.cli.kube import play as kube_play


class Engine:
    """Volumes and secrets; ``refuses`` makes a request for a volume fail.

    ``former`` is the id of the secret that exists; '' for none.
    """

    def __init__(self, *, refuses: bool = False, former: str = "") -> None:
        self.refuses = refuses
        self.former = former
        self.created: list[tuple[str, object]] = []
        self.removed: list[tuple[str, object]] = []

    def document(self, method: str, path: str, query: object = (), body: Any = None) -> Any:
        if path == "/volumes/create":
            if self.refuses:
                raise EngineError(403, "not permitted")
            self.created.append((body["Name"], query))
        elif path == "/secrets/create":
            if self.former and query != (("replace", self.former),):
                raise EngineError(409, "already exists")
            self.created.append((body["Name"], query))
        return {"ID": "s" * 25}

    def get(self, path: str, query: object = ()) -> Any:
        assert path == "/secrets/key"
        return {"ID": self.former}

    def request(self, method: str, path: str, query: object = (), body: object = None) -> None:
        assert method == "DELETE"
        self.removed.append((path, query))


def played(engine: Engine) -> kube_play.Play:
    settings: Any = SimpleNamespace(networks=(), addresses=())
    client: Any = engine
    return kube_play.Play(client, settings)


def volume(name: str) -> Any:
    return SimpleNamespace(name=name, labels={}, driver="", options={})


def test_a_volume_is_removed_with_the_word_of_its_creation() -> None:
    """The engine decides whether the play has created it (tests/security, I32)."""
    engine = Engine()
    play = played(engine)
    play._create_volume(volume("data"), "pod")
    play._remove_created()
    ((_, query),) = engine.created
    assert engine.removed == [("/volumes/data", query)]
    ((key, word),) = query  # type: ignore[misc]
    assert key == "transaction"
    assert len(bytes.fromhex(word)) == 16  # type: ignore[has-type]
    other = played(engine)
    assert other._transaction != play._transaction


def test_a_volume_that_is_refused_is_not_removed() -> None:
    engine = Engine(refuses=True)
    play = played(engine)
    with pytest.raises(EngineError):
        play._create_volume(volume("data"), "pod")
    play._remove_created()
    assert engine.removed == []


def test_a_secret_is_removed_by_its_id() -> None:
    engine = Engine()
    play = played(engine)
    file: Any = SimpleNamespace(noun="secrets", name="key", owner="o", data=b"x")
    play._create_file(file)
    play._remove_created()
    assert engine.removed == [(f"/secrets/{'s' * 25}", ())]


def test_a_secret_that_exists_is_replaced_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not lost if the new one is refused. One that comes after the look stays."""
    engine = Engine(former="f" * 25)
    file: Any = SimpleNamespace(noun="secrets", name="key", owner="o", data=b"x")
    play = played(engine)
    play._create_file(file)
    play._remove_created()
    assert engine.created == [("key", (("replace", "f" * 25),))]
    assert engine.removed == []
    get = engine.get

    def get_former(path: str) -> Any:
        found = get(path)
        engine.former = "g" * 25  # another client replaces it after the look
        return found

    monkeypatch.setattr(engine, "get", get_former)
    with pytest.raises(EngineError, match="already exists"):
        played(engine)._create_file(file)
    assert engine.removed == []


def test_files_and_volumes_of_the_next_pod_of_a_name_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another play makes the pod again as soon as the name is free."""
    files = {"configs": [{"ID": "old"}], "volumes": [{"Name": "v", "Id": "old"}]}
    removed: list[tuple[str, object]] = []

    def remove(*_: object, **__: object) -> None:
        files["configs"] = [{"ID": "new"}]
        files["volumes"] = [{"Name": "v", "Id": "new"}]

    def get(path: str, query: object) -> Any:
        return files["configs"] if path == "/configs" else {"Volumes": files["volumes"]}

    client: Any = SimpleNamespace(
        get=get, request=lambda method, path, query=(): removed.append((path, query))
    )
    pod: Any = SimpleNamespace(name="pod", id="1")
    monkeypatch.setattr(kube_play.api_pods, "stop", lambda client, pod: None)
    monkeypatch.setattr(kube_play.api_pods, "remove", remove)
    kube_play.remove_pod(client, pod)
    assert removed == [("/configs/old", ()), ("/volumes/v", (("id", "old"),))]


@pytest.mark.parametrize("end", [EngineError(409, "the name is in use"), KeyboardInterrupt()])
def test_a_pod_that_another_client_has_created_meanwhile_stays(
    monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    def refused(*_: object) -> str:
        raise end

    removed: list[str] = []
    other: Any = SimpleNamespace(name="pod", id="other", infra={"Labels": {}})
    monkeypatch.setattr(kube_play.api_pods, "listed", lambda client: [other])
    monkeypatch.setattr(kube_play, "remove_pod", lambda client, pod: removed.append(pod.id))
    monkeypatch.setattr(kube_play.api_pods, "create_infra", refused)
    monkeypatch.setattr(kube_play, "check_host_paths", lambda client, pod: None)
    play = played(Engine())
    pod: Any = SimpleNamespace(
        name="pod", containers=(), infra={"HostConfig": {}, "Labels": {}}, host_network=True,
        infra_name="", volumes=(), files=(),
    )  # fmt: skip
    with pytest.raises(type(end)):
        play._play(pod, 0)
    play._remove_created()
    assert removed == []


def test_a_pod_without_an_answer_is_removed_if_the_play_has_created_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    existing: list[Any] = []

    def interrupted(client: object, name: str, body: Any, *_: object) -> str:
        existing.append(SimpleNamespace(name=name, id="own", infra=body))
        raise KeyboardInterrupt

    removed: list[str] = []
    monkeypatch.setattr(kube_play.api_pods, "listed", lambda client: existing)
    monkeypatch.setattr(kube_play, "remove_pod", lambda client, pod: removed.append(pod.id))
    monkeypatch.setattr(kube_play.api_pods, "create_infra", interrupted)
    monkeypatch.setattr(kube_play, "check_host_paths", lambda client, pod: None)
    play = played(Engine())
    pod: Any = SimpleNamespace(
        name="pod", containers=(), infra={"HostConfig": {}, "Labels": {}}, host_network=True,
        infra_name="", volumes=(), files=(),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        play._play(pod, 0)
    play._remove_created()
    assert removed == ["own"]
