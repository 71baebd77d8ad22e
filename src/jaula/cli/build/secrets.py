"""``--secret``, ``--ssh`` and ``--build-context``: what the command line lets a build have.

Follows docker's reference page ``docker buildx build``. What a secret is read from is looked at
before the build begins, and read when a step asks for it.
"""

from __future__ import annotations

import os
import stat

from jaula.cli.errors import CliError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_AGENT = "SSH_AUTH_SOCK"


def parse_fields(word: str, flag: str, known: Iterable[str]) -> dict[str, str]:
    """``key=value,key=value`` as a dictionary, quotes as in CSV. Raises UsageError."""
    import csv

    found: dict[str, str] = {}
    try:
        row = next(csv.reader([word], strict=True), [])
    except csv.Error as error:
        raise UsageError(f'invalid argument "{word}" for "--{flag}" flag: {error}') from None
    for part in row:
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(
                f'invalid argument "{word}" for "--{flag}" flag: invalid field \'{part}\' must be '
                "a key=value pair"
            )
        if key not in known:
            raise UsageError(
                f'invalid argument "{word}" for "--{flag}" flag: unexpected key \'{key}\' in '
                f"'{part}'"
            )
        found[key] = value
    return found


def parse_secrets(words: Iterable[str]) -> dict[str, Callable[[], bytes]]:
    """Secrets by id, each to be read. Raises UsageError, and Failure for what is not there."""
    found: dict[str, Callable[[], bytes]] = {}
    for word in words:
        given = parse_fields(word, "secret", ("type", "id", "src", "source", "env"))
        source = given.get("src") or given.get("source") or ""
        variable, kind = given.get("env", ""), given.get("type", "")
        id = given.get("id") or os.path.basename(source) or variable
        if not id or kind not in ("", "file", "env") or (source and variable):
            raise UsageError(
                f'invalid argument "{word}" for "--secret" flag: '
                "id=NAME with src=FILE or env=VARIABLE is wanted"
            )
        if kind == "env" or (not kind and not source and (variable or id in os.environ)):
            name = variable or source or id
            if name not in os.environ:
                raise CliError(f"the secret {id}: there is no variable {name}")
            found[id] = os.environ[name].encode("utf-8", "surrogateescape").__bytes__
        else:
            found[id] = _file(id, os.path.expanduser(source or id))
    return found


def _file(id: str, path: str) -> Callable[[], bytes]:
    from jaula.spec.build_session import SECRET_LIMIT

    try:
        size = os.stat(path).st_size
    except OSError as error:
        raise CliError(f"the secret {id}: {path}: {(error.strerror or '').lower()}") from None
    if size > SECRET_LIMIT:
        raise CliError(f"the secret {id}: {path} has {size} bytes, {SECRET_LIMIT} at most")

    def read() -> bytes:
        with open(path, "rb") as file:
            return file.read(SECRET_LIMIT + 1)

    return read


class SshAgents:
    """A context: sockets of ssh agents by id. An agent that holds keys from files is our own."""

    def __init__(self, words: Iterable[str]) -> None:
        self.sockets: dict[str, str] = {}
        self._keys: dict[str, list[str]] = {}
        self._started: list[int] = []
        for word in words:
            id, _, paths = word.partition("=")
            self._add(id or "default", [path for path in paths.split(",") if path])

    def _add(self, id: str, paths: list[str]) -> None:
        if not paths:
            socket = os.environ.get(_AGENT, "")
            if not socket:
                raise CliError(f"--ssh {id}: there is no ssh agent ({_AGENT} is not set)")
            paths = [socket]
        keys = [path for path in paths if not self._is_socket(id, path)]
        if not keys:
            if len(paths) > 1:
                raise CliError(f"--ssh {id}: one socket, or files with keys")
            self.sockets[id] = paths[0]
        elif len(keys) < len(paths):
            raise CliError(f"--ssh {id}: one socket, or files with keys")
        else:
            self._keys[id] = keys

    @staticmethod
    def _is_socket(id: str, path: str) -> bool:
        try:
            return stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError as error:
            raise CliError(f"--ssh {id}: {path}: {(error.strerror or '').lower()}") from None

    def __enter__(self) -> dict[str, str]:
        try:
            for id, keys in self._keys.items():
                self.sockets[id] = self._start(id, keys)
        except BaseException:
            self.__exit__()
            raise
        return self.sockets

    def __exit__(self, *_: object) -> None:
        while self._started:
            try:
                os.kill(self._started.pop(), 15)
            except ProcessLookupError:
                continue

    def _start(self, id: str, keys: list[str]) -> str:
        """An agent that holds ``keys``; it ends with the build."""
        import re
        import subprocess

        try:
            told = subprocess.run(
                ["ssh-agent", "-s"], check=True, capture_output=True, text=True
            ).stdout
            found = dict(re.findall(r"(SSH_[A-Z_]+)=([^;]+);", told))
            self._started.append(int(found["SSH_AGENT_PID"]))
            subprocess.run(
                ["ssh-add", "-q", *keys],
                check=True,
                env={**os.environ, _AGENT: found[_AGENT], "SSH_ASKPASS_REQUIRE": "never"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError as error:
            raise CliError(f"--ssh {id}: {error.filename} is not installed") from None
        except subprocess.CalledProcessError as error:
            raise CliError(f"--ssh {id}: {(error.stderr or '').strip()}") from None
        return str(found[_AGENT])


def parse_contexts(words: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Named contexts: those that the engine finds itself, and directories of this machine."""
    elsewhere: dict[str, str] = {}
    here: dict[str, str] = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not name or not equals or not place:
            raise UsageError(
                f'invalid argument "{word}" for "--build-context" flag: NAME=VALUE is wanted'
            )
        if "://" in place or place.startswith("git@"):
            elsewhere[name.lower()] = place
        elif os.path.isdir(place):
            here[name.lower()] = place
        else:
            raise CliError(f"--build-context {name}: the directory {place} is not there")
    return elsewhere, here
