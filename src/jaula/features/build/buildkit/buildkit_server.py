"""The calls of one ``POST /grpc`` connection: ``Control``, ``LLBBridge`` and ``Content``.

A client begins a build with ``Control.Solve`` and names its outputs there. It reads the progress
from ``Control.Status``. Then it asks for the frontend by ``LLBBridge.Solve``, which runs the build,
and ends it with ``LLBBridge.Return``: now ``Control.Solve`` is answered. All calls of a build have
the reference that the client chose, and come over one connection. So builds are known to their
connection only, and end with it.

Every call needs access to the engine at its time. What a call does is authorized and logged by the
facade, as for every request.

Source: moby/buildkit ``api/services/control/control.proto``, ``frontend/gateway/pb/gateway.proto``,
``client/build.go`` (the order of the calls).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jaula.engine.threads import shielded
from jaula.errors import InvalidRequest, JaulaError, StepFailed, Unavailable, Unsupported
from jaula.features.build.attestation.statement import PREDICATE_TYPE, STATEMENT
from jaula.features.build.authz import builds_api
from jaula.features.build.build_options import PruneOptions
from jaula.features.build.builder.build_history import Attachment, BuildRecord
from jaula.features.build.buildkit.buildkit_session import LIMITS, ClientSession
from jaula.features.build.buildkit.definition import RESULT, remote_of, result_of
from jaula.features.build.buildkit.frontend_options import (
    FRONTEND,
    build_export,
    cache_exports,
    cache_imports,
    check_number,
    frontend_request,
)
from jaula.features.build.buildkit.proto import (
    content_pb2,
    control_pb2,
    gateway_pb2,
    ops_pb2,
    types_pb2,
)
from jaula.features.build.buildkit.vertex_status import BuildStatus, StoredProgress, exit_text
from jaula.grpc.grpc_client import Channel
from jaula.grpc.grpc_server import Call, Method, Server, Streaming, Unary
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.grpc.http2_connection import Limits
from jaula.images.image_platform import runnable
from jaula.kernel import binfmt_misc
from jaula.spec.protobuf import decoder

if TYPE_CHECKING:
    from jaula.engine.authz.gateway import EngineApi
    from jaula.features.build.build_options import BuildExport
    from jaula.features.build.builder.remote_tree import RemoteTree

Document = dict[str, Any]

_CONTROL, _BRIDGE = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
_CONTENT = "/containerd.services.content.v1.Content/"
_CONTENT_CHUNK = 1 << 18  # bytes of one message
_BUILD_ID = "buildkit-controlapi-buildid"
_JOB_TIMEOUT = 5.0  # seconds for Control.Solve to arrive after a call that names its build
_MAX_JOBS = 64  # builds of one connection at a time
_MAX_ENDED = 4  # builds of one connection that are kept after their end
_MAX_RESULTS = 256  # of one connection
_MAX_REMOTES = 4  # repositories of one connection whose files are read
_MAX_UNREAD = 4096  # progress messages of a build
_MAX_REF = 128  # characters
_MAX_ERROR, _MAX_VALUE, _MAX_VALUES = 1024, 256, 100  # of a record: characters, and options
_SOURCE = "github.com/moby/buildkit/errdefs.Source+json"
_NANOSECONDS = 1_000_000_000

_FRONTEND_CAPS = (
    "solve.base",
    "return",
    "returnmap",
    "proto.refarray",
    "importcaches",
    "frontend.inputs",
    "frontend.caps",
    "reference.output",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "readfile",
    "statfile",
)
_LLB_CAPS = (
    *("source.image", "source.image.resolvemode"),
    *("source.local", "source.local.unique", "source.local.sessionid"),
    *("source.local.includepatterns", "source.local.followpaths"),
    *("source.local.excludepatterns", "source.local.sharedkeyhint"),
    *("source.git", "source.git.fullurl", "source.git.subdir", "source.git.checksum"),
    *("source.http", "source.http.checksum", "source.ocilayout", "gc.freespacefilter"),
    *("exec.meta.base", "exec.meta.network", "exec.meta.security", "exec.meta.ulimit"),
    *("exec.mount.bind", "exec.mount.cache", "exec.mount.cache.sharing", "exec.mount.tmpfs"),
    *("exec.mount.secret", "exec.mount.ssh", "exec.secretenv", "file.base"),
    *("constraints", "platform", "meta.ignorecache", "meta.description"),
    *("exporter.multiple", "exporter.sourcedateepoch", "exporter.image.attestations"),
)
"""Capabilities that clients require before they send an option. No definition is solved."""


async def serve(descriptor: int, early: bytes, engine: EngineApi) -> None:
    """Answer the calls of a connection until the client leaves. This owns ``descriptor``."""
    with socket.socket(fileno=descriptor) as sock:
        connection = _BuildKit(engine)
        server = Server(connection.methods(), Limits(), check=connection.check)
        try:
            await server.serve(sock, early)
        finally:
            await connection.close()


async def serve_session(
    descriptor: int, early: bytes, engine: EngineApi, id: str, shared_key: str
) -> None:
    """Keep a session of a client until it leaves. This owns ``descriptor``."""
    with socket.socket(fileno=descriptor) as sock:
        channel = Channel(LIMITS)
        session = ClientSession(engine.service(builds_api).owner, shared_key, channel)
        with engine.service(builds_api).opened_session(id, session):
            running = asyncio.ensure_future(channel.run(sock, early))
            try:
                await engine.service(builds_api).announce_session()
                await asyncio.wait((running,))
            finally:
                channel.close()
                await shielded(asyncio.wait((running,)))


class _Job:
    """One build of a connection."""

    def __init__(self, request: control_pb2.SolveRequest) -> None:
        self.request = request
        self.exports: tuple[BuildExport, ...] = ()
        self.attributes: dict[str, str] = {}
        self.began = time.time_ns()
        self.readers = 0  # calls that read the progress
        self.status = BuildStatus(request.Ref)
        self.unread: list[control_pb2.StatusResponse] = []
        self.progress = StoredProgress()
        self.changed = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.response: dict[str, str] = {}
        self.attachments: tuple[Attachment, ...] = ()
        self.returned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False
        self.failure: GrpcError | None = None
        self.solved = False
        self.subrequest = False

    async def report(self, message: Document) -> None:
        """Add a progress message; wait while the client does not read."""
        response = self.status.take(message, time.time_ns())
        if response is None:
            return
        if self.readers:
            await self.room.wait()
        elif len(self.unread) >= _MAX_UNREAD:
            del self.unread[0]  # no client reads it
        self._add(response)

    def _add(self, response: control_pb2.StatusResponse) -> None:
        self.progress.add(response)
        self.unread.append(response)
        self.changed.set()
        if len(self.unread) >= _MAX_UNREAD:
            self.room.clear()

    def record(self, error: str) -> BuildRecord:
        """Return the build as a record of the history."""
        return BuildRecord(
            ref=self.request.Ref,
            frontend=FRONTEND,
            attributes=self.attributes,
            created=self.began,
            completed=time.time_ns(),
            error=error[:_MAX_ERROR],
            response=self.response,
            steps=self.status.steps,
            cached=self.status.cached,
            warnings=self.status.warnings,
            progress=self.progress.data,
            attachments=self.attachments,
        )

    def fail(self, error: GrpcError) -> None:
        """End the build with an error, unless it has ended."""
        if not self.returned.done():
            self.returned.set_exception(error)
            self.returned.exception()  # retrieved, in case no call waits for it

    def end(self) -> None:
        """Complete the progress."""
        self._add(self.status.close(time.time_ns()))
        self.ended = True
        self.room.set()
        self.changed.set()

    async def read(self) -> AsyncIterator[control_pb2.StatusResponse]:
        """Yield the progress, with what is ready in one message, until the build has ended."""
        self.readers += 1
        try:
            async for response in self._read():
                yield response
        finally:
            self.readers -= 1
            self.room.set()

    async def _read(self) -> AsyncIterator[control_pb2.StatusResponse]:
        while True:
            self.changed.clear()
            unread, self.unread = self.unread, []
            self.room.set()
            if unread:
                first = unread[0]
                for more in unread[1:]:
                    first.MergeFrom(more)
                yield first
            elif self.ended:
                return
            else:
                await self.changed.wait()


class _BuildKit:
    """The builds of one connection."""

    def __init__(self, engine: EngineApi) -> None:
        self._engine = engine
        self._jobs: dict[str, _Job] = {}
        self._ended: deque[_Job] = deque(maxlen=_MAX_ENDED)  # a client may still read their end
        self._results: list[str] = []
        self._remotes: dict[str, RemoteTree] = {}
        self._added = asyncio.Condition()

    def check(self, path: str) -> None:
        """Check that the caller may use the engine still."""
        self._engine.access.require_access(f"POST {path[:200]}")

    async def close(self) -> None:
        """Release the results of builds, and remove the files that were fetched."""
        for result in self._results:
            self._engine.service(builds_api).release(result)
        for tree in self._remotes.values():
            await shielded(tree.close())

    def methods(self) -> Mapping[str, Method]:
        """Return the handlers by path."""
        unary: dict[str, tuple[type[Any], Unary]] = {
            _CONTROL + "Info": (control_pb2.InfoRequest, self._info),
            _CONTROL + "ListWorkers": (control_pb2.ListWorkersRequest, self._list_workers),
            _CONTROL + "DiskUsage": (control_pb2.DiskUsageRequest, self._disk_usage),
            _CONTROL + "Solve": (control_pb2.SolveRequest, self._solve),
            _CONTROL + "UpdateBuildHistory": (
                control_pb2.UpdateBuildHistoryRequest,
                self._update_history,
            ),
            _CONTENT + "Info": (content_pb2.InfoRequest, self._content_info),
            _BRIDGE + "Ping": (gateway_pb2.PingRequest, self._ping),
            _BRIDGE + "Solve": (gateway_pb2.SolveRequest, self._bridge_solve),
            _BRIDGE + "Return": (gateway_pb2.ReturnRequest, self._return),
            _BRIDGE + "Evaluate": (gateway_pb2.EvaluateRequest, self._evaluate),
            _BRIDGE + "ReadFile": (gateway_pb2.ReadFileRequest, self._read_file),
            _BRIDGE + "StatFile": (gateway_pb2.StatFileRequest, self._stat_file),
            _BRIDGE + "Inputs": (gateway_pb2.InputsRequest, self._inputs),
        }
        streaming: dict[str, tuple[type[Any], Streaming]] = {
            _CONTROL + "Status": (control_pb2.StatusRequest, self._read_status),
            _CONTROL + "Prune": (control_pb2.PruneRequest, self._prune),
            _CONTROL + "ListenBuildHistory": (control_pb2.BuildHistoryRequest, self._history),
            _CONTENT + "Read": (content_pb2.ReadContentRequest, self._read_content),
        }
        methods = {
            path: Method(decoder(kind), unary=handler) for path, (kind, handler) in unary.items()
        }
        methods |= {
            path: Method(decoder(kind), streaming=handler)
            for path, (kind, handler) in streaming.items()
        }
        return methods

    # -- the engine ------------------------------------------------------------------------------

    async def _info(self, call: Call, request: control_pb2.InfoRequest) -> control_pb2.InfoResponse:
        version = self._engine.service(builds_api).worker()["Version"]
        return control_pb2.InfoResponse(buildkitVersion=_version(version))

    async def _list_workers(
        self, call: Call, request: control_pb2.ListWorkersRequest
    ) -> control_pb2.ListWorkersResponse:
        return control_pb2.ListWorkersResponse(record=[self._worker()])

    def _worker(self) -> types_pb2.WorkerRecord:
        worker = self._engine.service(builds_api).worker()
        platforms = runnable(binfmt_misc.handlers())
        return types_pb2.WorkerRecord(
            ID=worker["ID"],
            Labels={
                "org.mobyproject.buildkit.worker.executor": "jaula",
                "org.mobyproject.buildkit.worker.hostname": worker["Name"],
                "org.mobyproject.buildkit.worker.network": "sandbox",
                # buildx asks for exports and cache exports only if there is a snapshotter.
                "org.mobyproject.buildkit.worker.snapshotter": worker["Driver"],
                **_host_gateway(worker["Gateway"]),
            },
            platforms=[
                ops_pb2.Platform(
                    Architecture=platform.architecture, OS=platform.os, Variant=platform.variant
                )
                for platform in platforms
            ],
            BuildkitVersion=_version(worker["Version"]),
        )

    # -- the cache -------------------------------------------------------------------------------

    async def _disk_usage(
        self, call: Call, request: control_pb2.DiskUsageRequest
    ) -> control_pb2.DiskUsageResponse:
        documents = await self._engine.service(builds_api).usage()
        filters = _filters(request.filter)
        records = [
            _usage_record(document)
            for document in documents
            if all(_matches(document, name, values) for name, values in filters.items())
        ]
        return control_pb2.DiskUsageResponse(record=records)

    async def _prune(self, call: Call) -> AsyncIterator[control_pb2.UsageRecord]:
        request: control_pb2.PruneRequest = await call.request()
        before = {str(d["ID"]): d for d in await self._engine.service(builds_api).usage()}
        filters = _filters(request.filter)
        if request.keepDuration > 0:
            filters["until"] = [f"{request.keepDuration // _NANOSECONDS}s"]
        options = PruneOptions(
            all=request.all,
            filters=filters,
            reserved=request.reservedSpace,
            maximum=request.maxUsedSpace,
            free=request.minFreeSpace,
        )
        answer = await self._engine.service(builds_api).prune(options)
        for id in answer["CachesDeleted"] or ():
            if (document := before.get(id)) is not None:
                yield _usage_record(document)

    async def _history(self, call: Call) -> AsyncIterator[control_pb2.BuildHistoryEvent]:
        """Yield the builds that have ended; new ones are not told to a client that listens on."""
        request: control_pb2.BuildHistoryRequest = await call.request()
        for record in () if request.ActiveOnly else self._engine.service(builds_api).records():
            if request.Ref in ("", record.ref):
                yield control_pb2.BuildHistoryEvent(
                    type=control_pb2.COMPLETE, record=_history_record(record)
                )
        if not request.EarlyExit:
            await asyncio.Event().wait()

    async def _update_history(
        self, call: Call, request: control_pb2.UpdateBuildHistoryRequest
    ) -> control_pb2.UpdateBuildHistoryResponse:
        if request.Pinned:
            raise GrpcError(Code.UNIMPLEMENTED, "builds are kept in memory and cannot be pinned")
        if request.Delete and not self._engine.service(builds_api).remove_record(request.Ref):
            raise GrpcError(Code.NOT_FOUND, f"build {request.Ref[:_MAX_REF]} is not recorded")
        return control_pb2.UpdateBuildHistoryResponse()

    def _attachment(self, digest: str) -> Attachment:
        found = self._engine.service(builds_api).attachment(digest)
        if found is None:
            raise GrpcError(Code.NOT_FOUND, f"content {digest[:_MAX_REF]}: not found")
        return found

    async def _content_info(
        self, call: Call, request: content_pb2.InfoRequest
    ) -> content_pb2.InfoResponse:
        size = len(self._attachment(request.digest).data)
        return content_pb2.InfoResponse(info=content_pb2.Info(digest=request.digest, size=size))

    async def _read_content(self, call: Call) -> AsyncIterator[content_pb2.ReadContentResponse]:
        request: content_pb2.ReadContentRequest = await call.request()
        data = self._attachment(request.digest).data
        start = max(0, request.offset)
        end = start + request.size if request.size > 0 else len(data)
        for offset in range(start, min(end, len(data)), _CONTENT_CHUNK):
            part = data[offset : min(offset + _CONTENT_CHUNK, end)]
            yield content_pb2.ReadContentResponse(offset=offset, data=part)

    # -- a build ---------------------------------------------------------------------------------

    async def _solve(
        self, call: Call, request: control_pb2.SolveRequest
    ) -> control_pb2.SolveResponse:
        if len(self._jobs) >= _MAX_JOBS:
            raise GrpcError(Code.RESOURCE_EXHAUSTED, "too many builds on one connection")
        if not request.Ref or len(request.Ref) > _MAX_REF or request.Ref in self._jobs:
            raise GrpcError(Code.INVALID_ARGUMENT, "the reference of the build is not valid")
        job = self._jobs[request.Ref] = _Job(request)
        async with self._added:
            self._added.notify_all()
        error = "canceled"
        try:
            job.exports = _exports(request)
            if request.Definition.ops and not result_of(request.Definition):
                raise Unsupported(
                    "LLB definitions are not supported", hint="this builder reads Dockerfiles only"
                )
            if request.Frontend:
                await self._run(
                    job, request.Frontend, request.FrontendAttrs, request.FrontendInputs
                )
            else:
                await job.returned
            error = ""
        except JaulaError as failure:
            job.failure = _failure(failure, job)
            error = job.failure.message
            raise job.failure from None
        except GrpcError as failure:
            job.failure = failure
            error = failure.message
            raise
        finally:
            self._ended.append(self._jobs.pop(request.Ref))
            job.end()
            if job.solved and not job.subrequest and not request.Internal:
                self._engine.service(builds_api).record(job.record(error))
        return control_pb2.SolveResponse(ExporterResponse=job.response)

    async def _job(self, ref: str) -> _Job:
        """Return a build; wait a moment for it to begin.

        :raises GrpcError: when there is no such build, or it has ended; with its failure then.
        """

        def has_begun() -> bool:
            return ref in self._jobs or self._find_ended(ref) is not None

        async def wait() -> _Job | None:
            async with self._added:
                await self._added.wait_for(has_begun)
                return self._jobs.get(ref)

        try:
            job = await asyncio.wait_for(wait(), _JOB_TIMEOUT)
        except TimeoutError:
            job = None
        if job is not None:
            return job
        if (ended := self._find_ended(ref)) is not None and ended.failure is not None:
            raise ended.failure
        raise GrpcError(Code.NOT_FOUND, f"no such job {ref[:_MAX_REF]}")

    def _find_ended(self, ref: str) -> _Job | None:
        return next((job for job in self._ended if job.request.Ref == ref), None)

    async def _read_status(self, call: Call) -> AsyncIterator[control_pb2.StatusResponse]:
        request: control_pb2.StatusRequest = await call.request()
        recorded = [r for r in self._engine.service(builds_api).records() if r.ref == request.Ref]
        if recorded and request.Ref not in self._jobs:
            yield decoder(control_pb2.StatusResponse)(recorded[-1].progress)
            return
        job = self._find_ended(request.Ref) or await self._job(request.Ref)
        async for response in job.read():
            yield response

    async def _ping(self, call: Call, request: gateway_pb2.PingRequest) -> gateway_pb2.PongResponse:
        return gateway_pb2.PongResponse(
            FrontendAPICaps=[types_pb2.APICap(ID=name, Enabled=True) for name in _FRONTEND_CAPS],
            LLBCaps=[types_pb2.APICap(ID=name, Enabled=True) for name in _LLB_CAPS],
            Workers=[self._worker()],
        )

    async def _bridge_solve(
        self, call: Call, request: gateway_pb2.SolveRequest
    ) -> gateway_pb2.SolveResponse:
        job = await self._job(call.headers.get(_BUILD_ID, ""))
        if request.Definition.ops:
            return await self._solve_definition(job, request.Definition)
        try:
            result = await self._run(
                job, request.Frontend, request.FrontendOpt, request.FrontendInputs
            )
        except JaulaError as error:
            raise _failure(error, job) from None
        if job.subrequest:
            values = {name: value.encode() for name, value in job.response.items()}
            job.response = {}
            return gateway_pb2.SolveResponse(result=gateway_pb2.Result(metadata=values))
        return _solved(result)

    async def _solve_definition(
        self, job: _Job, definition: ops_pb2.Definition
    ) -> gateway_pb2.SolveResponse:
        """Return the result of another build, or fetch a repository or file for its reader."""
        if result := result_of(definition):
            return _solved(result)
        try:
            address = remote_of(definition)
            if len(self._remotes) >= _MAX_REMOTES:
                raise Unavailable("too many repositories on one connection")
            tree = await self._engine.service(builds_api).open_remote(address, job.request.Session)
        except JaulaError as error:
            raise _failure(error, job) from None
        id = os.urandom(16).hex()
        self._remotes[id] = tree
        reference = gateway_pb2.Ref(id=id, **{"def": definition})
        return gateway_pb2.SolveResponse(result=gateway_pb2.Result(ref=reference))

    def _remote(self, ref: str) -> RemoteTree:
        if (tree := self._remotes.get(ref)) is None:
            raise GrpcError(Code.NOT_FOUND, f"no files of the reference {ref[:_MAX_REF]}")
        return tree

    async def _read_file(
        self, call: Call, request: gateway_pb2.ReadFileRequest
    ) -> gateway_pb2.ReadFileResponse:
        part = request.Range
        data = await self._remote(request.Ref).read(request.FilePath, part.Offset, part.Length)
        return gateway_pb2.ReadFileResponse(Data=data)

    async def _stat_file(
        self, call: Call, request: gateway_pb2.StatFileRequest
    ) -> gateway_pb2.StatFileResponse:
        size = await self._remote(request.Ref).size(request.Path)
        name = request.Path.rpartition("/")[2]
        return gateway_pb2.StatFileResponse(
            stat=gateway_pb2.FileStat(path=name, mode=0o644, size=size)
        )

    async def _run(
        self,
        job: _Job,
        frontend: str,
        attributes: Mapping[str, str],
        inputs: Mapping[str, ops_pb2.Definition],
    ) -> str:
        """Run a build and return the id of its result."""
        if job.solved:
            raise InvalidRequest("the build has run already")
        job.solved = True
        job.attributes = {
            name[:_MAX_VALUE]: value[:_MAX_VALUE]
            for name, value in list(attributes.items())[:_MAX_VALUES]
        }
        if len(self._results) >= _MAX_RESULTS:
            raise Unavailable("too many results on one connection")
        result = os.urandom(16).hex()
        self._results.append(result)
        caches = cache_imports(job.request.Cache.Imports, attributes)
        request = frontend_request(
            frontend or FRONTEND,
            attributes,
            inputs,
            session=job.request.Session,
            entitlements=job.request.Entitlements,
            exports=job.exports,
            cache_from=caches.images,
            client_caches=caches.client,
            cache_to=cache_exports(job.request.Cache.Exports),
            result=result,
        )
        stream: AsyncGenerator[bytes, None] | None = None
        job.subrequest = bool(request.options.subrequest)
        if request.upload:
            session = await self._engine.service(builds_api).find_session(job.request.Session)
            assert isinstance(session, ClientSession)
            stream = session.upload(request.upload)
        messages = self._engine.service(builds_api).build(request.options, stream)
        try:
            async for message in messages:
                if "result" in message:
                    job.response = dict(message["result"])
                    job.attachments = tuple(message["attachments"])
                else:
                    await job.report(message)
        finally:
            await messages.aclose()  # type: ignore[attr-defined]
            if stream is not None:
                await stream.aclose()
        return result

    async def _return(
        self, call: Call, request: gateway_pb2.ReturnRequest
    ) -> gateway_pb2.ReturnResponse:
        job = await self._job(call.headers.get(_BUILD_ID, ""))
        if request.HasField("error"):
            status = request.error
            try:
                code = Code(status.code)
            except ValueError:
                code = Code.UNKNOWN
            job.fail(GrpcError(code, status.message, status.SerializeToString()))
        elif not job.returned.done():
            job.returned.set_result(None)
        return gateway_pb2.ReturnResponse()

    async def _evaluate(
        self, call: Call, request: gateway_pb2.EvaluateRequest
    ) -> gateway_pb2.EvaluateResponse:
        return gateway_pb2.EvaluateResponse()  # a build is evaluated when it is solved

    async def _inputs(
        self, call: Call, request: gateway_pb2.InputsRequest
    ) -> gateway_pb2.InputsResponse:
        return gateway_pb2.InputsResponse()


def _exports(request: control_pb2.SolveRequest) -> tuple[BuildExport, ...]:
    """Return the outputs of a request."""
    check_number("exports", len(request.Exporters))
    if request.Exporters:
        return tuple(
            build_export(number, exporter.Type, exporter.Attrs)
            for number, exporter in enumerate(request.Exporters)
        )
    if request.ExporterDeprecated:
        return (build_export(0, request.ExporterDeprecated, request.ExporterAttrsDeprecated),)
    return ()


def _solved(result: str) -> gateway_pb2.SolveResponse:
    """Return the answer of a solved build: a reference, and a definition that stands for it."""
    import hashlib

    source = ops_pb2.Op(source=ops_pb2.SourceOp(identifier=RESULT + result)).SerializeToString()
    digest = "sha256:" + hashlib.sha256(source).hexdigest()
    last = ops_pb2.Op(inputs=[ops_pb2.Input(digest=digest)]).SerializeToString()
    definition = ops_pb2.Definition(ops=[source, last])
    for operation in (source, last):  # clients expect an entry for each
        name = "sha256:" + hashlib.sha256(operation).hexdigest()
        definition.metadata[name].CopyFrom(ops_pb2.OpMetadata())
    reference = gateway_pb2.Ref(id=result, **{"def": definition})
    return gateway_pb2.SolveResponse(result=gateway_pb2.Result(ref=reference))


def _failure(error: JaulaError, job: _Job) -> GrpcError:
    """Return the failure of a build, with its place in the Dockerfile, in BuildKit's words.

    Clients print the name of any code but UNKNOWN before the text.
    """
    text = str(error)
    if isinstance(error, StepFailed) and error.command:
        text = exit_text(error.command, error.exit_code)
    status = types_pb2.Status(code=Code.UNKNOWN, message=text)
    if source := job.status.source_detail():
        status.details.add(type_url=_SOURCE, value=source)
    return GrpcError(Code.UNKNOWN, text, status.SerializeToString())


def _history_record(record: BuildRecord) -> control_pb2.BuildHistoryRecord:
    made = control_pb2.BuildHistoryRecord(
        Ref=record.ref,
        Frontend=record.frontend,
        FrontendAttrs=record.attributes,
        ExporterResponse=record.response,
        Generation=1,
        numCachedSteps=record.cached,
        numTotalSteps=record.steps,
        numCompletedSteps=record.steps,
        numWarnings=record.warnings,
    )
    for attachment in record.attachments:
        result = made.Results[attachment.platform] if attachment.platform else made.Result
        result.Attestations.add(
            media_type=STATEMENT,
            digest=attachment.digest,
            size=len(attachment.data),
            annotations={PREDICATE_TYPE: attachment.kind},
        )
    made.CreatedAt.FromNanoseconds(record.created)
    made.CompletedAt.FromNanoseconds(record.completed)
    if record.error:
        made.error.code, made.error.message = Code.UNKNOWN, record.error
    return made


def _filters(texts: Iterable[str]) -> dict[str, list[str]]:
    """Return filters by name. A text has several, in containerd's form: ``NAME==VALUE,...``."""
    filters: dict[str, list[str]] = {}
    for text in texts:
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            filters.setdefault(name.rstrip("~"), []).append(value.removeprefix("="))
    return filters


def _matches(document: Document, name: str, values: list[str]) -> bool:
    """Return whether an entry of the cache matches one of the values of a filter.

    :raises GrpcError: when the filter is not known.
    """
    fields = {"id": "ID", "type": "Type", "description": "Description"}
    flags = {"inuse": "InUse", "shared": "Shared"}
    if name in flags:
        return bool(document[flags[name]])
    if name not in fields:
        raise GrpcError(Code.INVALID_ARGUMENT, f"unknown filter {name[:64]!r}")
    return str(document[fields[name]]) in values


def _usage_record(document: Document) -> control_pb2.UsageRecord:
    record = control_pb2.UsageRecord(
        ID=str(document["ID"]),
        InUse=bool(document["InUse"]),
        Size=int(document["Size"]),
        UsageCount=int(document["UsageCount"]),
        Description=str(document["Description"]),
        RecordType=str(document["Type"]),
        Shared=bool(document["Shared"]),
        Mutable=document["Type"] == "exec.cachemount",
    )
    record.CreatedAt.FromJsonString(document["CreatedAt"])
    record.LastUsedAt.FromJsonString(document["LastUsedAt"])
    return record


def _version(engine: str) -> types_pb2.BuildkitVersion:
    return types_pb2.BuildkitVersion(
        package="jaula", version=f"v{engine}", dockerfileVersion="builtin"
    )


def _host_gateway(address: str) -> dict[str, str]:
    """Return the label from which clients take the address of ``host-gateway``."""
    return {"org.mobyproject.buildkit.worker.moby.host-gateway-ip": address} if address else {}
