"""Builds: ``/build``, the build cache, the build session of a client, and BuildKit's protocol.

Source: Docker Engine API 1.45, ``ImageBuild``, ``BuildPrune``, ``Session``. ``POST /grpc`` and
``/session`` leave HTTP/1.1 for gRPC (:mod:`jaula.features.build.buildkit`). ``POST /build`` with
``version=2``, which clients of Docker 18 to 22 send for BuildKit, is rejected.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, HijackResponse, StreamResponse, json_lines
from jaula.api.http.router import HEADERS, Routes
from jaula.api.routes import registry_routes
from jaula.errors import InvalidRequest, JaulaError, StepFailed
from jaula.features.build.authz import builds_api
from jaula.features.build.build_options import BuildOptions, PruneOptions
from jaula.features.build.session_protocol import PROTOCOL
from jaula.spec.api_documents import HostConfig, RegistryAuth, Ulimit
from jaula.spec.decode import decode

_Kind = TypeVar("_Kind")
_MAX_NAMES = 128  # of one image


def _document(request: Request, name: str, kind: type[_Kind], empty: _Kind) -> _Kind:
    """Decode a parameter that is a JSON document; an absent one or ``null`` is ``empty``."""
    text = request.query.text(name)
    if not text or text == "null":
        return empty
    try:
        return decode(text, kind)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as exc:
        raise InvalidRequest(f"{name} is not valid: {exc}") from None


def _host(request: Request) -> HostConfig:
    query = request.query

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
        ulimits=tuple(_document(request, "ulimits", list[Ulimit], [])),
        security_opt=tuple(_document(request, "securityopt", list[str], [])),
        isolation=query.text("isolation"),
    )


def _options(request: Request) -> BuildOptions:
    query = request.query
    if query.text("version") == "2":
        raise InvalidRequest(
            "POST /build with version=2 is not supported: BuildKit's clients use POST /grpc",
            hint="update the client, or set DOCKER_BUILDKIT=0",
        )
    names = tuple(name for name in query.texts("t") if name)
    if len(names) > _MAX_NAMES:
        raise InvalidRequest(f"{len(names)} names exceed the limit of {_MAX_NAMES}")
    steps = query.text("progress") == "steps"
    cache_from = tuple(_document(request, "cachefrom", list[str], []))
    return BuildOptions(
        names=names,
        dockerfile=query.text("dockerfile"),
        remote=query.text("remote"),
        target=query.text("target"),
        platform=query.text("platform").lower(),
        build_args=_document(request, "buildargs", dict[str, str | None], {}),
        labels=_document(request, "labels", dict[str, str], {}),
        cache_from=cache_from,
        # As dockerd: named images replace the local cache. jaula's own command adds them to it.
        cache_from_only=bool(cache_from) and not steps,
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        quiet=query.flag("q"),
        squash=query.flag("squash"),
        steps=steps,
        host=_host(request),
        auths=registry_routes.decode_header(request, "X-Registry-Config", dict[str, RegistryAuth])
        or {},
        session=query.text("session"),
        build_id=query.text("buildid"),
        allow=tuple(word for text in query.texts("allow") for word in text.split(",") if word),
        contexts=_document(request, "buildcontexts", dict[str, str], {}),
    )


async def build(request: Request) -> Answer:
    """Build an image: ``POST /build``. The body is the context as a tar, compressed or not."""
    progress = request.engine.service(builds_api).build(_options(request), request.archive())
    return StreamResponse(json_lines(progress), error_chunk=_failure)


def _failure(error: JaulaError) -> bytes:
    """Return the last line; the docker command exits with the status of a failed step."""
    text = str(error)
    detail: dict[str, Any] = {"message": text}
    if isinstance(error, StepFailed):
        detail["code"] = error.exit_code
    return response.encode({"errorDetail": detail, "error": text})


async def prune(request: Request) -> Answer:
    """Delete builder cache: ``POST /build/prune``."""
    query = request.query
    options = PruneOptions(
        all=query.flag("all"),
        reserved=query.integer("reserved-space") or query.integer("keep-storage") or 0,
        maximum=query.integer("max-used-space") or 0,
        free=query.integer("min-free-space") or 0,
        filters=query.filters(),
    )
    return response.json(await request.engine.service(builds_api).prune(options))


async def cancel(request: Request) -> Answer:
    """Cancel a build: ``POST /build/cancel``."""
    id = request.query.text("id")
    if not id:
        raise InvalidRequest("the parameter id (of a build) is required")
    await request.engine.service(builds_api).cancel(id)
    return response.NO_CONTENT


async def session(request: Request) -> Answer:
    """Open a build session: ``POST /build/session``, see :mod:`.session_protocol`."""
    if request.header(b"upgrade").lower() != PROTOCOL:
        raise InvalidRequest("a build session needs an upgrade", hint=f"send Upgrade: {PROTOCOL}")
    id, builds = request.query.text("session"), request.engine.service(builds_api)
    builds.check_session(id)

    async def take(descriptor: int, early: bytes) -> None:
        await builds.session(id, descriptor, early)

    return HijackResponse(b"", take, lambda error: b"", _head(PROTOCOL), until_close=True)


async def grpc(request: Request) -> Answer:
    """Serve BuildKit's API over gRPC: ``POST /grpc``, upgraded to HTTP/2."""
    _check_upgrade(request)
    engine = request.engine

    async def take(descriptor: int, early: bytes) -> None:
        from jaula.features.build.buildkit import buildkit_server

        await buildkit_server.serve(descriptor, early, engine)

    return HijackResponse(b"", take, lambda error: b"", _head(_H2C), until_close=True)


async def http2(request: Request) -> Answer:
    """Serve gRPC to a client that begins with HTTP/2: the first line of its preface is a request.

    Source: RFC 9113 section 3.4. Only gRPC is served so; the rest of the API needs HTTP/1.1.
    """
    engine = request.engine

    async def take(descriptor: int, early: bytes) -> None:
        from jaula.features.build.buildkit import buildkit_server

        await buildkit_server.serve(descriptor, _PREFACE + early, engine)

    return HijackResponse(b"", take, lambda error: b"", b"", until_close=True)


async def buildkit_session(request: Request) -> Answer:
    """Open a session, on which the engine calls the client: ``POST /session``, over HTTP/2."""
    _check_upgrade(request)
    id, engine = request.header(b"x-docker-expose-session-uuid"), request.engine
    engine.service(builds_api).check_session(id)
    shared_key = request.header(b"x-docker-expose-session-sharedkey")

    async def take(descriptor: int, early: bytes) -> None:
        from jaula.features.build.buildkit import buildkit_server

        await buildkit_server.serve_session(descriptor, early, engine, id, shared_key)

    return HijackResponse(b"", take, lambda error: b"", _head(_H2C), until_close=True)


def _check_upgrade(request: Request) -> None:
    if request.header(b"upgrade").lower() != _H2C:
        raise InvalidRequest("gRPC needs an upgrade", hint=f"send Upgrade: {_H2C}")


def _head(protocol: str) -> bytes:
    return b"\r\n".join(
        (
            b"HTTP/1.1 101 Switching Protocols",
            b"Connection: Upgrade",
            b"Upgrade: " + protocol.encode(),
            *(name + b": " + value for name, value in HEADERS),
            b"",
            b"",
        )
    )


_H2C = "h2c"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"


async def records(request: Request) -> Answer:
    """List the last builds of BuildKit's clients of the caller: ``GET /jaula/builds``."""
    return response.json(
        [
            {
                "Ref": record.ref,
                "Frontend": record.frontend,
                "Target": record.attributes.get("target", ""),
                "File": record.attributes.get("filename", ""),
                "Created": record.created,
                "Completed": record.completed,
                "Steps": record.steps,
                "Cached": record.cached,
                "Warnings": record.warnings,
                "Error": record.error,
                "Names": record.response.get("image.name", ""),
                "Digest": record.response.get("containerimage.digest", ""),
            }
            for record in request.engine.service(builds_api).records()
        ]
    )


ROUTES: Routes = (
    ("POST", "/build", build),
    ("POST", "/build/prune", prune),
    ("POST", "/build/cancel", cancel),
    ("POST", "/build/session", session),
    ("POST", "/grpc", grpc),
    ("PRI", "/", http2),
    ("POST", "/session", buildkit_session),
    ("GET", "/jaula/builds", records),
)
