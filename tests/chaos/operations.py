"""Operations of a client that the sweep interrupts, each with what must hold afterwards."""

from __future__ import annotations

import io
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from chaos.target import Fault, Target
from harness import builds
from harness.containers import unique
from harness.engine import Reply

STATUS = 7  # exit status of the programs
DIED = (128 + 9, 255, 125, 126, 127)  # statuses of a container whose init or shim was killed
START_ROLES = ("engine", "zygote", "shim", "helper", "stage", "init")


@dataclass
class Operation:
    """One request in a place of its own. ``answer`` is None if the engine ended before it came."""

    target: Target
    name: str = field(default_factory=lambda: unique("sweep"))
    killed: str = ""  # the role of the killed process
    answer: Reply | None = None
    roles: ClassVar[tuple[str, ...]] = ("engine",)
    pods: ClassVar[bool] = False  # whether it needs a target with pods

    def prepare(self) -> None:
        """Make what the request needs."""

    def perform(self) -> Reply:
        """Send the request; return the answer."""
        raise NotImplementedError

    def verify(self) -> None:
        """Check what the request has done or not done.

        :raises Fault: when it is neither.
        """
        raise NotImplementedError

    def clean_up(self) -> None:
        self.target.remove(self.name)

    # for subclasses

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        return self.target.engine.request(method, path, body, timeout=self.target.limit, **options)

    def must(self, method: str, path: str, body: Any, *allowed: int) -> Reply:
        return self.target.must(method, path, body, *allowed)

    def state(self) -> dict[str, Any]:
        document = self.must("GET", f"/containers/{self.name}/json", None, 200).json()
        state: dict[str, Any] = document["State"]
        return state

    def create(self, command: str, **host: Any) -> str:
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", command],
            "HostConfig": {"Binds": [f"{self.target.ledger}:/ledger"], **host},
        }
        made = self.must("POST", f"/containers/create?name={self.name}", body, 201)
        return str(made.json()["Id"])

    def running(self) -> None:
        self.create("trap 'exit 0' TERM; while :; do sleep 0.05; done")
        self.must("POST", f"/containers/{self.name}/start", None, 204)

    def lines(self) -> int:
        """Return how often the program has written its name."""
        path = Path(self.target.ledger) / self.name
        return path.read_text().count("\n") if path.exists() else 0

    def answers(self) -> None:
        """Check that the container runs and that a process in it does."""
        state = self.state()
        if not state["Running"] or state["Paused"]:
            raise Fault(f"the container is {state['Status']}: {state}")
        body = {"Cmd": ["echo", "in"], "AttachStdout": True}
        made = self.must("POST", f"/containers/{self.name}/exec", body, 201).json()["Id"]
        output = self.must("POST", f"/exec/{made}/start", {"Detach": False}, 200, 101).body
        if b"in\n" not in output:
            raise Fault(f"a process of exec printed {output!r}")


class Start(Operation):
    """``start``: the program runs once, and its exit status is recorded."""

    roles = START_ROLES
    program = f"echo run >> /ledger/$NAME; sleep 0.1; exit {STATUS}"

    def prepare(self) -> None:
        self.create(self.program.replace("$NAME", self.name))

    def perform(self) -> Reply:
        return self.ask("POST", f"/containers/{self.name}/start")

    def verify(self) -> None:
        deadline = time.monotonic() + self.target.limit
        while (state := self.state())["Running"]:
            if time.monotonic() > deadline:
                raise Fault(f"the container does not end: {state}")
            time.sleep(0.02)
        time.sleep(0.15)  # a stray program would write now
        runs, status = self.lines(), self.answer.status if self.answer else 0
        if status not in (0, 204) and self.killed in ("", "engine"):
            raise Fault(f"start answered {status}: {self.answer}")
        if runs > 1:
            raise Fault(f"the program ran {runs} times for one request")
        state, allowed = self.state(), (STATUS,)
        if self.killed in ("shim", "helper", "stage", "init"):
            allowed = (STATUS, *DIED)
        if runs and state["Status"] == "created" and status in (0, 204):
            raise Fault(f"the program ran, and the record says created: {state}")
        if runs and state["ExitCode"] not in allowed:
            raise Fault(f"the program ended with {STATUS}, and the record says {state}")
        if status == 204 and not runs and self.killed in ("", "engine", "zygote"):
            raise Fault("start answered 204, and the program did not run")


class Exec(Operation):
    """``exec``: the process runs at most once, and the container runs on."""

    roles = ("engine", "shim", "helper", "stage", "init")

    def prepare(self) -> None:
        self.running()
        body = {
            "Cmd": ["sh", "-c", f"echo run >> /ledger/{self.name}; exit {STATUS}"],
            "AttachStdout": True,
        }
        made = self.must("POST", f"/containers/{self.name}/exec", body, 201)
        self.exec = made.json()["Id"]

    def perform(self) -> Reply:
        return self.ask("POST", f"/exec/{self.exec}/start", {"Detach": False})

    def verify(self) -> None:
        time.sleep(0.05)
        if self.lines() > 1:
            raise Fault(f"the process ran {self.lines()} times for one request")
        if self.killed == "shim":
            self.target.until(lambda: not self.state()["Running"], "the container ends")
        else:
            self.answers()


class Stop(Operation):
    """``stop``: the container ends, at the latest when it is asked again."""

    roles = ("engine", "shim")

    def prepare(self) -> None:
        self.running()

    def perform(self) -> Reply:
        return self.ask("POST", f"/containers/{self.name}/stop?t=5")

    def verify(self) -> None:
        if self.answer is None:
            self.must("POST", f"/containers/{self.name}/stop?t=5", None, 204, 304)
        state = self.state()
        if state["Running"]:
            raise Fault(f"the container is stopped, and runs: {state}")
        if self.killed == "engine" and state["ExitCode"] != 0:
            raise Fault(f"the program ended with 0, and the record says {state}")


class Remove(Operation):
    """``rm -f``: nothing is left, at the latest when it is asked again."""

    roles = ("engine", "shim")

    def prepare(self) -> None:
        self.running()

    def perform(self) -> Reply:
        return self.ask("DELETE", f"/containers/{self.name}?force=1&v=1")

    def verify(self) -> None:
        if self.answer is not None and self.answer.status not in (204, 404):
            raise Fault(f"rm -f answered {self.answer}")
        if self.answer is None:
            self.must("DELETE", f"/containers/{self.name}?force=1&v=1", None, 204, 404)
        self.must("GET", f"/containers/{self.name}/json", None, 404)


class Commit(Operation):
    """``commit``: the container runs on, and an image that was answered is whole."""

    def prepare(self) -> None:
        self.create("echo content > /file; while :; do sleep 0.05; done")
        self.must("POST", f"/containers/{self.name}/start", None, 204)

    def perform(self) -> Reply:
        return self.ask("POST", f"/commit?container={self.name}&repo={self.name}", {})

    def verify(self) -> None:
        self.answers()
        found = self.ask("GET", f"/images/{self.name}/json").status
        if self.answer is not None and (self.answer.status, found) != (201, 200):
            raise Fault(f"commit answered {self.answer}, and inspect of the image {found}")
        self.target.images_are_whole()

    def clean_up(self) -> None:
        super().clean_up()
        self.must("DELETE", f"/images/{self.name}?force=1", None, 200, 404)


class Pull(Operation):
    """``pull``: the image is whole, at the latest when it is asked again."""

    def prepare(self) -> None:
        self.image = self.target.remote_image()
        self.must("DELETE", f"/images/{self.image}?force=1", None, 200, 404)

    def perform(self) -> Reply:
        repository, _, tag = self.image.rpartition(":")
        return self.ask("POST", f"/images/create?fromImage={repository}&tag={tag}")

    def verify(self) -> None:
        if self.answer is not None and b'"error"' in self.answer.body:
            raise Fault(f"pull answered {self.answer}")
        self.target.images_are_whole()
        if self.answer is None and b'"error"' in self.perform().body:
            raise Fault("the image cannot be pulled again")
        self.must("GET", f"/images/{self.image}/json", None, 200)
        self.target.images_are_whole()

    def clean_up(self) -> None:
        self.must("DELETE", f"/images/{self.image}?force=1", None, 200, 404)


class Build(Operation):
    """``build``: the image is whole, at the latest when it is built again."""

    roles = START_ROLES

    def perform(self) -> Reply:
        files = {
            "Dockerfile": f"FROM busybox\nCOPY file /\nRUN echo {self.name} > /made\n",
            "file": self.name,
        }
        return self.ask(
            "POST",
            f"/build?t={self.name}",
            builds.context(files),
            headers={"Content-Type": "application/x-tar"},
        )

    def verify(self) -> None:
        failed = self.answer is not None and b'"error"' in self.answer.body
        if failed and self.killed in ("", "engine", "zygote"):
            raise Fault(f"build answered {self.answer}")
        self.target.images_are_whole()
        if self.answer is None or failed:
            again = self.perform()
            if again.status != 200 or b'"error"' in again.body:
                raise Fault(f"the image cannot be built again: {again}")
        self.must("GET", f"/images/{self.name}/json", None, 200)
        self.target.images_are_whole()

    def clean_up(self) -> None:
        self.must("DELETE", f"/images/{self.name}?force=1", None, 200, 404)


class Copy(Operation):
    """``cp`` into a running container: the file is whole, at the latest when it is copied again."""

    content = b"0123456789" * 5000

    def prepare(self) -> None:
        self.running()

    def perform(self) -> Reply:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("copied")
            info.size = len(self.content)
            tar.addfile(info, io.BytesIO(self.content))
        return self.ask(
            "PUT",
            f"/containers/{self.name}/archive?path=/tmp",
            buffer.getvalue(),
            headers={"Content-Type": "application/x-tar"},
        )

    def verify(self) -> None:
        self.answers()
        answer = self.answer or self.perform()
        if answer.status != 200:
            raise Fault(f"cp answered {answer}")
        data = self.must("GET", f"/containers/{self.name}/archive?path=/tmp/copied", None, 200)
        with tarfile.open(fileobj=io.BytesIO(data.body)) as tar:
            file = tar.extractfile("copied")
            if file is None or file.read() != self.content:
                raise Fault("the copied file is not whole")


class Connect(Operation):
    """``network connect``: record and kernel agree, and it can be asked again."""

    def prepare(self) -> None:
        self.running()
        self.must("POST", "/networks/create", {"Name": self.name}, 201)

    def perform(self) -> Reply:
        return self.ask("POST", f"/networks/{self.name}/connect", {"Container": self.name})

    def verify(self) -> None:
        document = self.must("GET", f"/containers/{self.name}/json", None, 200).json()
        if self.answer is not None and self.answer.status != 200:
            raise Fault(f"connect answered {self.answer}")
        if self.name not in document["NetworkSettings"]["Networks"]:
            if self.answer is not None:
                raise Fault("connect answered 200, and the container is not on the network")
            self.must("POST", f"/networks/{self.name}/connect", {"Container": self.name}, 200)
        process = document["State"]["Pid"]
        links = Path(f"/proc/{process}/net/dev").read_text().count("eth")
        if links != 2:
            raise Fault(f"the container has {links} links of 2")
        self.answers()

    def clean_up(self) -> None:
        super().clean_up()
        self.must("DELETE", f"/networks/{self.name}", None, 204, 404)


OPERATIONS: dict[str, type[Operation]] = {
    "start": Start,
    "exec": Exec,
    "stop": Stop,
    "rm": Remove,
    "commit": Commit,
    "pull": Pull,
    "build": Build,
    "cp": Copy,
    "connect": Connect,
}
