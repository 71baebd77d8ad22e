"""``--secret``, ``--ssh`` and ``--build-context``: resources of the client that a build may use.

Follows docker's reference page ``docker buildx build``. The source of a secret is checked before
the build, and read when a step requests it.
"""

from __future__ import annotations

import os
import stat

from jaula.cli.cli_errors import CliError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_AGENT = "SSH_AUTH_SOCK"


def parse_fields(word: str, flag: str, valid_keys: Iterable[str]) -> dict[str, str]:
    """Parse ``key=value,key=value`` with CSV quoting.

    :raises UsageError: when a field or key is invalid.
    """
    import csv

    values: dict[str, str] = {}
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
        if key not in valid_keys:
            raise UsageError(
                f'invalid argument "{word}" for "--{flag}" flag: unexpected key \'{key}\' in '
                f"'{part}'"
            )
        values[key] = value
    return values


def parse_secrets(words: Iterable[str]) -> dict[str, Callable[[], bytes]]:
    """Return functions that read the secrets, by id.

    :raises UsageError: when a flag is invalid.
    :raises CliError: when the file or the variable does not exist.
    """
    secrets: dict[str, Callable[[], bytes]] = {}
    for word in words:
        values = parse_fields(word, "secret", ("type", "id", "src", "source", "env"))
        source = values.get("src") or values.get("source") or ""
        variable, kind = values.get("env", ""), values.get("type", "")
        id = values.get("id") or os.path.basename(source) or variable
        if not id or kind not in ("", "file", "env") or (source and variable):
            raise UsageError(
                f'invalid argument "{word}" for "--secret" flag: '
                "must be id=NAME with src=FILE or env=VARIABLE"
            )
        if kind == "env" or (not kind and not source and (variable or id in os.environ)):
            name = variable or source or id
            if name not in os.environ:
                raise CliError(f"secret {id}: the environment variable {name} is not set")
            secrets[id] = os.environ[name].encode("utf-8", "surrogateescape").__bytes__
        else:
            secrets[id] = _file(id, os.path.expanduser(source or id))
    return secrets


def _file(id: str, path: str) -> Callable[[], bytes]:
    from jaula.features.build.session_protocol import SECRET_LIMIT

    try:
        size = os.stat(path).st_size
    except OSError as error:
        raise CliError(f"secret {id}: {path}: {(error.strerror or '').lower()}") from None
    if size > SECRET_LIMIT:
        raise CliError(f"secret {id}: {path} has {size} bytes, the limit is {SECRET_LIMIT}")

    def read() -> bytes:
        with open(path, "rb") as file:
            return file.read(SECRET_LIMIT + 1)

    return read


class SshAgents:
    """Sockets of ssh agents by id, used as a context manager.

    For keys from files the client starts an agent of its own.
    """

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
                raise CliError(f"--ssh {id}: no ssh agent: {_AGENT} is not set")
            paths = [socket]
        keys = [path for path in paths if not self._is_socket(id, path)]
        if not keys:
            if len(paths) > 1:
                raise CliError(f"--ssh {id}: must be one socket, or files with keys")
            self.sockets[id] = paths[0]
        elif len(keys) < len(paths):
            raise CliError(f"--ssh {id}: must be one socket, or files with keys")
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
        """Start an agent with ``keys`` and return its socket. It ends with the build."""
        import re
        import subprocess

        try:
            output = subprocess.run(
                ["ssh-agent", "-s"], check=True, capture_output=True, text=True
            ).stdout
            variables = dict(re.findall(r"(SSH_[A-Z_]+)=([^;]+);", output))
            self._started.append(int(variables["SSH_AGENT_PID"]))
            subprocess.run(
                ["ssh-add", "-q", *keys],
                check=True,
                env={**os.environ, _AGENT: variables[_AGENT], "SSH_ASKPASS_REQUIRE": "never"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError as error:
            raise CliError(f"--ssh {id}: {error.filename} is not installed") from None
        except subprocess.CalledProcessError as error:
            raise CliError(f"--ssh {id}: {(error.stderr or '').strip()}") from None
        return str(variables[_AGENT])


def parse_contexts(words: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the named contexts: those that the engine fetches, and local directories.

    :raises UsageError: when a flag is invalid.
    :raises CliError: when a directory does not exist.
    """
    remote: dict[str, str] = {}
    local: dict[str, str] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if not name or not equals or not source:
            raise UsageError(
                f'invalid argument "{word}" for "--build-context" flag: must be NAME=VALUE'
            )
        if "://" in source or source.startswith("git@"):
            remote[name.lower()] = source
        elif os.path.isdir(source):
            local[name.lower()] = source
        else:
            raise CliError(f"--build-context {name}: the directory {source} does not exist")
    return remote, local
