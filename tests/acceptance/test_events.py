"""``jaula events`` and ``docker events`` on one engine: the same lines in every format."""

from __future__ import annotations

import json
import math
import time

import pytest

from harness.engine import PrivateEngine

FIELDS = (
    "{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}} {{.Status}}|{{.From}}"
    ' {{.Scope}} {{.Time}} {{.TimeNano}} {{.ID}} {{index .Actor.Attributes "image"}}'
    " {{json .Actor}}"
    ' {{.Actor.Attributes}} {{printf "%-12s|" .Action}}'
)
OOM = '{{if eq .Action "oom"}}{{.Actor.Attributes.memoryLimit}} {{.Actor.Attributes.name}}{{end}}'
ISOLATION = (
    '{{if eq .Action "isolation-changed"}}{{with .Actor.Attributes}}'
    "{{.row}} {{.verdict}} {{.requested}} {{.effective}}{{end}}{{end}}"
)


@pytest.fixture(scope="module")
def span(engine: PrivateEngine, busybox: str) -> tuple[str, str]:
    """Cause events of each kind, and return times before and after them."""
    since = math.floor(time.time())
    words = ("--rm", "--name", "ev-oom", "--memory", "16m", "--label", "z=1", "--label", "a=2")
    engine.cli("jaula", "run", *words, busybox, "sh", "-c", "tail /dev/zero")
    engine.cli("jaula", "run", "-d", "--name", "ev-web", busybox, "sleep", "100")
    engine.cli("jaula", "exec", "ev-web", "true")
    body = {"Row": "seccomp", "Verdict": "FAILS", "Requested": "filter", "Effective": "none"}
    reply = engine.request("POST", "/jaula/containers/ev-web/isolation-changed", body)
    assert reply.status < 300, reply
    for action in (
        ("network", "create", "ev-net"),
        ("network", "connect", "ev-net", "ev-web"),
        ("network", "disconnect", "ev-net", "ev-web"),
        ("network", "rm", "ev-net"),
        ("volume", "create", "ev-volume"),
        ("volume", "rm", "ev-volume"),
        ("tag", busybox, "ev-image:2"),
        ("rmi", "ev-image:2"),
        ("pause", "ev-web"),
        ("unpause", "ev-web"),
        ("rm", "-f", "ev-web"),
    ):
        done = engine.cli("jaula", *action)
        assert done.returncode == 0, (action, done.stderr)
    time.sleep(1.1 - time.time() % 1)
    return str(since), str(math.floor(time.time()))


def printed(engine: PrivateEngine, program: str, span: tuple[str, str], *words: str) -> list[str]:
    done = engine.cli(program, "events", "--since", span[0], "--until", span[1], *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--format", "json"),
        ("--format", "{{json .}}"),
        ("--format", FIELDS),
        ("--format", OOM),
        ("--format", ISOLATION),
        ("--format", "{{.Action}}\\t{{.Actor.Attributes.exitCode}}", "-f", "type=container"),
    ],
)
def test_the_output_is_that_of_docker(
    engine: PrivateEngine, span: tuple[str, str], words: tuple[str, ...]
) -> None:
    expected = printed(engine, "docker", span, *words)
    assert len(expected) > 8
    assert printed(engine, "jaula", span, *words) == expected


def test_events_of_memory_and_isolation_have_their_fields(
    engine: PrivateEngine, span: tuple[str, str]
) -> None:
    lines = [json.loads(line) for line in printed(engine, "jaula", span, "--format", "json")]
    actors = {line["Action"]: line["Actor"]["Attributes"] for line in lines}
    assert actors["oom"]["memoryLimit"] == str(16 << 20)
    assert actors["oom"]["name"] == "ev-oom"
    assert actors["isolation-changed"]["verdict"] == "FAILS"
    for attributes in actors.values():
        assert list(attributes) == sorted(attributes)
