"""Operations of a kubelet that the sweep interrupts: the calls of CRI, each with its retry.

A pod has a network of CNI's plugins ``bridge`` and ``host-local``, in the network namespace of the
target. After the next start of the engine, the same call succeeds once more, nothing has run twice,
and nothing is left: no address, record of CNI, process, mount or cgroup.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

from chaos.operations import DIED, START_ROLES, STATUS, Operation
from chaos.target import Fault
from harness import builds
from harness.engine import Reply
from harness.pods import Cri, connected, container_config, sandbox_config
from harness.stream_client import SpdyClient
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import GrpcError
from jaula.grpc.http2_connection import ConnectionLost
from jaula.kernel.netlink import in_netns

FAILED = 500  # status of an answer that is an error of gRPC


class PodOperation(Operation):
    """One call of CRI for a pod of its own."""

    pods: ClassVar[bool] = True

    def prepare(self) -> None:
        self.pod = self.run_pod()

    def clean_up(self) -> None:
        for pod in self.must_call("ListPodSandbox").items:
            self.must_call("StopPodSandbox", pod_sandbox_id=pod.id)
            self.must_call("RemovePodSandbox", pod_sandbox_id=pod.id)
        self.no_addresses()

    # calls

    def calls(self, work: Callable[[Cri], Awaitable[Any]]) -> Any:
        """Run calls on a connection of their own, in the network namespace of the target.

        :raises ConnectionError: when the engine has ended.
        """

        async def run() -> Any:
            async with connected(self.target.engine) as cri:
                return await asyncio.wait_for(work(cri), self.target.limit)

        with in_netns(self.target.netns):
            try:
                return asyncio.run(run())
            except ConnectionLost as error:
                raise ConnectionResetError(str(error)) from error
            except TimeoutError as error:
                raise Fault("no answer") from error

    def ask_for(self, method: str, **fields: Any) -> Reply:
        """Make a call; the status of the reply is 200 or that of a failure."""
        try:
            response = self.calls(lambda cri: self.call(cri, method, **fields))
        except GrpcError as error:
            return Reply(FAILED, {}, f"{error.code.name}: {error.message}".encode())
        return Reply(200, {}, response.SerializeToString())

    def call(self, cri: Cri, method: str, **fields: Any) -> Awaitable[Any]:
        """Make a call of RuntimeService; another service overrides this."""
        return cri.call(method, **fields)

    def must_call(self, method: str, **fields: Any) -> Any:
        """Make a call that has to succeed.

        :raises Fault: when it fails.
        """
        try:
            return self.calls(lambda cri: self.call(cri, method, **fields))
        except (GrpcError, OSError) as error:
            raise Fault(f"{method}: {error!r}") from error

    def answered(self, method: str, **fields: Any) -> Any:
        """Return the response to :meth:`perform`; make the call again if there was none.

        An answer that is an error is a fault unless a process of the container was killed, or the
        zygote, without which an engine ends.
        """
        if self.answer is not None and self.answer.status == 200:
            return getattr(api_pb2, f"{method}Response").FromString(self.answer.body)
        ending = self.killed == "zygote" and self.answer is not None
        if ending and self.answer.body.startswith(b"UNAVAILABLE: "):
            return self.must_call(method, **fields)
        if self.answer is not None and self.killed in ("", "engine", "zygote"):
            raise Fault(f"{method} answered {self.answer.body!r}")
        return self.must_call(method, **fields)

    # pods and containers

    def config(self) -> api_pb2.PodSandboxConfig:
        config = sandbox_config(self.name, log_directory=str(self.logs))
        config.linux.security_context.namespace_options.network = api_pb2.POD
        return config

    @property
    def logs(self) -> Path:
        return self.target.directory / "logs" / self.name

    def run_pod(self) -> str:
        response = self.must_call("RunPodSandbox", config=self.config())
        return str(response.pod_sandbox_id)

    def container(self, command: str) -> dict[str, Any]:
        """Return the fields of a request to create a container in the pod."""
        config = container_config("main", "sh", "-c", command, log_path="main/0.log")
        config.mounts.add(host_path=str(self.target.ledger), container_path="/ledger")
        return {"pod_sandbox_id": self.pod, "config": config, "sandbox_config": self.config()}

    def run_container(self) -> str:
        command = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
        created = self.must_call("CreateContainer", **self.container(command)).container_id
        self.must_call("StartContainer", container_id=created)
        return str(created)

    def status(self, container: str) -> api_pb2.ContainerStatus:
        response = self.must_call("ContainerStatus", container_id=container)
        status: api_pb2.ContainerStatus = response.status
        return status

    def answers_exec(self, container: str) -> None:
        """Check that a process in the container runs."""
        done = self.must_call("ExecSync", container_id=container, cmd=["echo", "in"])
        if (done.stdout, done.exit_code) != (b"in\n", 0):
            raise Fault(f"a process of exec printed {done}")

    def addresses(self) -> list[str]:
        return sorted(path.name for path in self.target.addresses.rglob("10.*"))

    def no_addresses(self) -> None:
        """Check that no address and no record of CNI is in use.

        :raises Fault: when one is.
        """
        self.target.until(lambda: not self.addresses(), "the addresses are free")
        records = list((self.target.engine.root / "lib/cni/results").iterdir())
        if records:
            raise Fault(f"records of CNI are left: {records}")


class RunPod(PodOperation):
    """``RunPodSandbox``: one pod with one address, at the latest when it is asked again."""

    roles = START_ROLES

    def prepare(self) -> None:
        pass

    def perform(self) -> Reply:
        return self.ask_for("RunPodSandbox", config=self.config())

    def verify(self) -> None:
        if self.answer is not None and self.killed in ("shim", "init", "helper", "stage"):
            self.clean_up()  # the pod is of no use to a kubelet: it removes it
            self.answer = None
        pod = self.answered("RunPodSandbox", config=self.config()).pod_sandbox_id
        listed = [item.id for item in self.must_call("ListPodSandbox").items]
        if listed != [pod]:
            raise Fault(f"the pod is {pod}, and the list has {listed}")
        status = self.must_call("PodSandboxStatus", pod_sandbox_id=pod).status
        if status.state != api_pb2.SANDBOX_READY:
            raise Fault(f"the pod is not ready: {status}")
        self.target.until(lambda: self.addresses() == [status.network.ip], "the pod has an address")
        self.pod = pod
        self.answers_exec(self.run_container())


class StopPod(PodOperation):
    """``StopPodSandbox``: the pod has ended with its containers, and has no address."""

    roles = ("engine", "shim")

    def prepare(self) -> None:
        super().prepare()
        self.id = self.run_container()

    def perform(self) -> Reply:
        return self.ask_for("StopPodSandbox", pod_sandbox_id=self.pod)

    def verify(self) -> None:
        self.answered("StopPodSandbox", pod_sandbox_id=self.pod)
        status = self.must_call("PodSandboxStatus", pod_sandbox_id=self.pod).status
        state = self.status(self.id).state
        if (status.state, state) != (api_pb2.SANDBOX_NOTREADY, api_pb2.CONTAINER_EXITED):
            raise Fault(f"the pod is stopped, and the states are {status.state}, {state}")
        self.no_addresses()


class RemovePod(StopPod):
    """``RemovePodSandbox``: nothing of the pod is left."""

    def perform(self) -> Reply:
        return self.ask_for("RemovePodSandbox", pod_sandbox_id=self.pod)

    def verify(self) -> None:
        self.answered("RemovePodSandbox", pod_sandbox_id=self.pod)
        pods = self.must_call("ListPodSandbox").items
        containers = self.must_call("ListContainers").containers
        if pods or containers:
            raise Fault(f"the pod is removed, and the lists have {pods} and {containers}")
        self.no_addresses()


class CreateContainer(PodOperation):
    """``CreateContainer``: one container, which runs once when it is started."""

    program = f"echo run >> /ledger/$NAME; exit {STATUS}"

    def perform(self) -> Reply:
        return self.ask_for("CreateContainer", **self.request())

    def request(self) -> dict[str, Any]:
        return self.container(self.program.replace("$NAME", self.name))

    def verify(self) -> None:
        created = self.answered("CreateContainer", **self.request()).container_id
        listed = [item.id for item in self.must_call("ListContainers").containers]
        if listed != [created]:
            raise Fault(f"the container is {created}, and the list has {listed}")
        self.must_call("StartContainer", container_id=created)
        self.ended(created, (STATUS,))

    def ended(self, container: str, statuses: tuple[int, ...]) -> None:
        """Check that the program of a container runs to its end, once if only one status is right.

        :raises Fault: when it does not.
        """
        self.target.until(
            lambda: self.status(container).state == api_pb2.CONTAINER_EXITED, "the container ends"
        )
        time.sleep(0.15)  # a stray program would write now
        status = self.status(container)
        if self.lines() > 1 or (len(statuses) == 1 and not self.lines()):
            raise Fault(f"the program ran {self.lines()} times: {status}")
        if status.exit_code not in statuses:
            raise Fault(f"the program ended with {STATUS}, and the status is {status}")


class StartContainer(CreateContainer):
    """``StartContainer``: the program runs once, also when it is asked again."""

    roles = START_ROLES

    def prepare(self) -> None:
        super().prepare()
        self.id = str(self.must_call("CreateContainer", **self.request()).container_id)

    def perform(self) -> Reply:
        return self.ask_for("StartContainer", container_id=self.id)

    def verify(self) -> None:
        if self.killed in ("", "engine", "zygote"):
            self.answered("StartContainer", container_id=self.id)
            self.ended(self.id, (STATUS,))
        elif self.status(self.id).state != api_pb2.CONTAINER_CREATED:
            self.ended(self.id, (STATUS, *DIED))
        elif self.answer is None or self.answer.status == 200:
            raise Fault(f"the start was answered {self.answer}, and the container is created")


class StopContainer(PodOperation):
    """``StopContainer``: the container has ended, at the latest when it is asked again."""

    roles = ("engine", "shim")

    def prepare(self) -> None:
        super().prepare()
        self.id = self.run_container()

    def perform(self) -> Reply:
        return self.ask_for("StopContainer", container_id=self.id, timeout=5)

    def verify(self) -> None:
        self.answered("StopContainer", container_id=self.id, timeout=5)
        status = self.status(self.id)
        if status.state != api_pb2.CONTAINER_EXITED:
            raise Fault(f"the container is stopped, and is {status}")
        if self.killed == "engine" and status.exit_code != 0:
            raise Fault(f"the program ended with 0, and the status is {status}")


class RemoveContainer(StopContainer):
    """``RemoveContainer``: the container is absent, and its pod runs on."""

    def perform(self) -> Reply:
        return self.ask_for("RemoveContainer", container_id=self.id)

    def verify(self) -> None:
        self.answered("RemoveContainer", container_id=self.id)
        if listed := self.must_call("ListContainers").containers:
            raise Fault(f"the container is removed, and the list has {listed}")
        if self.killed != "shim":
            self.answers_exec(self.run_container())


class ExecSync(StopContainer):
    """``ExecSync``: the process runs at most once for a call, and the container runs on."""

    roles = ("engine", "shim", "helper", "stage", "init")

    def perform(self) -> Reply:
        command = ["sh", "-c", f"echo run >> /ledger/{self.name}; exit {STATUS}"]
        return self.ask_for("ExecSync", container_id=self.id, cmd=command)

    def prepare(self) -> None:
        self.pod = self.run_pod()
        command = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
        self.id = self.must_call("CreateContainer", **self.container(command)).container_id
        self.must_call("StartContainer", container_id=self.id)

    def verify(self) -> None:
        if self.killed == "" and (self.answer is None or self.answer.status != 200):
            raise Fault(f"ExecSync answered {self.answer}")
        if self.lines() > 1:
            raise Fault(f"the process ran {self.lines()} times for one request")
        if self.killed == "shim":
            self.target.until(
                lambda: self.status(self.id).state == api_pb2.CONTAINER_EXITED, "the container ends"
            )
        else:
            self.answers_exec(self.id)


class Streams(ExecSync):
    """``Exec``, with its stream: the same, for a command with an output."""

    roles = ("engine", "shim")

    def perform(self) -> Reply:
        command = f"echo run >> /ledger/{self.name}; echo out"

        async def work(cri: Cri) -> Reply:
            call = await cri.call(
                "Exec", container_id=self.id, cmd=["sh", "-c", command], stdout=True, stderr=True
            )
            client = await SpdyClient.connect(call.url, "v4.channel.k8s.io")
            try:
                ids = await client.open_all("error", "stdout", "stderr")
                await client.until_ended(*ids.values())
                return Reply(200, {}, client.received[ids["stdout"]])
            finally:
                client.close()

        return self.stream(work)

    def stream(self, work: Callable[[Cri], Awaitable[Reply]]) -> Reply:
        """Carry a stream out; the end of the engine breaks its connection."""
        try:
            reply: Reply = self.calls(work)
        except GrpcError as error:
            return Reply(FAILED, {}, str(error).encode())
        except (asyncio.IncompleteReadError, AssertionError) as error:  # the client's end of file
            raise ConnectionResetError(str(error)) from error
        return reply


class Attach(Streams):
    """``Attach``, with its stream: the container runs on, and can be attached to again."""

    roles = ("engine",)

    def prepare(self) -> None:
        self.pod = self.run_pod()
        fields = self.container("while :; do echo tick; sleep 0.05; done")
        self.id = self.must_call("CreateContainer", **fields).container_id
        self.must_call("StartContainer", container_id=self.id)

    def perform(self) -> Reply:
        async def work(cri: Cri) -> Reply:
            url = (await cri.call("Attach", container_id=self.id, stdout=True)).url
            client = await SpdyClient.connect(url, "v4.channel.k8s.io")
            try:
                ids = await client.open_all("error", "stdout")
                while b"tick\n" not in client.received[ids["stdout"]]:
                    assert await client.frame(), "the server closed"
                return Reply(200, {}, bytes(client.received[ids["stdout"]]))
            finally:
                client.close()

        return self.stream(work)

    def verify(self) -> None:
        if self.killed == "" and (self.answer is None or self.answer.status != 200):
            raise Fault(f"Attach answered {self.answer}")
        if self.perform().status != 200:
            raise Fault("the container cannot be attached to again")
        self.answers_exec(self.id)


class PortForward(Streams):
    """``PortForward``, with its stream: the bytes of a server in the pod."""

    roles = ("engine",)

    def prepare(self) -> None:
        super().prepare()
        serve = ["sh", "-c", "while :; do echo hello | nc -l -p 8080; done >/dev/null 2>&1 &"]
        self.must_call("ExecSync", container_id=self.id, cmd=serve)
        time.sleep(0.1)

    def perform(self) -> Reply:
        async def work(cri: Cri) -> Reply:
            url = (await cri.call("PortForward", pod_sandbox_id=self.pod, port=[8080])).url
            client = await SpdyClient.connect(url, "portforward.k8s.io")
            try:
                headers = {"port": "8080", "requestid": "0"}
                error = await client.open(streamtype="error", **headers)
                data = await client.open(streamtype="data", **headers)
                await client.send(error, b"", fin=True)
                await client.send(data, b"", fin=True)
                await client.until_ended(error, data)
                return Reply(200, {}, client.received[data])
            finally:
                client.close()

        return self.stream(work)


class UpdateResources(StopContainer):
    """``UpdateContainerResources``: the limit is set, at the latest when it is asked again."""

    roles = ("engine",)
    limit = 96 << 20  # bytes

    def perform(self) -> Reply:
        return self.ask_for("UpdateContainerResources", **self.request())

    def request(self) -> dict[str, Any]:
        limits = api_pb2.LinuxContainerResources(memory_limit_in_bytes=self.limit)
        return {"container_id": self.id, "linux": limits}

    def verify(self) -> None:
        self.answered("UpdateContainerResources", **self.request())
        shown = self.status(self.id).resources.linux.memory_limit_in_bytes
        files = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max")
        command = ["sh", "-c", f"cat {files[0]} 2>/dev/null || cat {files[1]}"]
        done = self.must_call("ExecSync", container_id=self.id, cmd=command)
        if (shown, done.stdout) != (self.limit, b"%d\n" % self.limit):
            raise Fault(f"the limit is {self.limit}; the status says {shown}, the kernel {done}")


class ReopenLog(StopContainer):
    """``ReopenContainerLog``: the log goes on in a new file, and no line is lost."""

    roles = ("engine", "shim")

    def prepare(self) -> None:
        self.pod = self.run_pod()
        command = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done"
        self.id = self.must_call("CreateContainer", **self.container(command)).container_id
        self.must_call("StartContainer", container_id=self.id)
        self.file, self.old = self.logs / "main/0.log", self.logs / "main/0.log.old"
        self.target.until(self.file.exists, "there is a log")
        self.file.rename(self.old)

    def perform(self) -> Reply:
        return self.ask_for("ReopenContainerLog", container_id=self.id)

    def verify(self) -> None:
        if self.killed == "shim":
            return
        self.answered("ReopenContainerLog", container_id=self.id)
        self.target.until(
            lambda: self.file.exists() and self.file.read_text().count("\n") > 3, "the log goes on"
        )
        lines = (self.old.read_text() + self.file.read_text()).splitlines()
        numbers = [int(line.rpartition(" ")[2]) for line in lines]
        if numbers != list(range(1, len(numbers) + 1)):
            raise Fault(f"lines of the log are lost: {numbers}")


class ImageOperation(PodOperation):
    """A call of ImageService."""

    def call(self, cri: Cri, method: str, **fields: Any) -> Awaitable[Any]:
        return cri.image(method, **fields)

    def clean_up(self) -> None:
        self.must("DELETE", f"/images/{self.image}?force=1", None, 200, 404)

    @property
    def image(self) -> str:
        return self.name

    def spec(self) -> api_pb2.ImageSpec:
        return api_pb2.ImageSpec(image=self.image)


class PullImage(ImageOperation):
    """``PullImage``: the image is whole, at the latest when it is asked again."""

    @property
    def image(self) -> str:
        return self.target.remote_image()

    def prepare(self) -> None:
        self.clean_up()

    def perform(self) -> Reply:
        return self.ask_for("PullImage", image=self.spec())

    def verify(self) -> None:
        self.target.images_are_whole()
        id = self.answered("PullImage", image=self.spec()).image_ref
        if self.must_call("ImageStatus", image=self.spec()).image.id != id:
            raise Fault(f"the image {id} was pulled, and is absent")
        self.target.images_are_whole()


class RemoveImage(ImageOperation):
    """``RemoveImage``: the image is absent, and the others are whole."""

    def prepare(self) -> None:
        files = {"file": self.name}
        path = f"/images/create?fromSrc=-&repo={self.name}&tag=latest"
        head = {"Content-Type": "application/x-tar"}
        if self.ask("POST", path, builds.context(files), headers=head).status != 200:
            raise Fault("the image cannot be imported")

    def perform(self) -> Reply:
        return self.ask_for("RemoveImage", image=self.spec())

    def verify(self) -> None:
        self.answered("RemoveImage", image=self.spec())
        if self.must_call("ImageStatus", image=self.spec()).HasField("image"):
            raise Fault("the image is removed, and is there")
        self.target.images_are_whole()


POD_OPERATIONS: dict[str, type[PodOperation]] = {
    "run-pod": RunPod,
    "stop-pod": StopPod,
    "rm-pod": RemovePod,
    "create-container": CreateContainer,
    "start-container": StartContainer,
    "stop-container": StopContainer,
    "rm-container": RemoveContainer,
    "exec-sync": ExecSync,
    "exec-stream": Streams,
    "attach": Attach,
    "port-forward": PortForward,
    "update-resources": UpdateResources,
    "reopen-log": ReopenLog,
    "pull-image": PullImage,
    "rm-image": RemoveImage,
}
