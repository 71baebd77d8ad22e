"""RuntimeService of CRI: decode a request, call the engine, encode its answer.

Source: ``k8s.io/cri-api`` runtime.v1.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jaula import __version__
from jaula.errors import CorruptState, InvalidRequest, JaulaError, NotFound
from jaula.features.kubernetes.authz import pods_api
from jaula.features.kubernetes.cri import image_errors, metrics, security, stats, status
from jaula.features.kubernetes.cri.container_config import container_request
from jaula.features.kubernetes.cri.image_service import full_name
from jaula.features.kubernetes.cri.proto import api_pb2 as api
from jaula.features.kubernetes.cri.resources import container_update, pod_limits
from jaula.features.kubernetes.cri.sandbox_config import sandbox_request
from jaula.features.kubernetes.cri.status import ImageNames
from jaula.features.kubernetes.cri.streaming.backend import (
    AttachRequest,
    ExecRequest,
    PortForwardRequest,
    Request,
)
from jaula.features.kubernetes.cri.streams import EngineStreams
from jaula.features.kubernetes.pods.validation import check_command
from jaula.grpc.errors import Code, GrpcError
from jaula.grpc.server import Call, Method, Streaming, Unary
from jaula.spec.protobuf import decoder
from jaula.state.records import SANDBOX_ATTRIBUTE

if TYPE_CHECKING:
    from jaula.engine.authz.gateway import EngineApi
    from jaula.features.kubernetes.cri.streaming.server import StreamServer
    from jaula.state.records import ContainerRecord

SERVICE = "/runtime.v1.RuntimeService/"
RUNTIME = "jaula"
_API_VERSION = "v1"
_PART = 256  # items of one message of a stream
_BATCH = 4  # pods or containers whose files are read at a time; other calls wait for 10 ms
_READS = frozenset(
    {
        *("Version", "Status", "RuntimeConfig", "PodSandboxStatus", "ListPodSandbox"),
        *("ContainerStatus", "ListContainers", "ContainerStats", "ListContainerStats"),
        *("PodSandboxStats", "ListPodSandboxStats", "ListMetricDescriptors"),
        "ListPodSandboxMetrics",
    }
)
_EVENTS = {
    "create": api.CONTAINER_CREATED_EVENT,
    "start": api.CONTAINER_STARTED_EVENT,
    "die": api.CONTAINER_STOPPED_EVENT,
    "destroy": api.CONTAINER_DELETED_EVENT,
}

Document = dict[str, Any]


class RuntimeService:
    """The calls of one connection."""

    def __init__(self, engine: EngineApi, streams: StreamServer) -> None:
        """``streams`` serves the URLs of exec, attach and port-forward."""
        self._engine = engine
        self._streams = streams

    def methods(self) -> dict[str, Method]:
        """Return the methods by their path."""
        unary: dict[str, tuple[Any, Callable[[Any], Awaitable[Any]]]] = {
            "Version": (api.VersionRequest, self.version),
            "Status": (api.StatusRequest, self.status),
            "RuntimeConfig": (api.RuntimeConfigRequest, self.runtime_config),
            "UpdateRuntimeConfig": (api.UpdateRuntimeConfigRequest, self.update_runtime_config),
            "RunPodSandbox": (api.RunPodSandboxRequest, self.run_pod_sandbox),
            "StopPodSandbox": (api.StopPodSandboxRequest, self.stop_pod_sandbox),
            "RemovePodSandbox": (api.RemovePodSandboxRequest, self.remove_pod_sandbox),
            "UpdatePodSandboxResources": (
                api.UpdatePodSandboxResourcesRequest,
                self.update_pod_sandbox_resources,
            ),
            "PodSandboxStatus": (api.PodSandboxStatusRequest, self.pod_sandbox_status),
            "ListPodSandbox": (api.ListPodSandboxRequest, self.list_pod_sandbox),
            "CreateContainer": (api.CreateContainerRequest, self.create_container),
            "StartContainer": (api.StartContainerRequest, self.start_container),
            "StopContainer": (api.StopContainerRequest, self.stop_container),
            "RemoveContainer": (api.RemoveContainerRequest, self.remove_container),
            "ReopenContainerLog": (api.ReopenContainerLogRequest, self.reopen_container_log),
            "ContainerStatus": (api.ContainerStatusRequest, self.container_status),
            "ListContainers": (api.ListContainersRequest, self.list_containers),
            "UpdateContainerResources": (
                api.UpdateContainerResourcesRequest,
                self.update_container_resources,
            ),
            "ContainerStats": (api.ContainerStatsRequest, self.container_stats),
            "ListContainerStats": (api.ListContainerStatsRequest, self.list_container_stats),
            "PodSandboxStats": (api.PodSandboxStatsRequest, self.pod_sandbox_stats),
            "ListPodSandboxStats": (api.ListPodSandboxStatsRequest, self.list_pod_sandbox_stats),
            "ListMetricDescriptors": (
                api.ListMetricDescriptorsRequest,
                self.list_metric_descriptors,
            ),
            "ListPodSandboxMetrics": (
                api.ListPodSandboxMetricsRequest,
                self.list_pod_sandbox_metrics,
            ),
            "Exec": (api.ExecRequest, self.exec),
            "Attach": (api.AttachRequest, self.attach),
            "PortForward": (api.PortForwardRequest, self.port_forward),
            "ExecSync": (api.ExecSyncRequest, self.exec_sync),
            "CheckpointContainer": (api.CheckpointContainerRequest, self.checkpoint_container),
        }
        streaming: dict[str, tuple[Any, Callable[[Any], AsyncIterator[Any]]]] = {
            "StreamPodSandboxes": (api.StreamPodSandboxesRequest, self.stream_pod_sandboxes),
            "StreamContainers": (api.StreamContainersRequest, self.stream_containers),
            "StreamContainerStats": (api.StreamContainerStatsRequest, self.stream_container_stats),
            "StreamPodSandboxStats": (
                api.StreamPodSandboxStatsRequest,
                self.stream_pod_sandbox_stats,
            ),
            "StreamPodSandboxMetrics": (
                api.StreamPodSandboxMetricsRequest,
                self.stream_pod_sandbox_metrics,
            ),
            "GetContainerEvents": (api.GetEventsRequest, self.get_container_events),
        }
        return {
            **{
                SERVICE + name: Method(
                    decoder(kind),
                    unary=_read(handler) if name in _READS else self._unary(handler),
                )
                for name, (kind, handler) in unary.items()
            },
            **{
                SERVICE + name: Method(decoder(kind), streaming=_streaming(stream))
                for name, (kind, stream) in streaming.items()
            },
        }

    def _unary(self, handler: Callable[[Any], Awaitable[Any]]) -> Unary:
        async def answer(call: Call, request: Any) -> Any:
            response = await handler(request)
            await self._engine.sync()
            return response

        return answer

    # -- the runtime -----------------------------------------------------------------------------

    async def version(self, request: api.VersionRequest) -> api.VersionResponse:
        return api.VersionResponse(
            version="0.1.0",  # the constant of the kubelet's own interface
            runtime_name=RUNTIME,
            runtime_version=__version__,
            runtime_api_version=_API_VERSION,
        )

    async def status(self, request: api.StatusRequest) -> api.StatusResponse:
        network = self._engine.service(pods_api).network_state()
        handlers = await self._engine.service(pods_api).runtime_handlers()
        return api.StatusResponse(
            status=api.RuntimeStatus(
                conditions=(
                    api.RuntimeCondition(type="RuntimeReady", status=True),
                    api.RuntimeCondition(
                        type="NetworkReady",
                        status=network.ready,
                        reason=network.reason,
                        message=network.message,
                    ),
                )
            ),
            runtime_handlers=[status.runtime_handler(handler) for handler in handlers],
            features=status.runtime_features(handlers),
        )

    async def runtime_config(self, request: api.RuntimeConfigRequest) -> api.RuntimeConfigResponse:
        driver = api.SYSTEMD if self._engine.service(pods_api).systemd_cgroups() else api.CGROUPFS
        return api.RuntimeConfigResponse(linux=api.LinuxRuntimeConfiguration(cgroup_driver=driver))

    async def update_runtime_config(
        self, request: api.UpdateRuntimeConfigRequest
    ) -> api.UpdateRuntimeConfigResponse:
        self._engine.service(pods_api).update_runtime_config(
            request.runtime_config.network_config.pod_cidr
        )
        return api.UpdateRuntimeConfigResponse()

    # -- sandboxes -------------------------------------------------------------------------------

    async def run_pod_sandbox(self, request: api.RunPodSandboxRequest) -> api.RunPodSandboxResponse:
        id = await self._engine.service(pods_api).run(
            sandbox_request(request.config, request.runtime_handler)
        )
        return api.RunPodSandboxResponse(pod_sandbox_id=id)

    async def stop_pod_sandbox(
        self, request: api.StopPodSandboxRequest
    ) -> api.StopPodSandboxResponse:
        await self._engine.service(pods_api).stop(request.pod_sandbox_id)
        return api.StopPodSandboxResponse()

    async def remove_pod_sandbox(
        self, request: api.RemovePodSandboxRequest
    ) -> api.RemovePodSandboxResponse:
        await self._engine.service(pods_api).remove(request.pod_sandbox_id)
        return api.RemovePodSandboxResponse()

    async def update_pod_sandbox_resources(
        self, request: api.UpdatePodSandboxResourcesRequest
    ) -> api.UpdatePodSandboxResourcesResponse:
        await self._engine.service(pods_api).update(
            request.pod_sandbox_id,
            pod_limits(request, "resources"),
            pod_limits(request, "overhead"),
        )
        return api.UpdatePodSandboxResourcesResponse()

    async def pod_sandbox_status(
        self, request: api.PodSandboxStatusRequest
    ) -> api.PodSandboxStatusResponse:
        record = self._engine.service(pods_api).sandbox(request.pod_sandbox_id)
        info = {"info": status.info(record)} if request.verbose else {}
        return api.PodSandboxStatusResponse(status=status.sandbox_status(record), info=info)

    async def list_pod_sandbox(
        self, request: api.ListPodSandboxRequest
    ) -> api.ListPodSandboxResponse:
        items = (status.sandbox(record) for record in self._engine.service(pods_api).sandboxes())
        return api.ListPodSandboxResponse(
            items=[item for item in items if status.matches_sandbox(request.filter, item)]
        )

    # -- containers ------------------------------------------------------------------------------

    async def create_container(
        self, request: api.CreateContainerRequest
    ) -> api.CreateContainerResponse:
        if not request.pod_sandbox_id:
            raise InvalidRequest("the request names no pod sandbox")
        if path := security.profile_path(request.config.linux.security_context):
            self._engine.service(pods_api).require_host_file(path, "the seccomp profile")
        if (image := request.config.image.image).startswith("/"):
            self._engine.service(pods_api).require_host_file(image, "the checkpoint")
        try:
            id = await self._engine.service(pods_api).create_container(
                container_request(request.pod_sandbox_id, request.config)
            )
        except JaulaError as error:
            raise image_errors.container_error(error) from error
        return api.CreateContainerResponse(container_id=id)

    async def start_container(
        self, request: api.StartContainerRequest
    ) -> api.StartContainerResponse:
        try:
            await self._engine.service(pods_api).start_container(request.container_id)
        except JaulaError as error:
            raise image_errors.container_error(error) from error
        return api.StartContainerResponse()

    async def stop_container(self, request: api.StopContainerRequest) -> api.StopContainerResponse:
        seconds = max(request.timeout, 0)
        await self._engine.service(pods_api).stop_container(request.container_id, seconds)
        return api.StopContainerResponse()

    async def reopen_container_log(
        self, request: api.ReopenContainerLogRequest
    ) -> api.ReopenContainerLogResponse:
        await self._engine.service(pods_api).reopen_log(request.container_id)
        return api.ReopenContainerLogResponse()

    async def remove_container(
        self, request: api.RemoveContainerRequest
    ) -> api.RemoveContainerResponse:
        await self._engine.service(pods_api).remove_container(request.container_id)
        return api.RemoveContainerResponse()

    async def container_status(
        self, request: api.ContainerStatusRequest
    ) -> api.ContainerStatusResponse:
        record = self._engine.service(pods_api).container(request.container_id)
        sandbox = self._engine.service(pods_api).sandbox(record.pod.sandbox) if record.pod else None
        info = {"info": status.info(record)} if request.verbose else {}
        return api.ContainerStatusResponse(
            status=status.container_status(record, sandbox, self._image_names(record)), info=info
        )

    def _image_names(self, record: ContainerRecord) -> ImageNames:
        """Return the names of the image of a container; none if it has been removed."""
        try:
            tags, digests = self._engine.images.names(record.image)
        except (NotFound, CorruptState):
            return ImageNames()
        return ImageNames(tuple(map(full_name, tags)), tuple(map(full_name, digests)))

    async def list_containers(
        self, request: api.ListContainersRequest
    ) -> api.ListContainersResponse:
        containers = (
            status.container(record) for record in self._engine.service(pods_api).containers()
        )
        return api.ListContainersResponse(
            containers=[c for c in containers if status.matches_container(request.filter, c)]
        )

    async def update_container_resources(
        self, request: api.UpdateContainerResourcesRequest
    ) -> api.UpdateContainerResourcesResponse:
        id = self._engine.service(pods_api).container(request.container_id).id
        await self._engine.containers.update(id, container_update(request.linux))
        return api.UpdateContainerResourcesResponse()

    async def container_stats(
        self, request: api.ContainerStatsRequest
    ) -> api.ContainerStatsResponse:
        usage = await self._engine.service(pods_api).usage(request.container_id)
        return api.ContainerStatsResponse(stats=stats.container_stats(usage))

    async def list_container_stats(
        self, request: api.ListContainerStatsRequest
    ) -> api.ListContainerStatsResponse:
        made = [item async for part in self._container_stats(request.filter) for item in part]
        return api.ListContainerStatsResponse(stats=made)

    async def _container_stats(
        self, filter: api.ContainerStatsFilter
    ) -> AsyncIterator[list[api.ContainerStats]]:
        """Yield the statistics of the selected containers that still exist, in batches."""
        records = self._engine.service(pods_api).containers()
        ids = [record.id for record in records if stats.matches(filter, record)]
        for part in _parts(ids, _BATCH):
            yield [
                stats.container_stats(usage)
                for usage in await self._engine.service(pods_api).usages(part)
            ]

    async def pod_sandbox_stats(
        self, request: api.PodSandboxStatsRequest
    ) -> api.PodSandboxStatsResponse:
        usage = await self._engine.service(pods_api).sandbox_usage(request.pod_sandbox_id)
        return api.PodSandboxStatsResponse(stats=stats.sandbox_stats(usage))

    async def list_pod_sandbox_stats(
        self, request: api.ListPodSandboxStatsRequest
    ) -> api.ListPodSandboxStatsResponse:
        made = [item async for part in self._sandbox_stats(request.filter) for item in part]
        return api.ListPodSandboxStatsResponse(stats=made)

    async def _sandbox_stats(
        self, filter: api.PodSandboxStatsFilter
    ) -> AsyncIterator[list[api.PodSandboxStats]]:
        """Yield the statistics of the selected pods that still exist, in batches."""
        records = self._engine.service(pods_api).sandboxes()
        ids = [record.id for record in records if stats.matches_sandbox(filter, record)]
        for part in _parts(ids, _BATCH):
            usages = await self._engine.service(pods_api).sandbox_usages(part)
            yield [stats.sandbox_stats(usage) for usage in usages]

    async def list_metric_descriptors(
        self, request: api.ListMetricDescriptorsRequest
    ) -> api.ListMetricDescriptorsResponse:
        return api.ListMetricDescriptorsResponse(descriptors=metrics.descriptors())

    async def list_pod_sandbox_metrics(
        self, request: api.ListPodSandboxMetricsRequest
    ) -> api.ListPodSandboxMetricsResponse:
        made = [item async for part in self._metrics() for item in part]
        return api.ListPodSandboxMetricsResponse(pod_metrics=made)

    async def _metrics(self) -> AsyncIterator[list[api.PodSandboxMetrics]]:
        """Yield the metrics of the pods that run, in batches.

        They are encoded in a thread as well: those of a batch are thousands of messages.
        """
        ids = [record.id for record in self._engine.service(pods_api).sandboxes()]
        for part in _parts(ids, _BATCH):
            samples = await self._engine.service(pods_api).samples(part)
            yield await asyncio.to_thread(metrics.encode, samples)

    # -- streams of lists, and events ------------------------------------------------------------

    async def stream_pod_sandboxes(
        self, request: api.StreamPodSandboxesRequest
    ) -> AsyncIterator[api.StreamPodSandboxesResponse]:
        listed = await self.list_pod_sandbox(api.ListPodSandboxRequest(filter=request.filter))
        for part in _parts(listed.items):
            yield api.StreamPodSandboxesResponse(pod_sandboxes=part)

    async def stream_containers(
        self, request: api.StreamContainersRequest
    ) -> AsyncIterator[api.StreamContainersResponse]:
        listed = await self.list_containers(api.ListContainersRequest(filter=request.filter))
        for part in _parts(listed.containers):
            yield api.StreamContainersResponse(containers=part)

    async def stream_container_stats(
        self, request: api.StreamContainerStatsRequest
    ) -> AsyncIterator[api.StreamContainerStatsResponse]:
        async for part in self._container_stats(request.filter):
            yield api.StreamContainerStatsResponse(container_stats=part)

    async def stream_pod_sandbox_stats(
        self, request: api.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[api.StreamPodSandboxStatsResponse]:
        async for part in self._sandbox_stats(request.filter):
            yield api.StreamPodSandboxStatsResponse(pod_sandbox_stats=part)

    async def stream_pod_sandbox_metrics(
        self, request: api.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[api.StreamPodSandboxMetricsResponse]:
        async for part in self._metrics():
            yield api.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=part)

    async def get_container_events(
        self, request: api.GetEventsRequest
    ) -> AsyncIterator[api.ContainerEventResponse]:
        events = self._engine.system.events(None, None, {"type": ["container"]})
        try:
            async for event in events:
                kind = _EVENTS.get(event["Action"])
                response = None if kind is None else self._event(event, kind)
                if response is not None:
                    yield response
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    def _event(
        self, event: Document, kind: api.ContainerEventType
    ) -> api.ContainerEventResponse | None:
        """Return the event with the statuses of its pod; None if the container is of no pod.

        The attributes name the sandbox, since the record of a removed container is gone.
        """
        id = event["Actor"]["ID"]
        sandbox_id = event["Actor"]["Attributes"].get(SANDBOX_ATTRIBUTE, "")
        if not sandbox_id:
            return None
        response = api.ContainerEventResponse(
            container_id=id, container_event_type=kind, created_at=event["timeNano"]
        )
        try:
            sandbox = self._engine.service(pods_api).sandbox(sandbox_id)
        except NotFound:
            return response
        response.pod_sandbox_status.CopyFrom(status.sandbox_status(sandbox))
        response.containers_statuses.extend(
            status.container_status(record, sandbox, self._image_names(record))
            for record in self._engine.service(pods_api).members(sandbox.id)
        )
        return response

    async def exec(self, request: api.ExecRequest) -> api.ExecResponse:
        check_command(request.cmd)
        stream = ExecRequest(
            container_id=self._engine.service(pods_api).request_exec(
                request.container_id, tuple(request.cmd)
            ),
            command=tuple(request.cmd),
            tty=request.tty,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
        )
        return api.ExecResponse(url=self._url(stream))

    async def attach(self, request: api.AttachRequest) -> api.AttachResponse:
        record = self._engine.service(pods_api).request_attach(request.container_id)
        stream = AttachRequest(
            container_id=record.id,
            tty=record.body.tty,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr and not record.body.tty,
        )
        return api.AttachResponse(url=self._url(stream))

    async def port_forward(self, request: api.PortForwardRequest) -> api.PortForwardResponse:
        stream = PortForwardRequest(
            sandbox_id=self._engine.service(pods_api).request_port_forward(
                request.pod_sandbox_id, tuple(request.port)
            ),
            ports=tuple(request.port),
        )
        return api.PortForwardResponse(url=self._url(stream))

    def _url(self, request: Request) -> str:
        return self._streams.get_url(request, EngineStreams(self._engine))

    async def exec_sync(self, request: api.ExecSyncRequest) -> api.ExecSyncResponse:
        check_command(request.cmd)
        seconds = request.timeout if request.timeout > 0 else None
        try:
            stdout, stderr, code = await self._engine.service(pods_api).exec_sync(
                request.container_id, tuple(request.cmd), seconds
            )
        except TimeoutError as error:
            raise GrpcError(Code.DEADLINE_EXCEEDED, str(error)) from None
        return api.ExecSyncResponse(stdout=stdout, stderr=stderr, exit_code=code)

    async def checkpoint_container(
        self, request: api.CheckpointContainerRequest
    ) -> api.CheckpointContainerResponse:
        seconds = request.timeout if request.timeout > 0 else None
        try:
            await self._engine.service(pods_api).checkpoint(
                request.container_id, request.location, seconds
            )
        except TimeoutError as error:
            raise GrpcError(Code.DEADLINE_EXCEEDED, str(error)) from None
        return api.CheckpointContainerResponse()


def _parts(items: Sequence[Any], size: int = _PART) -> Iterator[Sequence[Any]]:
    """Yield the items of a list in parts of a bounded size; an empty list has one."""
    for start in range(0, max(len(items), 1), size):
        yield items[start : start + size]


def _read(handler: Callable[[Any], Awaitable[Any]]) -> Unary:
    """Return a method that changes nothing, and so does not wait for the changes of others."""

    async def answer(call: Call, request: Any) -> Any:
        return await handler(request)

    return answer


def _streaming(stream: Callable[[Any], AsyncIterator[Any]]) -> Streaming:
    async def answer(call: Call) -> AsyncIterator[Any]:
        responses = stream(await call.request())
        try:
            async for response in responses:
                yield response
        finally:
            await responses.aclose()  # type: ignore[attr-defined]

    return answer
