"""Clients at work on an engine, while a killer ends its processes at random moments.

A seed decides what each client does and whom the killer ends. The clock of the machine decides the
moments, so a seed repeats the mix and not the interleaving.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import signal
import tarfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos import roles
from chaos.target import LIMIT, Fault, Gone, Target
from harness import builds
from harness.engine import UnixConnection

WEIGHTS = {"engine": 3, "zygote": 1, "spare": 1, "shim": 3, "helper": 1, "stage": 1, "init": 3}
KEPT_ACTIONS = 50
MEMORY = 100_000  # actions that are remembered for the description of a fault
DIED = (137, 143, 255, 125, 126, 127)  # exit statuses of a container whose process was killed


class EngineEnded(Exception):
    """The engine was killed before it answered."""


class Campaign:
    """One campaign. ``faults`` holds every invariant that did not hold."""

    def __init__(
        self,
        target: Target,
        seed: int,
        clients: int,
        *,
        keep_going: bool = False,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Prepare the clients. ``progress`` gets each fault, and a line for each 100 kills."""
        self.target, self.seed, self.keep_going = target, seed, keep_going
        self._progress = progress
        self.faults: list[str] = []
        self.kills: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.ending = threading.Event()
        self.served = threading.Event()  # the engine answers
        self.served.set()
        self.generation = 0
        self._restart_seconds = 0.0  # of the last start; a slow machine gets time to do some work
        self.victims: set[str] = set()  # containers with a process that was killed
        self.container_kills: list[float] = []  # moments
        self.unknown_kills: list[float] = []  # of a process that no container was found for
        self._actions: deque[str] = deque(maxlen=MEMORY)
        self._started = time.monotonic()
        self._random = random.Random(seed)
        self._clients = [Client(self, number) for number in range(clients)]
        self.image = target.remote_image()

    def note(self, text: str) -> None:
        self._actions.append(f"{time.monotonic() - self._started:8.3f} {text}")

    def fault(self, text: str) -> None:
        self.note(f"FAULT {text}")
        self.faults.append(text)
        self._progress(f"fault: {text}")

    def run(self, kills: int, seconds: float = float("inf")) -> None:
        """Work until the number of kills is done or the time is over, then check what is left."""
        self.begin()
        until = time.monotonic() + seconds
        try:
            while self.kills.total() < kills and time.monotonic() < until and self.goes_on():
                time.sleep(self._random.uniform(0.02, max(0.5, 2 * self._restart_seconds)))
                done = self.kills.total()
                self._kill(self._random.choices([*WEIGHTS], [*WEIGHTS.values()])[0])
                if self.kills.total() // 100 > done // 100:
                    self._progress(f"{self.kills.total()} kills, {len(self.faults)} faults")
        except Fault as fault:
            self.fault(str(fault))
        self.end()

    def begin(self) -> None:
        """Start the clients."""
        for client in self._clients:
            client.thread.start()

    def goes_on(self) -> bool:
        """Return False once an invariant did not hold, unless the campaign keeps going."""
        return not self.faults or self.keep_going

    def end(self) -> None:
        """Let every client end its turn, then check what is left."""
        self.ending.set()
        self.served.set()
        for client in self._clients:
            client.thread.join(6 * LIMIT)
            if client.thread.is_alive():
                self.fault(f"client {client.number} does not end: {client.last}")
        try:
            self._settle()
        except (Fault, *Gone, OSError) as fault:
            self.fault(f"at the end: {fault}")

    def _settle(self) -> None:
        """Remove every container; nothing may be left, and everything kept must be whole."""
        target = self.target
        for container in target.must("GET", "/containers/json?all=1", None, 200).json():
            target.remove(container["Id"])
        target.nothing_left()
        target.images_are_whole()
        target.check()

    def report(self) -> int:
        """Print the result; return the exit status."""
        print(f"seed {self.seed}: {self.kills.total()} kills {dict(self.kills)}")
        print(f"actions: {dict(sorted(self.done.items()))}")
        if not self.faults:
            print("nothing lost, nothing left")
            return 0
        print(self.description())
        print("engine:", self.target.engine.log_tail(), sep="\n")
        print(f"repeat with --seed {self.seed} --kills {self.kills.total()}")
        return 1

    def description(self) -> str:
        """Return the faults, what was done with their containers, and the last actions."""
        names = {name for fault in self.faults for name in re.findall(r"chaos-\d+-\d+", fault)}
        about = [a for a in self._actions if any(re.search(rf"{n}\b", a) for n in names)]
        rows = ["what concerns them:", *about[-KEPT_ACTIONS:]] if about else []
        rows += [f"the last {KEPT_ACTIONS} actions:", *[*self._actions][-KEPT_ACTIONS:]]
        rows += ["faults:", *self.faults]
        return "\n  ".join([f"seed {self.seed}", *rows])

    # the killer

    def _kill(self, role: str) -> None:
        if role in ("engine", "zygote"):
            self._end_engine(role)
            return
        victim = self._victim(role)
        if victim is None:
            return
        self.container_kills.append(time.monotonic())
        if victim.container:
            self.victims.add(victim.container)
        else:
            self.unknown_kills.append(time.monotonic())
        self.note(f"kill {role} {victim.pid} of {victim.container[:12]}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
            self.kills[role] += 1

    def _end_engine(self, role: str) -> None:
        engine = self.target.engine
        assert engine.process is not None
        pid = engine.process.pid if role == "engine" else roles.zygote(engine)
        self.generation += 1
        self.served.clear()
        self.note(f"kill {role} {pid}")
        os.kill(pid, signal.SIGKILL)
        self.kills[role] += 1
        self.target.until(
            lambda: not self.target.alive(), f"the engine ends, its {role} was killed"
        )
        ended = time.monotonic()
        self.target.restart()
        self._restart_seconds = time.monotonic() - ended
        self.note("the engine answers")
        self.served.set()

    def _victim(self, role: str) -> roles.Process | None:
        """Return a process of the role; short-lived ones are waited for."""
        until = time.monotonic() + (0.4 if role in ("helper", "stage") else 0.0)
        while True:
            found = [p for p in roles.processes(self.target.engine) if p.role == role]
            if found:
                return self._random.choice(found)
            if time.monotonic() > until:
                return None

    def touched(self, container: str, since: float) -> bool:
        """Return whether a process of the container was killed, as far as is known."""
        return container in self.victims or any(moment >= since for moment in self.unknown_kills)


class Client:
    """One client: a thread that leads one container after the other through its life."""

    def __init__(self, campaign: Campaign, number: int) -> None:
        self.campaign, self.number, self.target = campaign, number, campaign.target
        self.random = random.Random(f"{campaign.seed}/{number}")
        self.last = ""
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        turn = 0
        lives = (self._short, self._short, self._long, self._long, self._restarted, self._image)
        while not self.campaign.ending.is_set():
            turn += 1
            life = self.random.choice(lives)
            try:
                life(f"chaos-{self.number}-{turn}")
            except EngineEnded:
                continue
            except Fault as fault:
                self.campaign.fault(f"client {self.number}, turn {turn}: {fault}")
                if not self.campaign.keep_going:
                    return
            except Exception as error:  # noqa: BLE001 - a fault of the campaign is reported too
                self.campaign.fault(f"client {self.number}, turn {turn}: {error!r}")
                return

    # requests

    def ask(
        self, kind: str, method: str, path: str, body: Any, *allowed: int, **options: Any
    ) -> Any:
        """Send one request.

        :raises EngineEnded: when the engine was killed before the answer.
        :raises Fault: when no answer comes, or one that is not allowed.
        """
        campaign = self.campaign
        if not campaign.served.wait(3 * LIMIT):
            raise Fault("the engine is not started again")
        generation = campaign.generation
        self.last = f"{kind}: {method} {path}"
        try:
            reply = self.target.engine.request(method, path, body, timeout=LIMIT, **options)
        except Gone as error:
            campaign.note(f"client {self.number} {self.last}: {error!r}")
            if campaign.generation != generation or not campaign.served.is_set():
                raise EngineEnded(self.last) from error
            raise Fault(f"{self.last}: {error!r}") from error
        except OSError as error:
            raise Fault(f"{self.last}: no answer: {error!r}") from error
        campaign.note(f"client {self.number} {self.last}: {reply.status}")
        if reply.status >= 500 and campaign.generation != generation:
            raise EngineEnded(self.last)  # the answer of an engine that is ending
        if reply.status not in allowed:
            raise Fault(f"{self.last}: {reply.status} {reply.body[:300]!r}")
        campaign.done[kind] += 1
        return reply

    def until_done(self, work: Callable[[], Any]) -> Any:
        """Repeat a request that may be repeated, until an engine lives to answer it."""
        for _ in range(50):
            with contextlib.suppress(EngineEnded):
                return work()
        raise Fault(f"{self.last}: 50 engines ended before the answer")

    def create(self, name: str, command: str, **host: Any) -> str:
        """Create a container; after a kill, use the one that the engine has created."""
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", command],
            "HostConfig": {"Binds": [f"{self.target.ledger}:/ledger"], **host},
        }
        path = f"/containers/create?name={name}"
        self.until_done(lambda: self.ask("create", "POST", path, body, 201, 409))
        return str(self.inspect(name)["Id"])

    def inspect(self, name: str) -> dict[str, Any]:
        path = f"/containers/{name}/json"
        document: dict[str, Any] = self.until_done(
            lambda: self.ask("inspect", "GET", path, None, 200)
        ).json()
        return document

    def remove(self, name: str) -> None:
        """Remove a container by force; 409 says that its removal is under way."""
        path = f"/containers/{name}?force=1&v=1"
        deadline = time.monotonic() + LIMIT
        while True:
            reply = self.until_done(lambda: self.ask("rm", "DELETE", path, None, 204, 404, 409))
            if reply.status in (204, 404):
                break
            if time.monotonic() > deadline:
                raise Fault(f"rm -f of {name} answers {reply.body!r} for {LIMIT:.0f} s")
            time.sleep(0.05)
        path = f"/containers/{name}/json"
        reply = self.until_done(lambda: self.ask("inspect", "GET", path, None, 200, 404))
        if reply.status != 404:
            raise Fault(f"rm -f answers that {name} is removed: {reply.json()['State']}")

    def start(self, name: str, id: str, since: float) -> bool:
        """Start a container; return whether the engine says that it started."""
        try:
            reply = self.ask("start", "POST", f"/containers/{name}/start", None, 204, 500)
        except EngineEnded:
            return False
        if reply.status == 500 and not self.campaign.touched(id, since):
            raise Fault(f"{self.last}: {reply.body!r}")
        return bool(reply.status == 204)

    # lives

    def _short(self, name: str) -> None:
        """A program that counts, with its log, its exit status and its one run."""
        lines, status = self.random.randrange(5, 60), self.random.randrange(0, 100)
        pause, since = self.random.choice(("0", "0.01", "0.03")), time.monotonic()
        id = self.create(
            name,
            f"echo run >> /ledger/{name}; i=0; while [ $i -lt {lines} ]; do echo line $i;"
            f" i=$((i+1)); sleep {pause}; done; exit {status}",
            NetworkMode=self.random.choice(("none", "bridge")),
        )
        try:
            started = self.start(name, id, since)
            if self.random.random() < 0.5 and started:
                with contextlib.suppress(EngineEnded):
                    self._stream(name, f"/containers/{name}/logs?follow=1&stdout=1", id, since)
            self._ended(name, id, since, lines, status, started=started)
        finally:
            self.remove(name)

    def _ended(
        self, name: str, id: str, since: float, lines: int, status: int, *, started: bool
    ) -> None:
        deadline = time.monotonic() + 2 * LIMIT
        while (state := self.inspect(name)["State"])["Running"]:
            if time.monotonic() > deadline:
                raise Fault(f"{name} does not end: {state}")
            time.sleep(0.03)
        ledger = Path(self.target.ledger) / name
        runs = ledger.read_text().count("\n") if ledger.exists() else 0
        touched = self.campaign.touched(id, since)
        if runs > 1 or (started and not runs and not touched):
            raise Fault(f"{name}: the program ran {runs} times for one request")
        if runs and state["ExitCode"] != status and not (touched and state["ExitCode"] in DIED):
            raise Fault(f"{name}: the program ended with {status}, and the record says {state}")
        path = f"/containers/{name}/logs?stdout=1"
        data = self.until_done(lambda: self.ask("logs", "GET", path, None, 200)).body
        self._counted(name, data, lines if runs and not touched else None)

    def _counted(self, name: str, data: bytes, lines: int | None) -> None:
        """Check that a log has every line from the first on, and all ``lines`` of them."""
        numbers = [int(part.split(b"\n")[0]) for part in data.split(b"line ")[1:]]
        if numbers != list(range(len(numbers))):
            raise Fault(f"{name}: the log has a gap: {numbers}")
        if lines is not None and len(numbers) != lines:
            raise Fault(f"{name}: the log has {len(numbers)} lines of {lines}")

    def _stream(self, name: str, path: str, id: str, since: float) -> None:
        """Follow a log to its end, or to that of the engine."""
        campaign, generation = self.campaign, self.campaign.generation
        campaign.note(f"client {self.number} logs -f {name}")
        connection = UnixConnection(str(self.target.engine.socket), LIMIT)
        try:
            connection.request("GET", path)
            data = connection.getresponse().read()
        except Gone as error:
            if campaign.generation == generation and campaign.served.is_set():
                raise Fault(f"logs -f {name}: {error!r}") from error
            raise EngineEnded(path) from error
        except TimeoutError as error:
            raise Fault(f"logs -f {name} does not end") from error
        finally:
            connection.close()
        campaign.done["logs -f"] += 1
        if campaign.generation == generation:
            self._counted(name, data, None)

    def _long(self, name: str) -> None:
        """A container that runs, and some of what a client does with it."""
        since = time.monotonic()
        id = self.create(name, "trap 'exit 0' TERM; cat & while :; do sleep 0.05; done")
        try:
            if not self.start(name, id, since):
                return
            actions = (self._exec, self._pause, self._cp, self._commit, self._network, self._stop)
            for action in self.random.choices(actions, k=self.random.randrange(1, 5)):
                if self.campaign.touched(id, since):
                    return
                try:
                    action(name)
                except Fault:
                    if not self.campaign.touched(id, since):
                        raise
                    return
        finally:
            self.remove(name)

    def _exec(self, name: str) -> None:
        body = {"Cmd": ["sh", "-c", "echo in; exit 3"], "AttachStdout": True}
        path, generation = f"/containers/{name}/exec", self.campaign.generation
        made = self.ask("exec", "POST", path, body, 201).json()["Id"]
        start = f"/exec/{made}/start"
        output = self.ask("exec", "POST", start, {"Detach": False}, 200, 404).body
        reply = self.ask("exec", "GET", f"/exec/{made}/json", None, 200, 404)
        if self.campaign.generation != generation:
            return  # as with dockerd, the output ends; the next engine does not know the process
        if b"in\n" not in output:
            raise Fault(f"exec in {name} printed {output!r}")
        status = reply.json().get("ExitCode")
        if status != 3:
            raise Fault(f"exec in {name} ended with 3, and the record says {status}")

    def _pause(self, name: str) -> None:
        self.ask("pause", "POST", f"/containers/{name}/pause", None, 204)
        time.sleep(self.random.uniform(0, 0.05))
        self.until_done(
            lambda: self.ask("unpause", "POST", f"/containers/{name}/unpause", None, 204, 409, 500)
        )
        if self.inspect(name)["State"]["Paused"]:
            raise Fault(f"{name} stays paused")

    def _cp(self, name: str) -> None:
        content = os.urandom(self.random.randrange(1, 50_000))
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("copied")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        kind = {"Content-Type": "application/x-tar"}
        path = f"/containers/{name}/archive?path=/tmp"
        self.ask("cp", "PUT", path, buffer.getvalue(), 200, headers=kind)
        data = self.ask("cp", "GET", f"{path}/copied", None, 200).body
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            file = tar.extractfile("copied")
            if file is None or file.read() != content:
                raise Fault(f"a file that was copied to {name} is not whole")

    def _commit(self, name: str) -> None:
        image = f"{name}-image"
        try:
            self.ask("commit", "POST", f"/commit?container={name}&repo={image}", {}, 201)
            self._whole(image)
        finally:
            self._remove_image(image)

    def _network(self, name: str) -> None:
        network = f"{name}-net"
        self.until_done(
            lambda: self.ask("network", "POST", "/networks/create", {"Name": network}, 201, 409)
        )
        try:
            body = {"Container": name}
            self.ask("network", "POST", f"/networks/{network}/connect", body, 200)
            if network not in self.inspect(name)["NetworkSettings"]["Networks"]:
                raise Fault(f"{name} is connected to {network}, and not on it")
        finally:
            body = {"Container": name, "Force": True}
            path = f"/networks/{network}"
            self.until_done(
                lambda: self.ask("network", "POST", f"{path}/disconnect", body, 200, 403, 404, 500)
            )
            self.until_done(lambda: self.ask("network", "DELETE", path, None, 204, 404))

    def _stop(self, name: str) -> None:
        path = f"/containers/{name}"
        self.until_done(lambda: self.ask("stop", "POST", f"{path}/stop?t=5", None, 204, 304))
        if self.inspect(name)["State"]["Running"]:
            raise Fault(f"{name} is stopped, and runs")
        self.ask("start", "POST", f"{path}/start", None, 204, 304)

    def _restarted(self, name: str) -> None:
        """A container with a restart policy, removed at any moment of its restarts."""
        since = time.monotonic()
        id = self.create(name, "sleep 0.1; exit 5", RestartPolicy={"Name": "always"})
        try:
            if self.start(name, id, since):
                time.sleep(self.random.uniform(0, 1))
                self.inspect(name)
        finally:
            self.remove(name)

    def _image(self, name: str) -> None:
        """An image that is built, or pulled."""
        if self.random.random() < 0.5:
            repository, _, tag = self.campaign.image.rpartition(":")
            path = f"/images/create?fromImage={repository}&tag={tag}"
            reply = self.until_done(lambda: self.ask("pull", "POST", path, None, 200))
            if b'"error"' in reply.body:
                raise Fault(f"pull: {reply.body[-400:]!r}")
            self._whole(self.campaign.image)
            return
        since = time.monotonic()
        content = {"Dockerfile": f"FROM busybox\nCOPY file /\nRUN echo {name} > /made\n"}
        body = builds.context({**content, "file": name})
        kind = {"Content-Type": "application/x-tar"}
        try:
            path = f"/build?t={name}"
            reply = self.until_done(
                lambda: self.ask("build", "POST", path, body, 200, headers=kind)
            )
            if b'"error"' in reply.body:
                if any(moment >= since for moment in self.campaign.container_kills):
                    return  # perhaps of the container of a step
                raise Fault(f"build: {reply.body[-400:]!r}")
            self._whole(name)
        finally:
            self._remove_image(name)
            if self.random.random() < 0.3:
                path = "/build/prune?all=1"
                self.until_done(lambda: self.ask("prune", "POST", path, None, 200))

    def _whole(self, image: str) -> None:
        path = f"/jaula/images/verify?names={image}"
        reply = self.until_done(lambda: self.ask("verify", "GET", path, None, 200))
        for line in reply.body.decode().splitlines():
            document = json.loads(line)
            if document.get("Damages") or document.get("error"):
                raise Fault(f"{image} is damaged: {document}")

    def _remove_image(self, image: str) -> None:
        path = f"/images/{image}?force=1"
        self.until_done(lambda: self.ask("rmi", "DELETE", path, None, 200, 404))
