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
from jaula.features.kubernetes.cri import (
    cri_metrics,
    cri_stats,
    cri_status,
    image_errors,
    security_context,
)
from jaula.features.kubernetes.cri.container_config import container_request
from jaula.features.kubernetes.cri.cri_resources import container_update, pod_limits
from jaula.features.kubernetes.cri.cri_status import ImageNames
from jaula.features.kubernetes.cri.cri_streams import EngineStreams
from jaula.features.kubernetes.cri.image_service import full_name
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.kubernetes.cri.sandbox_config import sandbox_request
from jaula.features.kubernetes.cri.streaming.backend import (
    AttachRequest,
    ExecRequest,
    PortForwardRequest,
    Request,
)
from jaula.features.kubernetes.pods.validation import check_command
from jaula.grpc.grpc_server import Call, Method, Streaming, Unary
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.spec.protobuf import decoder
from jaula.state.container_records import SANDBOX_ATTRIBUTE

if TYPE_CHECKING:
    from jaula.engine.authz.gateway import EngineApi
    from jaula.features.kubernetes.cri.streaming.streaming_server import StreamServer
    from jaula.state.container_records import ContainerRecord

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
    "create": api_pb2.CONTAINER_CREATED_EVENT,
    "start": api_pb2.CONTAINER_STARTED_EVENT,
    "die": api_pb2.CONTAINER_STOPPED_EVENT,
    "destroy": api_pb2.CONTAINER_DELETED_EVENT,
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
            "Version": (api_pb2.VersionRequest, self.version),
            "Status": (api_pb2.StatusRequest, self.status),
            "RuntimeConfig": (api_pb2.RuntimeConfigRequest, self.runtime_config),
            "UpdateRuntimeConfig": (api_pb2.UpdateRuntimeConfigRequest, self.update_runtime_config),
            "RunPodSandbox": (api_pb2.RunPodSandboxRequest, self.run_pod_sandbox),
            "StopPodSandbox": (api_pb2.StopPodSandboxRequest, self.stop_pod_sandbox),
            "RemovePodSandbox": (api_pb2.RemovePodSandboxRequest, self.remove_pod_sandbox),
            "UpdatePodSandboxResources": (
                api_pb2.UpdatePodSandboxResourcesRequest,
                self.update_pod_sandbox_resources,
            ),
            "PodSandboxStatus": (api_pb2.PodSandboxStatusRequest, self.pod_sandbox_status),
            "ListPodSandbox": (api_pb2.ListPodSandboxRequest, self.list_pod_sandbox),
            "CreateContainer": (api_pb2.CreateContainerRequest, self.create_container),
            "StartContainer": (api_pb2.StartContainerRequest, self.start_container),
            "StopContainer": (api_pb2.StopContainerRequest, self.stop_container),
            "RemoveContainer": (api_pb2.RemoveContainerRequest, self.remove_container),
            "ReopenContainerLog": (api_pb2.ReopenContainerLogRequest, self.reopen_container_log),
            "ContainerStatus": (api_pb2.ContainerStatusRequest, self.container_status),
            "ListContainers": (api_pb2.ListContainersRequest, self.list_containers),
            "UpdateContainerResources": (
                api_pb2.UpdateContainerResourcesRequest,
                self.update_container_resources,
            ),
            "ContainerStats": (api_pb2.ContainerStatsRequest, self.container_stats),
            "ListContainerStats": (api_pb2.ListContainerStatsRequest, self.list_container_stats),
            "PodSandboxStats": (api_pb2.PodSandboxStatsRequest, self.pod_sandbox_stats),
            "ListPodSandboxStats": (
                api_pb2.ListPodSandboxStatsRequest,
                self.list_pod_sandbox_stats,
            ),
            "ListMetricDescriptors": (
                api_pb2.ListMetricDescriptorsRequest,
                self.list_metric_descriptors,
            ),
            "ListPodSandboxMetrics": (
                api_pb2.ListPodSandboxMetricsRequest,
                self.list_pod_sandbox_metrics,
            ),
            "Exec": (api_pb2.ExecRequest, self.exec),
            "Attach": (api_pb2.AttachRequest, self.attach),
            "PortForward": (api_pb2.PortForwardRequest, self.port_forward),
            "ExecSync": (api_pb2.ExecSyncRequest, self.exec_sync),
            "CheckpointContainer": (api_pb2.CheckpointContainerRequest, self.checkpoint_container),
        }
        streaming: dict[str, tuple[Any, Callable[[Any], AsyncIterator[Any]]]] = {
            "StreamPodSandboxes": (api_pb2.StreamPodSandboxesRequest, self.stream_pod_sandboxes),
            "StreamContainers": (api_pb2.StreamContainersRequest, self.stream_containers),
            "StreamContainerStats": (
                api_pb2.StreamContainerStatsRequest,
                self.stream_container_stats,
            ),
            "StreamPodSandboxStats": (
                api_pb2.StreamPodSandboxStatsRequest,
                self.stream_pod_sandbox_stats,
            ),
            "StreamPodSandboxMetrics": (
                api_pb2.StreamPodSandboxMetricsRequest,
                self.stream_pod_sandbox_metrics,
            ),
            "GetContainerEvents": (api_pb2.GetEventsRequest, self.get_container_events),
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

    async def version(self, request: api_pb2.VersionRequest) -> api_pb2.VersionResponse:
        return api_pb2.VersionResponse(
            version="0.1.0",  # the constant of the kubelet's own interface
            runtime_name=RUNTIME,
            runtime_version=__version__,
            runtime_api_version=_API_VERSION,
        )

    async def status(self, request: api_pb2.StatusRequest) -> api_pb2.StatusResponse:
        network = self._engine.service(pods_api).network_state()
        handlers = await self._engine.service(pods_api).runtime_handlers()
        return api_pb2.StatusResponse(
            status=api_pb2.RuntimeStatus(
                conditions=(
                    api_pb2.RuntimeCondition(type="RuntimeReady", status=True),
                    api_pb2.RuntimeCondition(
                        type="NetworkReady",
                        status=network.ready,
                        reason=network.reason,
                        message=network.message,
                    ),
                )
            ),
            runtime_handlers=[cri_status.runtime_handler(handler) for handler in handlers],
            features=cri_status.runtime_features(handlers),
        )

    async def runtime_config(
        self, request: api_pb2.RuntimeConfigRequest
    ) -> api_pb2.RuntimeConfigResponse:
        driver = (
            api_pb2.SYSTEMD
            if self._engine.service(pods_api).systemd_cgroups()
            else api_pb2.CGROUPFS
        )
        return api_pb2.RuntimeConfigResponse(
            linux=api_pb2.LinuxRuntimeConfiguration(cgroup_driver=driver)
        )

    async def update_runtime_config(
        self, request: api_pb2.UpdateRuntimeConfigRequest
    ) -> api_pb2.UpdateRuntimeConfigResponse:
        self._engine.service(pods_api).update_runtime_config(
            request.runtime_config.network_config.pod_cidr
        )
        return api_pb2.UpdateRuntimeConfigResponse()

    # -- sandboxes -------------------------------------------------------------------------------

    async def run_pod_sandbox(
        self, request: api_pb2.RunPodSandboxRequest
    ) -> api_pb2.RunPodSandboxResponse:
        id = await self._engine.service(pods_api).run(
            sandbox_request(request.config, request.runtime_handler)
        )
        return api_pb2.RunPodSandboxResponse(pod_sandbox_id=id)

    async def stop_pod_sandbox(
        self, request: api_pb2.StopPodSandboxRequest
    ) -> api_pb2.StopPodSandboxResponse:
        await self._engine.service(pods_api).stop(request.pod_sandbox_id)
        return api_pb2.StopPodSandboxResponse()

    async def remove_pod_sandbox(
        self, request: api_pb2.RemovePodSandboxRequest
    ) -> api_pb2.RemovePodSandboxResponse:
        await self._engine.service(pods_api).remove(request.pod_sandbox_id)
        return api_pb2.RemovePodSandboxResponse()

    async def update_pod_sandbox_resources(
        self, request: api_pb2.UpdatePodSandboxResourcesRequest
    ) -> api_pb2.UpdatePodSandboxResourcesResponse:
        await self._engine.service(pods_api).update(
            request.pod_sandbox_id,
            pod_limits(request, "resources"),
            pod_limits(request, "overhead"),
        )
        return api_pb2.UpdatePodSandboxResourcesResponse()

    async def pod_sandbox_status(
        self, request: api_pb2.PodSandboxStatusRequest
    ) -> api_pb2.PodSandboxStatusResponse:
        record = self._engine.service(pods_api).sandbox(request.pod_sandbox_id)
        info = {"info": cri_status.info(record)} if request.verbose else {}
        return api_pb2.PodSandboxStatusResponse(status=cri_status.sandbox_status(record), info=info)

    async def list_pod_sandbox(
        self, request: api_pb2.ListPodSandboxRequest
    ) -> api_pb2.ListPodSandboxResponse:
        items = (
            cri_status.sandbox(record) for record in self._engine.service(pods_api).sandboxes()
        )
        return api_pb2.ListPodSandboxResponse(
            items=[item for item in items if cri_status.matches_sandbox(request.filter, item)]
        )

    # -- containers ------------------------------------------------------------------------------

    async def create_container(
        self, request: api_pb2.CreateContainerRequest
    ) -> api_pb2.CreateContainerResponse:
        if not request.pod_sandbox_id:
            raise InvalidRequest("the request names no pod sandbox")
        if path := security_context.profile_path(request.config.linux.security_context):
            self._engine.service(pods_api).require_host_file(path, "the seccomp profile")
        if (image := request.config.image.image).startswith("/"):
            self._engine.service(pods_api).require_host_file(image, "the checkpoint")
        try:
            id = await self._engine.service(pods_api).create_container(
                container_request(request.pod_sandbox_id, request.config)
            )
        except JaulaError as error:
            raise image_errors.container_error(error) from error
        return api_pb2.CreateContainerResponse(container_id=id)

    async def start_container(
        self, request: api_pb2.StartContainerRequest
    ) -> api_pb2.StartContainerResponse:
        try:
            await self._engine.service(pods_api).start_container(request.container_id)
        except JaulaError as error:
            raise image_errors.container_error(error) from error
        return api_pb2.StartContainerResponse()

    async def stop_container(
        self, request: api_pb2.StopContainerRequest
    ) -> api_pb2.StopContainerResponse:
        seconds = max(request.timeout, 0)
        await self._engine.service(pods_api).stop_container(request.container_id, seconds)
        return api_pb2.StopContainerResponse()

    async def reopen_container_log(
        self, request: api_pb2.ReopenContainerLogRequest
    ) -> api_pb2.ReopenContainerLogResponse:
        await self._engine.service(pods_api).reopen_log(request.container_id)
        return api_pb2.ReopenContainerLogResponse()

    async def remove_container(
        self, request: api_pb2.RemoveContainerRequest
    ) -> api_pb2.RemoveContainerResponse:
        await self._engine.service(pods_api).remove_container(request.container_id)
        return api_pb2.RemoveContainerResponse()

    async def container_status(
        self, request: api_pb2.ContainerStatusRequest
    ) -> api_pb2.ContainerStatusResponse:
        record = self._engine.service(pods_api).container(request.container_id)
        sandbox = self._engine.service(pods_api).sandbox(record.pod.sandbox) if record.pod else None
        info = {"info": cri_status.info(record)} if request.verbose else {}
        return api_pb2.ContainerStatusResponse(
            status=cri_status.container_status(record, sandbox, self._image_names(record)),
            info=info,
        )

    def _image_names(self, record: ContainerRecord) -> ImageNames:
        """Return the names of the image of a container; none if it has been removed."""
        try:
            tags, digests = self._engine.images.names(record.image)
        except (NotFound, CorruptState):
            return ImageNames()
        return ImageNames(tuple(map(full_name, tags)), tuple(map(full_name, digests)))

    async def list_containers(
        self, request: api_pb2.ListContainersRequest
    ) -> api_pb2.ListContainersResponse:
        containers = (
            cri_status.container(record) for record in self._engine.service(pods_api).containers()
        )
        return api_pb2.ListContainersResponse(
            containers=[c for c in containers if cri_status.matches_container(request.filter, c)]
        )

    async def update_container_resources(
        self, request: api_pb2.UpdateContainerResourcesRequest
    ) -> api_pb2.UpdateContainerResourcesResponse:
        id = self._engine.service(pods_api).container(request.container_id).id
        await self._engine.containers.update(id, container_update(request.linux))
        return api_pb2.UpdateContainerResourcesResponse()

    async def container_stats(
        self, request: api_pb2.ContainerStatsRequest
    ) -> api_pb2.ContainerStatsResponse:
        usage = await self._engine.service(pods_api).usage(request.container_id)
        return api_pb2.ContainerStatsResponse(stats=cri_stats.container_stats(usage))

    async def list_container_stats(
        self, request: api_pb2.ListContainerStatsRequest
    ) -> api_pb2.ListContainerStatsResponse:
        made = [item async for part in self._container_stats(request.filter) for item in part]
        return api_pb2.ListContainerStatsResponse(stats=made)

    async def _container_stats(
        self, filter: api_pb2.ContainerStatsFilter
    ) -> AsyncIterator[list[api_pb2.ContainerStats]]:
        """Yield the statistics of the selected containers that still exist, in batches."""
        records = self._engine.service(pods_api).containers()
        ids = [record.id for record in records if cri_stats.matches(filter, record)]
        for part in _parts(ids, _BATCH):
            yield [
                cri_stats.container_stats(usage)
                for usage in await self._engine.service(pods_api).usages(part)
            ]

    async def pod_sandbox_stats(
        self, request: api_pb2.PodSandboxStatsRequest
    ) -> api_pb2.PodSandboxStatsResponse:
        usage = await self._engine.service(pods_api).sandbox_usage(request.pod_sandbox_id)
        return api_pb2.PodSandboxStatsResponse(stats=cri_stats.sandbox_stats(usage))

    async def list_pod_sandbox_stats(
        self, request: api_pb2.ListPodSandboxStatsRequest
    ) -> api_pb2.ListPodSandboxStatsResponse:
        made = [item async for part in self._sandbox_stats(request.filter) for item in part]
        return api_pb2.ListPodSandboxStatsResponse(stats=made)

    async def _sandbox_stats(
        self, filter: api_pb2.PodSandboxStatsFilter
    ) -> AsyncIterator[list[api_pb2.PodSandboxStats]]:
        """Yield the statistics of the selected pods that still exist, in batches."""
        records = self._engine.service(pods_api).sandboxes()
        ids = [record.id for record in records if cri_stats.matches_sandbox(filter, record)]
        for part in _parts(ids, _BATCH):
            usages = await self._engine.service(pods_api).sandbox_usages(part)
            yield [cri_stats.sandbox_stats(usage) for usage in usages]

    async def list_metric_descriptors(
        self, request: api_pb2.ListMetricDescriptorsRequest
    ) -> api_pb2.ListMetricDescriptorsResponse:
        return api_pb2.ListMetricDescriptorsResponse(descriptors=cri_metrics.descriptors())

    async def list_pod_sandbox_metrics(
        self, request: api_pb2.ListPodSandboxMetricsRequest
    ) -> api_pb2.ListPodSandboxMetricsResponse:
        made = [item async for part in self._metrics() for item in part]
        return api_pb2.ListPodSandboxMetricsResponse(pod_metrics=made)

    async def _metrics(self) -> AsyncIterator[list[api_pb2.PodSandboxMetrics]]:
        """Yield the metrics of the pods that run, in batches.

        They are encoded in a thread as well: those of a batch are thousands of messages.
        """
        ids = [record.id for record in self._engine.service(pods_api).sandboxes()]
        for part in _parts(ids, _BATCH):
            samples = await self._engine.service(pods_api).samples(part)
            yield await asyncio.to_thread(cri_metrics.encode, samples)

    # -- streams of lists, and events ------------------------------------------------------------

    async def stream_pod_sandboxes(
        self, request: api_pb2.StreamPodSandboxesRequest
    ) -> AsyncIterator[api_pb2.StreamPodSandboxesResponse]:
        listed = await self.list_pod_sandbox(api_pb2.ListPodSandboxRequest(filter=request.filter))
        for part in _parts(listed.items):
            yield api_pb2.StreamPodSandboxesResponse(pod_sandboxes=part)

    async def stream_containers(
        self, request: api_pb2.StreamContainersRequest
    ) -> AsyncIterator[api_pb2.StreamContainersResponse]:
        listed = await self.list_containers(api_pb2.ListContainersRequest(filter=request.filter))
        for part in _parts(listed.containers):
            yield api_pb2.StreamContainersResponse(containers=part)

    async def stream_container_stats(
        self, request: api_pb2.StreamContainerStatsRequest
    ) -> AsyncIterator[api_pb2.StreamContainerStatsResponse]:
        async for part in self._container_stats(request.filter):
            yield api_pb2.StreamContainerStatsResponse(container_stats=part)

    async def stream_pod_sandbox_stats(
        self, request: api_pb2.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[api_pb2.StreamPodSandboxStatsResponse]:
        async for part in self._sandbox_stats(request.filter):
            yield api_pb2.StreamPodSandboxStatsResponse(pod_sandbox_stats=part)

    async def stream_pod_sandbox_metrics(
        self, request: api_pb2.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[api_pb2.StreamPodSandboxMetricsResponse]:
        async for part in self._metrics():
            yield api_pb2.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=part)

    async def get_container_events(
        self, request: api_pb2.GetEventsRequest
    ) -> AsyncIterator[api_pb2.ContainerEventResponse]:
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
        self, event: Document, kind: api_pb2.ContainerEventType
    ) -> api_pb2.ContainerEventResponse | None:
        """Return the event with the statuses of its pod; None if the container is of no pod.

        The attributes name the sandbox, since the record of a removed container is gone.
        """
        id = event["Actor"]["ID"]
        sandbox_id = event["Actor"]["Attributes"].get(SANDBOX_ATTRIBUTE, "")
        if not sandbox_id:
            return None
        response = api_pb2.ContainerEventResponse(
            container_id=id, container_event_type=kind, created_at=event["timeNano"]
        )
        try:
            sandbox = self._engine.service(pods_api).sandbox(sandbox_id)
        except NotFound:
            return response
        response.pod_sandbox_status.CopyFrom(cri_status.sandbox_status(sandbox))
        response.containers_statuses.extend(
            cri_status.container_status(record, sandbox, self._image_names(record))
            for record in self._engine.service(pods_api).members(sandbox.id)
        )
        return response

    async def exec(self, request: api_pb2.ExecRequest) -> api_pb2.ExecResponse:
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
        return api_pb2.ExecResponse(url=self._url(stream))

    async def attach(self, request: api_pb2.AttachRequest) -> api_pb2.AttachResponse:
        record = self._engine.service(pods_api).request_attach(request.container_id)
        stream = AttachRequest(
            container_id=record.id,
            tty=record.body.tty,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr and not record.body.tty,
        )
        return api_pb2.AttachResponse(url=self._url(stream))

    async def port_forward(
        self, request: api_pb2.PortForwardRequest
    ) -> api_pb2.PortForwardResponse:
        stream = PortForwardRequest(
            sandbox_id=self._engine.service(pods_api).request_port_forward(
                request.pod_sandbox_id, tuple(request.port)
            ),
            ports=tuple(request.port),
        )
        return api_pb2.PortForwardResponse(url=self._url(stream))

    def _url(self, request: Request) -> str:
        return self._streams.get_url(request, EngineStreams(self._engine))

    async def exec_sync(self, request: api_pb2.ExecSyncRequest) -> api_pb2.ExecSyncResponse:
        check_command(request.cmd)
        seconds = request.timeout if request.timeout > 0 else None
        try:
            stdout, stderr, code = await self._engine.service(pods_api).exec_sync(
                request.container_id, tuple(request.cmd), seconds
            )
        except TimeoutError as error:
            raise GrpcError(Code.DEADLINE_EXCEEDED, str(error)) from None
        return api_pb2.ExecSyncResponse(stdout=stdout, stderr=stderr, exit_code=code)

    async def checkpoint_container(
        self, request: api_pb2.CheckpointContainerRequest
    ) -> api_pb2.CheckpointContainerResponse:
        seconds = request.timeout if request.timeout > 0 else None
        try:
            await self._engine.service(pods_api).checkpoint(
                request.container_id, request.location, seconds
            )
        except TimeoutError as error:
            raise GrpcError(Code.DEADLINE_EXCEEDED, str(error)) from None
        return api_pb2.CheckpointContainerResponse()


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
