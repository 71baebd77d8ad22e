"""The document of a profile: parsed once, in a sandboxed process, and never by the engine."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.containers import container_inspect, presets, profile_document
from jaula.engine.containers.query import ContainerQueries
from jaula.errors import InvalidRequest
from jaula.sandbox import fork_server
from jaula.sandbox.sandbox_worker import WorkerEnded
from jaula.sandbox.start_sandbox import Task
from jaula.spec import confinement_profile
from jaula.spec.api_documents import ContainerCreate, HostConfig

DOCUMENT = """
version = 1
name = "web"
capabilities = ["NET_BIND_SERVICE"]

[process]
user = "101:101"

[seccomp.syscalls]
x86_64 = ["read", "write"]

[network]
listen = ["tcp:80"]

[limits]
cpus = 0.5

[evidence.capabilities.NET_BIND_SERVICE]
programs = ["nginx"]
"""


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement_profile, "_known", {})


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the processes that are started; this process may not parse TOML."""
    started: list[str] = []
    fork = fork_server.SERVER.fork

    def counted(task: Task, *options: Any) -> Any:
        started.append(task.name)
        return fork(task, *options)

    def refused(*_: object) -> None:
        raise AssertionError("this process parses TOML")

    monkeypatch.setattr(fork_server.SERVER, "fork", counted)
    monkeypatch.setattr(confinement_profile.toml, "loads", refused)
    return started


def test_a_request_is_parsed_once_in_a_process_of_its_own(processes: list[str]) -> None:
    for member in ({"profile": DOCUMENT}, {"annotations": {presets.ANNOTATION: DOCUMENT}}):
        body = ContainerCreate(image="x", host_config=HostConfig(**member))
        asyncio.run(presets.read_document(body.host_config))
        completed = presets.apply(body, "default", 6)
        assert completed.user == "101:101"
        assert completed.host_config.cap_add == ("NET_BIND_SERVICE",)
        own = presets.document(completed.host_config)
        assert own is not None
        assert own.evidence
    assert processes == ["jaula-profile"]


def test_the_process_reads_what_the_parser_reads() -> None:
    expected = confinement_profile.load(DOCUMENT.encode(), "of the request")
    asyncio.run(presets.read_document(HostConfig(profile=DOCUMENT)))
    assert confinement_profile.load_text(DOCUMENT) == expected


def test_a_refusal_is_known_too(processes: list[str]) -> None:
    host = HostConfig(profile='version = 1\nname = "web"\ndevices = ["/dev/../x"]\n')
    with pytest.raises(InvalidRequest, match="profile of the request: invalid device") as raised:
        asyncio.run(presets.read_document(host))
    assert raised.value.hint
    assert presets.document(host) is None
    assert processes == ["jaula-profile"]


def test_an_inspection_after_a_restart_parses_in_a_process(
    processes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = HostConfig(profile=DOCUMENT)
    record = SimpleNamespace(body=SimpleNamespace(host_config=host))
    queries = ContainerQueries.__new__(ContainerQueries)
    queries.services = SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setattr(ContainerQueries, "find", lambda *_: SimpleNamespace(record=record))
    monkeypatch.setattr(
        container_inspect, "document", lambda *_: {"ProfileName": presets.document(host)}
    )
    document = asyncio.run(queries.inspect("web", size=False))
    assert document["ProfileName"].name == "web"
    assert processes == ["jaula-profile"]


@pytest.mark.parametrize("answer", [b"", b"\x80", b"\xc1", b"\x81\xa4name\x01"])
def test_a_forged_answer_is_no_profile(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def parse(*_: object, **__: object) -> bytes:
        return answer

    monkeypatch.setattr(profile_document, "parse", parse)
    with pytest.raises(WorkerEnded, match="answer of the process"):
        asyncio.run(presets.read_document(HostConfig(profile=DOCUMENT)))
    assert not confinement_profile.is_known(DOCUMENT)


def test_the_last_documents_are_known() -> None:
    for number in range(100):
        confinement_profile.load_text(f'version = 1\nname = "p{number}"\n')
    assert len(confinement_profile._known) == 32
    assert confinement_profile.is_known('version = 1\nname = "p99"\n')
