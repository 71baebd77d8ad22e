"""I16: what one caller may list of another is names and settings, not content.

Content is what a program is told in its environment, prints, does and stores, and passwords. Each
piece of it has a word of its own here. Every route of the API that reads is asked by callers who
may only list, and no answer has one of the words.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import engine_with_policy
from harness import builds, containers
from harness.api_user import ApiUser
from harness.engine import PrivateEngine, UnixConnection
from harness.observed import ObservedStream
from jaula.api.routes import all_routes

OWNER, READER, RUNNER = 54201, 54202, 54203
POLICY = f"""
[user.{OWNER}]
access = "run"
devices = ["//127.0.0.1/share"]

[user.{READER}]
access = "read"

[user.{RUNNER}]
access = "run"
"""

WORDS = {
    name: f"{name.replace(' ', '')}{secrets.token_hex(6)}"
    for name in (
        *("variable", "output", "file name", "file", "program", "exec", "health check"),
        *("volume password", "mount password", "config", "secret", "build step", "query"),
    )
}
"""A word for each piece of content of the owner."""

UNREADABLE = {"secret"}
"""No route returns it, not even to root."""


@pytest.fixture(scope="module")
def guarded(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    with engine_with_policy(worker_index + 97, policy) as private:
        yield private


class Owned:
    """The objects of the owner, with the words in them; ``paths`` fill the templates of routes."""

    def __init__(self, engine: PrivateEngine) -> None:
        self.engine = engine
        self.owner = ApiUser(engine, OWNER, OWNER)
        self.name, self.exec_id = containers.unique("owned"), ""
        self.began = time.time()

    def _made(self, path: str, body: Any) -> Any:
        reply = self.owner.request("POST", path, body)
        assert reply.status in (200, 201, 204), (path, reply)
        return reply.json() if reply.body else None

    def _volume(self, word: str) -> dict[str, str]:
        options = f"username=me,password={word},ro"
        return {"type": "cifs", "device": "//127.0.0.1/share", "o": options}

    def create(self) -> None:
        encoded = {name: base64.b64encode(word.encode()).decode() for name, word in WORDS.items()}
        self._made("/secrets/create", {"Name": self.name, "Data": encoded["secret"]})
        self._made("/configs/create", {"Name": self.name, "Data": encoded["config"]})
        self._made("/networks/create", {"Name": self.name})
        volume = {"Name": self.name, "DriverOpts": self._volume(WORDS["volume password"])}
        self._made("/volumes/create", volume)
        mount = {"Type": "volume", "Source": f"{self.name}-2", "Target": "/m"}
        driver = {"Name": "local", "Options": self._volume(WORDS["mount password"])}
        mount["VolumeOptions"] = {"DriverConfig": driver}  # type: ignore[assignment]
        idle = {"Image": "busybox", "HostConfig": {"Mounts": [mount]}}
        self._made(f"/containers/create?name={self.name}-idle", idle)
        # The command of a container is a setting, so the words are in its environment.
        script = (
            "echo $OUTPUT; echo $FILE > /$NAME; nslookup $QUERY.example >/dev/null 2>&1;"
            " exec sh -c 'while :; do sleep 1; done' $PROGRAM"
        )
        variables = {
            "SECRET": "variable",
            "OUTPUT": "output",
            "FILE": "file",
            "NAME": "file name",
            "QUERY": "query",
            "PROGRAM": "program",
            "HEALTH": "health check",
        }
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", script],
            "Env": [f"{key}={WORDS[name]}" for key, name in variables.items()],
            "Healthcheck": {
                "Test": ["CMD-SHELL", "echo $HEALTH"],
                "Interval": 1_000_000_000,
            },
            "HostConfig": {
                "NetworkMode": self.name,
                "Egress": ["tcp:allowed.example:443"],
                "Secrets": [{"Source": self.name}],
            },
        }
        self._made(f"/containers/create?name={self.name}", body)
        self._made(f"/containers/{self.name}/start", None)
        command = {"Cmd": ["sh", "-c", "sleep 600", WORDS["exec"]]}
        self.exec_id = self._made(f"/containers/{self.name}/exec", command)["Id"]
        assert (
            self.owner.request("POST", f"/exec/{self.exec_id}/start", {"Detach": True}).status
            == 200
        )
        dockerfile = (
            f"FROM busybox AS first\nRUN : {WORDS['build step']} > /file\n"
            f"FROM busybox\nCOPY --from=first /file /\n"
        )
        context = builds.context({"Dockerfile": dockerfile})
        reply = self.owner.request("POST", f"/build?t={self.name}", context)
        assert b"Successfully" in reply.body, reply

        def checked() -> bool:
            document = containers.inspect(self.engine, self.name)
            return bool(document["State"]["Health"]["Log"] and document.get("NamesRefused"))

        containers.eventually(checked, "a health check and a refused name")

    def path(self, template: str) -> str:
        """Return the path of a route for the objects of the owner."""
        noun = template.removeprefix("/jaula").split("/")[1]
        name = {
            "exec": self.exec_id,
            "distribution": "127.0.0.1:9/none",
            "manifests": "127.0.0.1:9/none",
            "signatures": "127.0.0.1:9/none",
        }.get(noun, self.name)
        path = template.replace("*", "one").replace("{checkpoint}", "one")
        for parameter in ("{id}", "{name}", "{name...}", "{id...}"):
            path = path.replace(parameter, name)
        assert "{" not in path, template
        queries = {
            "/events": f"since={self.began}&until={time.time()}",
            "/containers/json": "all=1&size=1",
            f"/containers/{self.name}/json": "size=1",
            f"/containers/{self.name}/logs": "stdout=1&stderr=1",
            f"/containers/{self.name}/stats": "stream=0&one-shot=1",
            f"/containers/{self.name}/archive": "path=/",
            f"/jaula/containers/{self.name}/files": "path=/",
            f"/images/{self.name}/json": "manifests=1",
            "/images/json": "all=1&manifests=1",
            "/images/search": "term=127.0.0.1:9/none",
            "/images/get": f"names={self.name}",
            "/jaula/stats": f"containers={self.name}&fields=memory",
            "/jaula/images/verify": f"names={self.name}",
            "/jaula/migrations/hosts": "to=127.0.0.1:9",
            "/plugins/privileges": "remote=none",
            "/jaula/policy/images": f"name={self.name}",
        }
        return f"{path}?{queries[path]}" if path in queries else path

    def paths(self) -> list[str]:
        """Return the path of every route that reads; of containers also that of the stopped one."""
        templates = [template for method, template, _ in all_routes() if method == "GET"]
        paths = [self.path(template) for template in templates if template not in STREAMS]
        assert len(paths) > 55
        older = [f"/v1.44{path}" for path in paths if not path.startswith("/jaula")]
        more = (f"/containers/{self.name}-idle/json", f"/volumes/{self.name}-2")
        return [*paths, *older, *more, "/system/df?verbose=1"]

    def remove(self) -> None:
        for path in (
            *(f"/containers/{self.name}?force=1&v=1", f"/containers/{self.name}-idle?v=1"),
            *(f"/networks/{self.name}", f"/volumes/{self.name}", f"/volumes/{self.name}-2"),
            *(f"/secrets/{self.name}", f"/configs/{self.name}", f"/images/{self.name}"),
        ):
            self.engine.request("DELETE", path)
        self.engine.request("POST", "/build/prune?all=1")


STREAMS = {"/jaula/observe"}
"""Routes whose answer does not end."""


@pytest.fixture(scope="module")
def owned(guarded: PrivateEngine) -> Iterator[Owned]:
    made = Owned(guarded)
    try:
        made.create()
        yield made
    finally:
        made.remove()


def words_in(text: bytes) -> set[str]:
    """Return the pieces of content in an answer, plain or as base64."""
    return {
        name
        for name, word in WORDS.items()
        if word.encode() in text or base64.b64encode(word.encode())[:-4] in text
    }


def test_the_words_are_found_by_who_may_read_them(owned: Owned) -> None:
    """Or the next tests would find nothing because nothing is there."""
    found: set[str] = set()
    for path in owned.paths():
        found |= words_in(owned.owner.request("GET", path).body)
    assert found == set(WORDS) - UNREADABLE


@pytest.mark.parametrize("uid", [READER, RUNNER])
def test_no_route_shows_content_of_another_owner(owned: Owned, uid: int) -> None:
    caller = ApiUser(owned.engine, uid, uid)
    shown = {}
    for path in owned.paths():
        if words := words_in(caller.request("GET", path).body):
            shown[path] = sorted(words)
    assert shown == {}


def test_the_stream_of_the_observer_shows_no_content_of_another_owner(owned: Owned) -> None:
    key = containers.inspect(owned.engine, owned.name)["Id"]
    connection = UnixConnection(str(owned.engine.socket), 60.0)
    connection.sock = ApiUser(owned.engine, READER, READER).connect()
    with ObservedStream(owned.engine, connection) as stream:
        stream.wait(
            lambda: any(key in each.get("Containers", ()) for each in stream.documents), "a sample"
        )
        seen = [json.dumps(each).encode() for each in stream.documents]
    assert [words_in(each) for each in seen] == [set()] * len(seen)


def test_a_head_request_shows_no_file_of_another_owner(owned: Owned) -> None:
    path = f"/containers/{owned.name}/archive?path=/{WORDS['file name']}"
    for uid, status in ((OWNER, 200), (READER, 403), (RUNNER, 403)):
        assert ApiUser(owned.engine, uid, uid).request("HEAD", path).status == status


def test_options_of_a_volume_have_names_without_values_for_others(owned: Owned) -> None:
    caller = ApiUser(owned.engine, READER, READER)
    expected = {"type": "cifs", "device": "//127.0.0.1/share", "o": "username,password,ro"}
    assert caller.request("GET", f"/volumes/{owned.name}").json()["Options"] == expected
    whole = owned.owner.request("GET", f"/volumes/{owned.name}").json()["Options"]
    assert whole == expected | {"o": f"username=me,password={WORDS['volume password']},ro"}
    runner = ApiUser(owned.engine, RUNNER, RUNNER)
    again = runner.request("POST", "/volumes/create", {"Name": owned.name})
    assert again.status == 201
    assert again.json()["Options"] == expected
