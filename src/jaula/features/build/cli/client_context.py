"""The build context and the Dockerfile: a directory, standard input or a URL.

Follows docker's reference pages ``docker buildx build`` and 'Build context'. ``-`` is a Dockerfile
or a tar on standard input. ``-f -`` is a Dockerfile on standard input with another context. A
Dockerfile may lie outside of the context, and may have an ignore file of its own
(``NAME.dockerignore``). The engine fetches a URL.

A Dockerfile that is not in its context is sent under a reserved name, with an ignore file of that
name which excludes both. So a COPY cannot see files that the context does not have.
"""

from __future__ import annotations

import os
import sys

from jaula.cli.cli_errors import CliError
from jaula.features.build.files import dockerignore
from jaula.features.build.files.dockerignore import Dockerignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.storage.tar.tar_writer import Sink

_NAMES = ("Dockerfile", "dockerfile")
_REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
_HEAD = 512  # bytes of a tar's first header
_CHUNK = 1 << 18  # bytes of one read
_LIMIT = 4 << 20  # bytes of a Dockerfile
_RESERVED_NAME = ".dockerfile-of-the-client"


class Context:
    """A build context. ``remote`` and ``dockerfile`` are the API's parameters."""

    remote = ""
    dockerfile = ""
    renamed = ("", "")
    """The reserved name of the Dockerfile in the tar, and its name on the command line."""

    def send(self, sink: Sink) -> None:
        """Write the tar of the context to ``sink``; nothing if the engine fetches the context."""

    def with_original_name(self, text: str) -> str:
        """Replace the reserved name of the Dockerfile in a message of the engine."""
        reserved, original = self.renamed
        return text.replace(reserved, original) if reserved else text


class Remote(Context):
    """A context that the engine fetches from a URL."""

    def __init__(self, address: str, dockerfile: str) -> None:
        self.remote = address
        self.dockerfile = dockerfile


class Stream(Context):
    """A tar on standard input; ``head`` is the part that was already read."""

    def __init__(self, head: bytes, dockerfile: str) -> None:
        self._head = head
        self.dockerfile = dockerfile

    def send(self, sink: Sink) -> None:
        sink(self._head)
        while chunk := os.read(0, _CHUNK):
            sink(chunk)


class DockerfileOnly(Context):
    """A Dockerfile without a context."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.dockerfile = _RESERVED_NAME
        self.renamed = (_RESERVED_NAME, "Dockerfile")

    def send(self, sink: Sink) -> None:
        from jaula.features.build.cli.context_tar import ContextTar

        archive = ContextTar(sink)
        _write_reserved(archive.text, self._text)
        archive.finish()


class Directory(Context):
    """A directory.

    ``text`` is a Dockerfile outside of it, else ``dockerfile`` is its path inside.
    """

    def __init__(
        self, path: str, dockerfile: str, text: bytes | None, ignore: Dockerignore | None
    ) -> None:
        self.path = path
        self.dockerfile = dockerfile if text is None else _RESERVED_NAME
        if text is not None:
            self.renamed = (_RESERVED_NAME, dockerfile)
        self._text = text
        if ignore is not None and text is None:
            ignore = ignore.keeping(dockerfile, *dockerignore.files(dockerfile))
        self._ignore = ignore

    def send(self, sink: Sink) -> None:
        from jaula.features.build.cli.context_tar import ContextTar

        archive = ContextTar(sink, self._ignore)
        archive.directory(self.path)
        if self._text is not None:
            _write_reserved(archive.text, self._text)
        archive.finish()


def resolve(word: str, file: str) -> Context:
    """Return the context for the argument ``word`` and the value ``file`` of ``--file``.

    :raises CliError: when the context or the Dockerfile does not exist or is invalid.
    """
    if word == "-":
        if file == "-":
            raise CliError(
                "invalid argument: can't use stdin for both build context and Dockerfile"
            )
        return _from_stdin(file)
    if os.path.isdir(word):
        return _from_directory(word, file)
    if word.startswith(_REMOTE):
        if file == "-":
            raise CliError("a Dockerfile on standard input requires a directory as the context")
        return Remote(word, file)
    raise CliError(f'unable to prepare context: path "{word}" not found')


def named_context(path: str) -> Context:
    """Return a directory as an additional context (``--build-context``)."""
    return Directory(path, _NAMES[0], None, _ignore_file(path, _NAMES[0]))


def _from_stdin(file: str) -> Context:
    if sys.stdin is not None and sys.stdin.isatty():
        raise CliError("standard input must be a Dockerfile or a tar archive, and is a terminal")
    head = b""
    while len(head) < _HEAD and (chunk := os.read(0, _HEAD - len(head))):
        head += chunk
    if head.startswith(_MAGIC) or head[257:262] == b"ustar" or _is_old_tar(head):
        return Stream(head, file)
    if file:
        raise CliError("--file requires a context, and standard input is a Dockerfile without one")
    return DockerfileOnly(_read_dockerfile(head))


def _is_old_tar(head: bytes) -> bool:
    """Return whether ``head`` is a pre-POSIX tar header, which only its checksum identifies."""
    if len(head) < _HEAD:
        return False
    try:
        stated = int(head[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return sum(head) - sum(head[148:156]) + 8 * 32 == stated


def _read_dockerfile(head: bytes) -> bytes:
    while chunk := os.read(0, _CHUNK):
        head += chunk
        if len(head) > _LIMIT:
            raise CliError(f"the Dockerfile on standard input has more than {_LIMIT} bytes")
    if not head.strip():
        raise CliError("the Dockerfile (standard input) cannot be empty")
    return head


def _from_directory(path: str, file: str) -> Directory:
    if file == "-":
        return Directory(path, _NAMES[0], _read_dockerfile(b""), _ignore_file(path, _NAMES[0]))
    if not file:
        name_in_context = next(
            (n for n in _NAMES if os.path.lexists(os.path.join(path, n))), _NAMES[0]
        )
        file = os.path.join(path, name_in_context)
    directory = os.path.relpath(os.path.realpath(os.path.dirname(file)), os.path.realpath(path))
    name = os.path.normpath(os.path.join(directory, os.path.basename(file)))
    if not os.path.exists(file):
        raise CliError(
            f"unable to prepare context: unable to read the Dockerfile {file}: not found"
        )
    if os.path.isdir(file):
        raise CliError(f"the Dockerfile {file} is a directory")
    if name.startswith("../") or not _is_inside(file, path):
        with open(file, "rb") as stream:
            text = stream.read(_LIMIT + 1)
        if len(text) > _LIMIT:
            raise CliError(f"the Dockerfile {file} has more than {_LIMIT} bytes")
        return Directory(path, file, text, _ignore_file(path, file))
    return Directory(path, name, None, _ignore_file(path, name))


def _is_inside(file: str, path: str) -> bool:
    """Return whether a Dockerfile, with its symbolic links resolved, is inside the context."""
    top = os.path.realpath(path)
    return top == "/" or os.path.realpath(file).startswith(top + "/")


def _ignore_file(path: str, dockerfile: str) -> Dockerignore | None:
    """Return the ignore file: ``DOCKERFILE.dockerignore``, or ``.dockerignore`` of the context.

    :raises CliError: when it cannot be parsed.
    """
    from jaula.errors import InvalidRequest

    for name in dockerignore.files(dockerfile):
        ignore_path = os.path.join(path, name)
        try:
            with open(ignore_path, encoding="utf-8", errors="surrogateescape") as file:
                return Dockerignore.read(file.read())
        except FileNotFoundError:
            continue
        except IsADirectoryError:
            raise CliError(f"{ignore_path} is a directory") from None
        except InvalidRequest as error:
            raise CliError(f"{ignore_path}: {error}") from None
    return None


def _write_reserved(write: Callable[[str, bytes], None], text: bytes) -> None:
    names = (_RESERVED_NAME, _RESERVED_NAME + dockerignore.NAME)
    write(names[0], text)
    write(names[1], "".join(f"{name}\n" for name in names).encode())
