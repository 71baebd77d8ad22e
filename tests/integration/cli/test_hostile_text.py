"""Texts of containers, images, peers and engines are printed without effect on the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from harness import containers
from harness.engine import PROJECT, PrivateEngine
from harness.terminal import Terminal
from jaula.cli import command_table

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\rx\u202ey\x08\x7f"
LEFT = {chr(n) for n in (*range(32), *range(0x7F, 0xA0), 0x202E)} - {"\n", "\t"}
STREAMS = {"daemon", "web", "demo", "completion", "dial-stdio", "compose", "cri setup"}
"""Commands that serve, or that ask no engine."""


def control_characters(text: str) -> set[str]:
    return LEFT & set(text)


@pytest.fixture(scope="module")
def hostile(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """Yield the name of a container, a volume and a network with hostile labels."""
    name = f"hostile-{uuid.uuid4().hex[:8]}"
    labels = {"text": HOSTILE, "line": "a\nb\tc"}
    body = {
        "Image": busybox,
        "Cmd": ["sh", "-c", f"touch '/{HOSTILE}'; : '{HOSTILE}'; printf '{HOSTILE}\\n'; sleep 600"],
        "Labels": labels,
        "Env": [f"TEXT={HOSTILE}"],
    }
    created = engine.request("POST", f"/containers/create?name={name}", body)
    assert created.status == 201, created
    for path in ("/volumes/create", "/networks/create"):
        made = engine.request("POST", path, {"Name": name, "Labels": labels})
        assert made.status == 201, made
    assert engine.request("POST", f"/containers/{name}/start").status == 204
    yield name
    for path in (f"/containers/{name}?force=1", f"/volumes/{name}", f"/networks/{name}"):
        assert engine.request("DELETE", path).status == 204


@pytest.mark.parametrize(
    "command",
    [
        "ps --no-trunc",
        "ps --no-trunc --format {{.Command}}",
        "ps --format {{.Labels}}",
        "ps --format json",
        "inspect NAME",
        "inspect --format {{.Config.Labels.text}} NAME",
        "inspect --format {{.Config.Env}} NAME",
        "inspect --format {{.Args}} NAME",
        "top NAME",
        "diff NAME",
        "volume ls --format {{.Labels}}",
        "volume inspect NAME",
        "volume inspect --format {{.Labels}} NAME",
        "network inspect --format {{.Labels}} NAME",
        "network ls --format {{.Labels}}",
        "events --since 1h --until 0s",
        "events --since 1h --until 0s --format {{.Actor.Attributes.text}}",
        "verify NAME",
        "verify --format json NAME",
        "exec NAME \x1b[31m",
        "inspect \x1b[2J",
        "rm \x9b31m",
        "run \x1b]0;x\x07",
        "pull \x1b[31m",
        "--host tcp://\x1b[31m:1 ps",
        "no-such-\x1b[31m",
        "ps --\x1b[31m",
        "container inspect --format {{\x1b[31m}} NAME",
        "commit --message \x1b[31m NAME \x1b[31m",
        "volume rm \x1b[31m",
        "report --output - NAME",
    ],
)
def test_a_text_of_a_container_is_harmless(
    engine: PrivateEngine, hostile: str, command: str
) -> None:
    words = [hostile if word == "NAME" else word for word in command.split(" ")]
    done = engine.cli("jaula", *words, timeout=120)
    assert not control_characters(done.stdout + done.stderr), (done.stdout, done.stderr)
    assert done.stdout + done.stderr


def test_a_value_is_shown_and_a_document_keeps_it(engine: PrivateEngine, hostile: str) -> None:
    (document,) = json.loads(engine.cli("jaula", "inspect", hostile).stdout)
    assert document["Config"]["Labels"]["text"] == HOSTILE
    listed = engine.cli("jaula", "ps", "--filter", f"name={hostile}", "--format", "{{.Labels}}")
    assert "\\u001b]0;owned\\u0007" in listed.stdout
    rows = engine.cli("jaula", "ps", "--filter", f"name={hostile}", "--no-trunc").stdout
    assert len(rows.splitlines()) == 2


def test_the_output_of_a_program_stays_as_it_is(engine: PrivateEngine, hostile: str) -> None:
    def output(*words: str) -> bytes:
        done = subprocess.run(
            [str(PROJECT / "jaula"), *words],
            env=engine.environment(),
            capture_output=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    assert HOSTILE.encode() in output("exec", hostile, "printf", HOSTILE)
    containers.eventually(lambda: HOSTILE.encode() in output("logs", hostile), "the log", 60)


def test_a_terminal_gets_no_sequence_of_a_label(engine: PrivateEngine, hostile: str) -> None:
    words = ["ps", "--filter", f"name={hostile}", "--format", "{{.Labels}} end"]
    with Terminal([str(PROJECT / "jaula"), *words], engine.environment()) as terminal:
        shown = terminal.expect(r"(.*owned.*) end")
    assert "\x1b" not in shown[0]
    assert "\\u001b" in shown[0]


@pytest.fixture(scope="module")
def lying_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an engine that answers each request with an error of hostile text."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = json.dumps({"message": f"refused {HOSTILE}"}).encode()
            self.send_response(500)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer

        def address_string(self) -> str:
            return ""

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    path = tmp_path_factory.mktemp("lying") / "socket"
    server = ThreadingUnixStreamServer(str(path), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"unix://{path}"
    server.shutdown()
    server.server_close()
    thread.join()


SWEEP = """
import contextlib, io, json, os, signal, sys
from jaula.cli import command_table, main
from jaula.cli.main import Settings
found = {}
for name in json.loads(sys.argv[2]):
    command = command_table.load(name)
    words = ["--host", sys.argv[1], *name.split(), *["x"] * (command.min_args or 0)]
    out = io.StringIO()
    signal.alarm(60)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main.main(words)
        except SystemExit:
            pass
    signal.alarm(0)
    found[name] = out.getvalue()
print(json.dumps(found))
"""


def test_an_error_of_a_lying_engine_is_harmless_in_every_command(
    lying_engine: str, tmp_path: Path
) -> None:
    names = sorted(set(command_table.commands()) - STREAMS)
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, lying_engine, json.dumps(names)],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src"), "HOME": str(tmp_path)},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    wrong = {name: text for name, text in found.items() if control_characters(text)}
    assert not wrong
    assert sum("owned" in text for text in found.values()) > len(names) // 3
