"""Images of Debian packages whose profiles are part of the package, each with an exercise.

``scripts/profiles`` records the exercise of each one and writes its profile; a test repeats the
exercise under the profile.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

from harness.engine import PROJECT, PrivateEngine

T = TypeVar("T")
DOCKERFILES = PROJECT / "tests/acceptance/profiles"
PATIENCE = 60.0  # seconds until a service answers
BUILD_TIMEOUT = 900.0  # seconds, with packages from the mirror


class Service:
    """A running container of one of the images."""

    def __init__(self, engine: PrivateEngine, name: str) -> None:
        self._engine = engine
        self.name = name
        form = "{{.NetworkSettings.IPAddress}}"
        self.address = self.jaula("inspect", "-f", form, name).strip()

    def jaula(self, *words: str) -> str:
        """Run the client and return its output."""
        done = self._engine.cli("jaula", *words, timeout=BUILD_TIMEOUT)
        assert done.returncode == 0, (words, done.stderr, self.logs())
        return done.stdout

    def execute(self, *words: str) -> str:
        """Run a program in the container and return its output."""
        return self.jaula("exec", self.name, *words)

    def logs(self) -> str:
        """Return state and end of the log."""
        state = self._engine.cli("jaula", "inspect", "-f", "{{json .State}}", self.name).stdout
        done = self._engine.cli("jaula", "logs", self.name)
        return f"{self.address} {state}{(done.stdout + done.stderr)[-3000:]}"

    def get(self, port: int, path: str = "/") -> str:
        """Return the body of a page, as soon as the container serves it."""
        return until(lambda: self.get_once(port, path), self.logs)

    def get_once(self, port: int, path: str) -> str:
        """Return the body of a page."""
        with urlopen(f"http://{self.address}:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def redis(self, *commands: str) -> list[str]:
        """Return the first line of the answer to each command."""
        with socket.create_connection((self.address, 6379), timeout=5) as connection:
            file = connection.makefile("rwb")
            answers = []
            for command in commands:
                file.write(command.encode() + b"\r\n")
                file.flush()
                answers.append(file.readline().decode().strip())
                if answers[-1].startswith("$") and answers[-1] != "$-1":
                    answers[-1] = file.read(int(answers[-1][1:]) + 2).decode().strip()
            return answers

    def sql(self, statement: str) -> str:
        """Return the rows of a statement, by the program psql in the container."""
        return self.execute("psql", "-X", "-q", "-A", "-t", "-c", statement).strip()


def until(action: Callable[[], T], logs: Callable[[], str]) -> T:
    """Repeat an action until it does not fail, and return its result."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError, AssertionError):
            return action()
        time.sleep(0.2)
    raise AssertionError(f"no answer in {PATIENCE} seconds: {logs()}")


def pages(service: Service, port: int, suffix: str = ".html") -> None:
    """Get the pages of an image, and one that is absent."""
    for number in range(8):
        assert service.get(port, f"/{number}{suffix}") == f"served {number}\n"
    with suppress(OSError):  # 404
        service.get_once(port, "/absent")


def nginx(service: Service) -> None:
    pages(service, 80)
    service.execute("nginx", "-t")
    service.execute("nginx", "-s", "reload")
    time.sleep(0.5)
    pages(service, 80)


def redis(service: Service) -> None:
    assert until(lambda: service.redis("PING"), service.logs) == ["+PONG"]
    assert service.redis("SET a 1", "GET a", "INCR a", "EXPIRE a 100", "SAVE") == [
        "+OK", "1", ":2", ":1", "+OK",
    ]  # fmt: skip
    assert service.redis("BGSAVE") == ["+Background saving started"]
    until(lambda: _check(service.redis("SAVE") == ["+OK"]), service.logs)
    assert service.redis("BGREWRITEAOF")[0].startswith("+Background")
    time.sleep(1.0)
    assert service.execute("redis-cli", "GET", "a") == "2\n"


def postgresql(service: Service) -> None:
    until(lambda: service.sql("select 1"), service.logs)
    service.sql("create table items (id serial primary key, name text)")
    service.sql("insert into items (name) select 'item ' || n from generate_series(1, 20000) n")
    service.sql("create index on items (name)")
    assert service.sql("select count(*) from items where name like 'item 1%'") == "11111"
    service.sql("select * from items order by md5(name)")
    assert service.sql("select pg_reload_conf()") == "t"
    service.sql("checkpoint")
    service.sql("vacuum full analyze items")
    service.sql("drop table items")
    with socket.create_connection((service.address, 5432), timeout=5) as connection:
        connection.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))  # SSLRequest
        assert connection.recv(1) in (b"N", b"S")


def python(service: Service) -> None:
    pages(service, 8000)
    assert "0.html" in service.get(8000)


def node(service: Service) -> None:
    pages(service, 3000, "")


def busybox(service: Service) -> None:
    pages(service, 80)


def _check(condition: bool) -> None:
    assert condition


EXERCISES: dict[str, Callable[[Service], None]] = {
    "busybox": busybox,
    "nginx": nginx,
    "node": node,
    "postgresql": postgresql,
    "python": python,
    "redis": redis,
}


def build(engine: PrivateEngine, name: str) -> str:
    """Build one of the images, whose base image is loaded, and return its name."""
    image = f"profiles/{name}"
    context: Path = DOCKERFILES / name
    done = engine.cli("jaula", "build", "-q", "-t", image, str(context), timeout=BUILD_TIMEOUT)
    assert done.returncode == 0, done.stderr[-6000:]
    return image
