"""I16: an engine socket in a container gives the container the right of its policy entry.

The clients are programs in real containers: the shapes of Traefik (reads), of Ryuk (removes by
label) and of Portainer (does everything), and the docker command.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from conftest import engine_with_policy, load_image
from harness import containers, images
from harness.api_user import ApiUser
from harness.engine import PROJECT, PrivateEngine, Reply

MEMBER, NAMED, GROUP = 54011, 54012, 54110
TARGET = "/var/run/docker.sock"
SESSION = "org.testcontainers.session=s1"

POLICY = f"""
[group.{GROUP}]
access = "run"

[container.reader]
access = "read"

[container."label=ryuk=true"]
access = "read"
remove = ["label={SESSION}"]

[container.portainer]
access = "all"
users = ["{NAMED}"]

[container.runner]
access = "run"
"""

CLIENT = """
import http.client, json, socket, sys
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect("/var/run/docker.sock")
def ask(method, path, body=None):
    made = Connection("docker")
    data = None if body is None else json.dumps(body)
    made.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    return made.getresponse()
"""

REQUESTS = (
    CLIENT
    + """
answers = []
for method, path, body in json.loads(sys.argv[1]):
    answer = ask(method, path, body)
    answers.append([answer.status, answer.read().decode()])
print(json.dumps(answers))
"""
)

TRAEFIK = (
    CLIENT
    + """
events = ask("GET", '/events?filters={"type":{"container":true}}')
names = [c["Names"][0] for c in json.load(ask("GET", "/containers/json"))]
seen = json.load(ask("GET", "/containers/" + sys.argv[1] + "/json"))
print(json.dumps([names, seen["Config"]["Labels"], seen["Config"]["Env"]]), flush=True)
for line in events:
    event = json.loads(line)
    print(event["Action"], event["Actor"]["Attributes"]["name"], flush=True)
    if event["Action"] == "destroy":
        break
"""
)


@pytest.fixture(scope="module")
def engine(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    policy = tmp_path_factory.mktemp("engine-socket") / "policy.toml"
    policy.write_text(POLICY)
    with engine_with_policy(worker_index + 43, policy) as private:
        yield private


def reload_policy(engine: PrivateEngine, text: str) -> None:
    """Change the policy of an engine, and wait until it is in force."""
    policy = Path(engine.extra_flags[1])
    reloads = engine.log_tail(1 << 20).count("the settings are reloaded")
    policy.write_text(text)
    assert engine.process is not None
    engine.process.send_signal(signal.SIGHUP)
    containers.eventually(
        lambda: engine.log_tail(1 << 20).count("the settings are reloaded") > reloads, "a reload"
    )


def words_for(engine: PrivateEngine, name: str, *flags: str) -> tuple[str, ...]:
    tools = images.host_tools(engine)
    return ("run", "-d", "--name", name, *flags, *tools, "sleep", "600")


@contextmanager
def running(
    engine: PrivateEngine, name: str, *flags: str, socket: str = "type=engine-socket"
) -> Iterator[str]:
    """Run a container with the host's tools and an engine socket, until the block ends."""
    done = engine.cli("jaula", *words_for(engine, name, "--mount", socket, *flags))
    try:
        assert done.returncode == 0, done.stderr
        yield name
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1&v=1")


def inside(engine: PrivateEngine, name: str, program: str, *words: str) -> tuple[str, ...]:
    """Return the words that run a Python program in a container."""
    return ("exec", name, "/usr/bin/python3", "-I", "-S", "-c", program, *words)


def ask_all(engine: PrivateEngine, name: str, *requests: tuple[str, str, Any]) -> list[Reply]:
    """Send requests (method, path, body) one after the other from within a container."""
    done = engine.cli("jaula", *inside(engine, name, REQUESTS, json.dumps(requests)))
    assert done.returncode == 0, done.stdout + done.stderr
    return [Reply(status, {}, text.encode()) for status, text in json.loads(done.stdout)]


def ask(engine: PrivateEngine, name: str, method: str, path: str, body: Any = None) -> Reply:
    """Send one request from within a container."""
    (reply,) = ask_all(engine, name, (method, path, body))
    return reply


def audit_lines(engine: PrivateEngine) -> list[dict[str, Any]]:
    paths = sorted((engine.root / "lib" / "audit").glob("*.log"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def engine_sockets(engine: PrivateEngine) -> set[str]:
    """Return the inodes of the engine sockets that the engine has open."""
    assert engine.process is not None
    lines = Path("/proc/net/unix").read_text().splitlines()
    bound = {line.split()[6] for line in lines if line.endswith("/engine.sock")}
    opened = set()
    for descriptor in Path(f"/proc/{engine.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            opened.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    return bound & opened


# -- clients ------------------------------------------------------------------------------------


def test_traefik_lists_inspects_and_follows_events(engine: PrivateEngine) -> None:
    labels = ("--label", "traefik.enable=true", "-e", "PASSWORD=of-root")
    with (
        containers.running(engine, "busybox", flags=labels) as web,
        running(engine, "reader", "--user", "1000", "--cap-drop", "ALL") as reader,
    ):
        command = [str(PROJECT / "jaula"), *inside(engine, reader, TRAEFIK, web)]
        with subprocess.Popen(
            command, env=engine.environment(), stdout=subprocess.PIPE, text=True
        ) as following:
            assert following.stdout is not None
            names, seen, env = json.loads(following.stdout.readline())
            assert f"/{web}" in names
            assert seen["traefik.enable"] == "true"
            assert "PASSWORD" in env  # without its value
            assert engine.cli("jaula", "exec", web, "echo", "a-secret-argument").returncode == 0
            engine.request("DELETE", f"/containers/{web}?force=1")
            output = following.stdout.read().splitlines()
        actions = [line.split(" ")[0] for line in output]
        assert actions == ["kill", "die", "destroy"]
        refused = ask(engine, reader, "POST", f"/containers/{reader}/kill")
        assert refused.status == 403
        assert (
            'container reader may not change anything: rule [container."reader"]'
            in (refused.json()["message"])
        )
        assert ask(engine, reader, "GET", f"/containers/{reader}/logs?stdout=1").status == 403


def test_ryuk_removes_by_label_and_nothing_else(engine: PrivateEngine) -> None:
    label = ("--label", SESSION)
    assert engine.cli("jaula", "volume", "create", *label, "ryuk-own").returncode == 0
    assert engine.cli("jaula", "volume", "create", "ryuk-other").returncode == 0
    assert engine.cli("jaula", "network", "create", *label, "ryuk-net").returncode == 0
    with (
        containers.running(engine, "busybox", flags=label) as own,
        containers.running(engine, "busybox") as other,
        running(engine, containers.unique("ryuk"), "--label", "ryuk=true") as ryuk,
    ):
        chosen = quote(json.dumps({"label": {SESSION: True}}))
        found = ask(engine, ryuk, "GET", f"/containers/json?all=1&filters={chosen}").json()
        assert [each["Names"] for each in found] == [[f"/{own}"]]
        expected = {
            ("DELETE", f"/containers/{own}?force=1&v=1"): 204,
            ("DELETE", f"/containers/{own}?force=1&v=1 "): 404,
            ("DELETE", "/networks/ryuk-net"): 204,
            ("DELETE", "/volumes/ryuk-own?force=1"): 204,
            ("POST", f"/networks/prune?filters={chosen}"): 200,
            ("POST", f"/containers/prune?filters={chosen}"): 200,
            ("POST", f"/volumes/prune?filters={chosen}"): 200,
            ("POST", f"/images/prune?filters={chosen}"): 200,
            ("DELETE", f"/containers/{other}?force=1"): 403,
            ("POST", f"/containers/{other}/kill"): 403,
            ("DELETE", "/volumes/ryuk-other?force=1"): 403,
            ("DELETE", "/images/busybox"): 403,
            ("POST", "/containers/prune"): 403,
            ("POST", "/volumes/prune"): 403,
            ("POST", "/networks/prune"): 403,
            ("POST", "/images/prune"): 403,
        }
        replies = ask_all(engine, ryuk, *((verb, path.strip(), None) for verb, path in expected))
        answers = {key: reply.status for key, reply in zip(expected, replies, strict=True)}
        assert answers == expected
    assert engine.cli("jaula", "volume", "rm", "ryuk-other").returncode == 0


@pytest.mark.needs("/usr/bin/docker")
def test_portainer_creates_starts_and_enters_containers(engine: PrivateEngine) -> None:
    with running(engine, "portainer", "--user", "1000") as portainer:

        def docker(*words: str, **options: Any) -> str:
            flags = ("-i",) if "input" in options else ()
            done = engine.cli("jaula", "exec", *flags, portainer, "docker", *words, **options)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        assert docker("run", "-d", "--name", "made", "busybox", "sleep", "600").strip()
        owner = containers.inspect(engine, "made")["Owner"]
        identifier = containers.inspect(engine, portainer)["Id"]
        assert owner == f"container:{identifier}"
        assert docker("exec", "-i", "made", "cat", input="hijacked") == "hijacked"
        assert docker("run", "-i", "--rm", "busybox", "cat", input="attached") == "attached"
        assert "sleep 600" in docker("top", "made")
        assert docker("rm", "-f", "made").strip() == "made"
        lines = [line for line in audit_lines(engine) if line.get("container") == identifier]
        assert {"container create", "container start", "exec start", "container remove"} <= {
            line["action"] for line in lines
        }
        assert all("uid" not in line and line["pid"] > 0 for line in lines)
        assert {line["command"] for line in lines} == {"docker"}
        table = engine.cli("jaula", "system", "audit-log", "--root", str(engine.root / "lib"))
        assert f"container {identifier[:12]}" in table.stdout


def test_a_container_with_run_has_the_rights_of_a_user_with_run(engine: PrivateEngine) -> None:
    with (
        containers.running(engine, "busybox") as other,
        running(engine, "runner") as runner,
    ):
        body = {"Image": "busybox", "Cmd": ["sleep", "60"]}
        bound = body | {"HostConfig": {"Binds": [f"{engine.socket}:/s"]}}
        joined = body | {"HostConfig": {"PidMode": f"container:{other}"}}
        create = "/containers/create"
        steps: list[tuple[int, str, str, Any]] = [
            (201, "POST", f"{create}?name=made-by-runner", body),
            (204, "POST", "/containers/made-by-runner/start", None),
            (403, "POST", create, body | {"HostConfig": {"Privileged": True}}),
            (403, "POST", create, body | {"HostConfig": {"Binds": ["/etc:/etc"]}}),
            (403, "POST", create, joined),
            (403, "POST", f"{create}?name=portainer", bound),  # an entry with more than its own
            (201, "POST", f"{create}?name=reader", bound),
            (204, "DELETE", "/containers/reader", None),
            (403, "DELETE", f"/containers/{other}?force=1", None),
            (204, "DELETE", "/containers/made-by-runner?force=1", None),
        ]
        requests = [(method, path, document) for _, method, path, document in steps]
        replies = ask_all(engine, runner, *requests)
        assert [reply.status for reply in replies] == [step[0] for step in steps], replies


PERL = r"""
use IO::Socket::UNIX;
my $made = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "connect: $!\n";
print $made "GET /containers/json HTTP/1.0\r\n\r\n";
print while <$made>;
"""


@pytest.mark.slow
def test_a_program_of_the_image_is_served_with_all_protections(engine: PrivateEngine) -> None:
    load_image(engine, "debian")
    words = ("run", "-d", "--name", "reader", "--mount", "type=engine-socket", "debian")
    assert engine.cli("jaula", *words, "sleep", "600").returncode == 0
    try:
        done = engine.cli("jaula", "exec", "reader", "perl", "-e", PERL, TARGET)
        assert "200 OK" in done.stdout, done.stdout + done.stderr
        assert '"/reader"' in done.stdout
        done = engine.cli("jaula", "exec", "reader", "perl", "-e", PERL, "/run/none.sock")
        assert "connect: No such file" in done.stderr
    finally:
        engine.request("DELETE", "/containers/reader?force=1")


# -- who may have one ---------------------------------------------------------------------------


@pytest.mark.parametrize("link", [False, True])
def test_a_bind_of_the_engines_socket_needs_an_entry(
    engine: PrivateEngine, tmp_path: Path, link: bool
) -> None:
    source = engine.socket
    if link:
        source = tmp_path / "docker.sock"
        source.symlink_to(engine.socket)
    flags = ("-v", f"{source}:{TARGET}:ro")
    refused = engine.cli("jaula", "create", "--name", "web", *flags, "busybox")
    assert refused.returncode == 1
    text = refused.stderr
    assert "uid 0" in text
    assert '[container."web"] and access = "read" in ' in text
    assert engine.extra_flags[1] in text
    assert "--userns=host is not needed" in text
    nameless = engine.cli("jaula", "create", *flags, "busybox")
    assert '[container."NAME"] and access = "read"' in nameless.stderr
    assert "--name NAME" in nameless.stderr
    labelled = engine.cli("jaula", "create", *flags, "--label", "a=b", "busybox")
    assert '[container."label=a=b"] and access = "read"' in labelled.stderr
    made = engine.cli("jaula", "create", "--name", "reader", *flags, "busybox")
    assert made.returncode == 0, made.stderr
    (mount,) = containers.inspect(engine, "reader")["Mounts"]
    assert (mount["Type"], mount["Destination"], mount["RW"]) == ("engine-socket", TARGET, False)
    assert engine.cli("jaula", "rm", "reader").returncode == 0


def test_the_proposed_lines_allow_it(engine: PrivateEngine) -> None:
    refused = engine.cli("jaula", *words_for(engine, "web", "--mount", "type=engine-socket"))
    assert 'the lines [container."web"]' in refused.stderr
    try:
        reload_policy(engine, f'{POLICY}[container."web"]\naccess = "read"\n')
        with running(engine, "web") as web:
            assert ask(engine, web, "GET", "/containers/json").status == 200
            reload_policy(engine, POLICY)
            denied = ask(engine, web, "GET", "/containers/json")
            assert denied.status == 403
            assert '[container."web"] (not in the policy)' in denied.json()["message"]
            restarted = engine.cli("jaula", "restart", "-t", "0", web)
            assert '[container."web"] and access = "read"' in restarted.stderr
    finally:
        reload_policy(engine, POLICY)


def test_a_caller_needs_the_right_of_the_entry_or_is_named_there(engine: PrivateEngine) -> None:
    member = ApiUser(engine, MEMBER, MEMBER, (GROUP,))
    named = ApiUser(engine, NAMED, NAMED, (GROUP,))
    mounts = {"Mounts": [{"Type": "engine-socket"}]}
    refused = member.create("busybox", "portainer", **mounts)
    assert refused.status == 403
    message = refused.json()["message"]
    assert "engine-socket=portainer" in message
    assert f'the line users = ["{MEMBER}"] below [container."portainer"]' in message
    assert "\n" not in message
    for user, name in ((member, "reader"), (member, "runner"), (named, "portainer")):
        made = user.create("busybox", name, **mounts)
        assert made.status == 201, made
        assert user.request("DELETE", f"/containers/{name}").status == 204


def test_the_image_does_not_choose_the_right_of_its_container(engine: PrivateEngine) -> None:
    with containers.running(engine, "busybox") as base:
        changes = "LABEL ryuk=true"
        path = f"/commit?container={base}&repo=sly&changes={changes.replace(' ', '%20')}"
        assert engine.request("POST", path).status == 201
    refused = engine.cli("jaula", "create", "--mount", "type=engine-socket", "sly")
    assert "the policy has no entry for this container" in refused.stderr
    assert engine.request("DELETE", "/images/sly").status == 200


def test_a_rename_gives_and_takes_no_right(engine: PrivateEngine) -> None:
    with running(engine, "reader") as reader:
        assert engine.request("POST", f"/containers/{reader}/rename?name=portainer").status == 204
        try:
            body = {"Image": "busybox"}
            assert ask(engine, "portainer", "GET", "/containers/json").status == 200
            assert ask(engine, "portainer", "POST", "/containers/create", body).status == 403
        finally:
            engine.request("DELETE", "/containers/portainer?force=1")


def test_another_container_gets_no_share_of_the_socket(engine: PrivateEngine) -> None:
    member = ApiUser(engine, MEMBER, MEMBER, (GROUP,))
    with running(engine, "portainer") as boss:
        heir = engine.cli("jaula", "create", "--name", "heir", "--volumes-from", boss, "busybox")
        assert heir.returncode == 0, heir.stderr
        types = [m["Type"] for m in containers.inspect(engine, "heir")["Mounts"]]
        assert types == ["bind"]
        assert engine.cli("jaula", "rm", "heir").returncode == 0
        refused = member.create("busybox", PidMode=f"container:{boss}")
        assert refused.status == 403


def test_control_of_a_container_is_not_the_right_of_its_socket(engine: PrivateEngine) -> None:
    text = POLICY.replace('access = "run"', 'access = "run"\nothers = "control"', 1)
    try:
        reload_policy(engine, text)
        member = ApiUser(engine, MEMBER, MEMBER, (GROUP,))
        boss, mounts = "portainer", {"Mounts": [{"Type": "engine-socket"}]}
        body = {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": mounts}
        made = engine.request("POST", f"/containers/create?name={boss}", body)
        assert made.status == 201, made
        try:
            assert engine.request("POST", f"/containers/{boss}/start").status == 204
            for method, path, more in (
                ("POST", f"/containers/{boss}/exec", {"Cmd": ["id"]}),
                ("POST", f"/containers/{boss}/attach?stream=1&stdin=1", None),
                ("POST", f"/containers/{boss}/restart", None),
                ("PUT", f"/containers/{boss}/archive?path=/", None),
                ("POST", "/containers/create", {"HostConfig": {"PidMode": f"container:{boss}"}}),
            ):
                reply = member.request(method, path, {"Image": "busybox", **more} if more else None)
                assert reply.status == 403, (path, reply)
                assert "engine-socket=portainer" in reply.json()["message"]
            assert member.request("POST", f"/containers/{boss}/stop?t=0").status == 204
        finally:
            engine.request("DELETE", f"/containers/{boss}?force=1")
    finally:
        reload_policy(engine, POLICY)


# -- the life of the socket ---------------------------------------------------------------------


def test_the_socket_outlives_the_engine_and_ends_with_the_container(
    engine: PrivateEngine,
) -> None:
    with running(engine, "reader") as reader:
        assert ask(engine, reader, "GET", "/_ping").status == 200
        identifier = containers.inspect(engine, reader)["Id"]
        path = engine.run / "containers" / identifier / "engine.sock"
        held = path.stat().st_ino
        engine.kill()
        engine.start()
        engine.socket.chmod(0o666)
        assert path.stat().st_ino == held
        assert ask(engine, reader, "GET", "/containers/json").status == 200
        engine.stop()
        engine.start()
        engine.socket.chmod(0o666)
        assert ask(engine, reader, "GET", "/containers/json").status == 200
        assert engine.cli("jaula", "restart", "-t", "0", reader).returncode == 0
        assert ask(engine, reader, "GET", "/containers/json").status == 200
        assert engine.cli("jaula", "kill", reader).returncode == 0
        assert not path.exists()
        assert not engine_sockets(engine)
        assert engine.cli("jaula", "start", reader).returncode == 0
        assert len(engine_sockets(engine)) == 1
    assert not path.parent.exists()
    assert not engine_sockets(engine)


def test_a_start_that_fails_leaves_no_socket(engine: PrivateEngine) -> None:
    words = ("create", "--name", "reader", "--mount", "type=engine-socket", "busybox", "/absent")
    assert engine.cli("jaula", *words).returncode == 0
    identifier = containers.inspect(engine, "reader")["Id"]
    try:
        assert engine.cli("jaula", "start", "reader").returncode != 0
        assert not (engine.run / "containers" / identifier).exists()
        assert not engine_sockets(engine)
    finally:
        assert engine.cli("jaula", "rm", "reader").returncode == 0


@pytest.mark.parametrize(
    "flags",
    [
        ("--userns", "host"),
        ("--network", "none", "--read-only"),
        ("--privileged",),
        ("--user", "1000:1000", "--cap-drop", "ALL", "--profile", "strict"),
    ],
)
def test_an_engine_socket_works_in_every_kind_of_container(
    engine: PrivateEngine, flags: tuple[str, ...]
) -> None:
    """Neither the user namespace of the host nor any other relaxation changes the right."""
    with running(engine, "reader", *flags) as reader:
        assert ask(engine, reader, "GET", "/containers/json").status == 200
        assert ask(engine, reader, "POST", "/containers/prune").status == 403


# -- hostile clients ----------------------------------------------------------------------------


def test_a_user_of_the_container_without_the_group_root_cannot_connect(
    engine: PrivateEngine,
) -> None:
    with running(engine, "reader", "--user", "1000:1000") as reader:
        program = CLIENT + "ask('GET', '/_ping')"
        words = inside(engine, reader, program)
        done = engine.cli("jaula", words[0], "-u", "1001:1001", *words[1:])
        assert "PermissionError" in done.stderr


def test_a_container_cannot_use_up_the_connections(engine: PrivateEngine) -> None:
    program = CLIENT + (
        "held = []\n"
        "for _ in range(900):\n"
        "    made = socket.socket(socket.AF_UNIX)\n"
        "    made.connect('/var/run/docker.sock')\n"
        "    held.append(made)\n"
        "    try: made.send(b'GET /_ping HTTP/1.1\\r\\n')\n"
        "    except OSError: pass\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    with running(engine, "reader", "--ulimit", "nofile=4096") as reader:
        words = inside(engine, reader, program)
        command = [str(PROJECT / "jaula"), words[0], "-i", *words[1:]]
        with subprocess.Popen(
            command,
            env=engine.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as flooding:
            assert flooding.stdout is not None
            assert flooding.stdin is not None
            assert flooding.stdout.readline() == "held\n"
            assert engine.request("GET", "/containers/json").status == 200
            member = ApiUser(engine, MEMBER, MEMBER, (GROUP,))
            assert member.request("GET", "/containers/json").status == 200
            flooding.stdin.close()


def test_what_is_not_http_gets_an_error(engine: PrivateEngine) -> None:
    program = CLIENT + (
        "made = socket.socket(socket.AF_UNIX); made.connect('/var/run/docker.sock')\n"
        "made.settimeout(10); made.send(b'\\0\\r\\n\\r\\n')\n"
        "print(made.recv(64).decode().splitlines()[0])\n"
    )
    with running(engine, "reader") as reader:
        done = engine.cli("jaula", *inside(engine, reader, program))
        assert "400" in done.stdout, done


# -- verify -------------------------------------------------------------------------------------


def test_verify_shows_the_socket_as_relaxed_with_its_right(engine: PrivateEngine) -> None:
    with running(engine, containers.unique("ryuk"), "--label", "ryuk=true") as ryuk:
        done = engine.cli("jaula", "verify", "--format", "json", ryuk)
        rows = {row["id"]: row for row in json.loads(done.stdout)}
        row = rows["engine socket"]
        assert row["verdict"] == "relaxed"
        assert row["effective"] == f"access read, others list, remove {SESSION}"
        assert '[container."label=ryuk=true"]' in row["evidence"]
        assert "engine-socket=label=ryuk=true" in rows["relaxations"]["effective"]
        assert not [each for each in rows.values() if each["verdict"] == "FAILS"]
