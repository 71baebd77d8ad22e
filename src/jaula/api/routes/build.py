"""Building images: ``/build``, what belongs to it, and the session of a client that builds.

Source: Docker Engine API 1.45, ``ImageBuild``, ``BuildPrune``. What asks for BuildKit
(``version=2``) is refused; the docker command asks for it only where ``/_ping`` names it. ``POST
/grpc`` and ``/session`` are no routes: a client that finds no page there does without BuildKit.
"""

from __future__ import annotations

import binascii
from typing import Any, TypeVar

import msgspec

from jaula.api import version
from jaula.api.http import response
from jaula.api.http.json_stream import lines
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, HijackResponse, StreamResponse
from jaula.api.router import Routes
from jaula.errors import InvalidRequest, JaulaError, StepFailed
from jaula.spec.api import HostConfig, RegistryAuth, Ulimit
from jaula.spec.build import BuildOptions, PruneOptions
from jaula.spec.build_session import PROTOCOL

_Kind = TypeVar("_Kind")
_MAX_NAMES = 128


def _document(call: Request, name: str, kind: type[_Kind], empty: _Kind) -> _Kind:
    """A parameter that is a JSON document; ``null`` is none."""
    text = call.query.text(name)
    if not text or text == "null":
        return empty
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as problem:
        raise InvalidRequest(f"{name} is not valid: {problem}") from None


def _auths(call: Request) -> dict[str, RegistryAuth]:
    """``X-Registry-Config``: credentials by registry, in URL-safe base 64."""
    text = call.header(b"x-registry-config")
    if not text:
        return {}
    try:
        padded = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=") + "=="
        data = binascii.a2b_base64(padded)
        return msgspec.json.decode(data, type=dict[str, RegistryAuth] | None) or {}
    except (binascii.Error, ValueError, RecursionError, msgspec.DecodeError):
        raise InvalidRequest("invalid X-Registry-Config header") from None


def _host(call: Request) -> HostConfig:
    query = call.query

    def number(name: str) -> int:
        return query.integer(name) or 0

    return HostConfig(
        network_mode=query.text("networkmode"),
        memory=number("memory"),
        memory_swap=number("memswap"),
        cpu_shares=number("cpushares"),
        cpu_period=number("cpuperiod"),
        cpu_quota=number("cpuquota"),
        cpuset_cpus=query.text("cpusetcpus"),
        cpuset_mems=query.text("cpusetmems"),
        cgroup_parent=query.text("cgroupparent"),
        shm_size=number("shmsize"),
        extra_hosts=tuple(
            line for text in query.texts("extrahosts") for line in text.split(",") if line
        ),
        ulimits=tuple(_document(call, "ulimits", list[Ulimit], [])),
        security_opt=tuple(_document(call, "securityopt", list[str], [])),
        isolation=query.text("isolation"),
    )


def _options(call: Request) -> BuildOptions:
    query = call.query
    if query.text("version") == "2":
        raise InvalidRequest(
            "this engine builds without BuildKit", hint="set DOCKER_BUILDKIT=0, or use jaula build"
        )
    names = tuple(name for name in query.texts("t") if name)
    if len(names) > _MAX_NAMES:
        raise InvalidRequest(f"{len(names)} names were given, {_MAX_NAMES} is the limit")
    return BuildOptions(
        names=names,
        dockerfile=query.text("dockerfile"),
        remote=query.text("remote"),
        target=query.text("target"),
        platform=query.text("platform").lower(),
        build_args=_document(call, "buildargs", dict[str, str | None], {}),
        labels=_document(call, "labels", dict[str, str], {}),
        cache_from=tuple(_document(call, "cachefrom", list[str], [])),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        quiet=query.flag("q"),
        squash=query.flag("squash"),
        steps=query.text("progress") == "steps",
        host=_host(call),
        auths=_auths(call),
        session=query.text("session"),
        build_id=query.text("buildid"),
        allow=tuple(word for text in query.texts("allow") for word in text.split(",") if word),
        contexts=_document(call, "buildcontexts", dict[str, str], {}),
    )


async def build(call: Request) -> Answer:
    """``POST /build``: the body is the context, a tar, compressed or not."""
    progress = call.engine.builds.build(_options(call), call.body())
    return StreamResponse(lines(progress), last_words=_failure)


def _failure(problem: JaulaError) -> bytes:
    """The last line; a step's status is the docker command's exit code."""
    text = str(problem)
    detail: dict[str, Any] = {"message": text}
    if isinstance(problem, StepFailed):
        detail["code"] = problem.exit_code
    return response.encode({"errorDetail": detail, "error": text})


async def prune(call: Request) -> Answer:
    """``POST /build/prune``."""
    query = call.query
    options = PruneOptions(
        all=query.flag("all"),
        keep=query.integer("keep-storage") or query.integer("reserved-space") or 0,
        filters=query.filters(),
    )
    return response.json(await call.engine.builds.prune(options))


async def cancel(call: Request) -> Answer:
    """``POST /build/cancel``."""
    id = call.query.text("id")
    if not id:
        raise InvalidRequest("the id of a build is needed (id)")
    await call.engine.builds.cancel(id)
    return response.NO_CONTENT


async def session(call: Request) -> Answer:
    """``POST /build/session``: see :mod:`jaula.spec.build_session`."""
    if call.header(b"upgrade").lower() != PROTOCOL:
        raise InvalidRequest("a session is an upgrade", hint=f"send Upgrade: {PROTOCOL}")
    id, builds = call.query.text("session"), call.engine.builds
    builds.check_session(id)

    async def take(descriptor: int, early: bytes) -> None:
        await builds.session(id, descriptor, early)

    return HijackResponse(b"", take, lambda problem: b"", _HEAD)


_HEAD = b"\r\n".join(
    (
        b"HTTP/1.1 101 Switching Protocols",
        b"Connection: Upgrade",
        b"Upgrade: " + PROTOCOL.encode(),
        *(name + b": " + value for name, value in version.HEADERS),
        b"",
        b"",
    )
)

ROUTES: Routes = (
    ("POST", "/build", build),
    ("POST", "/build/prune", prune),
    ("POST", "/build/cancel", cancel),
    ("POST", "/build/session", session),
)
