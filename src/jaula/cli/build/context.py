"""What ``jaula build`` builds from: a directory, standard input or an address; and its Dockerfile.

Follows docker's reference pages ``docker buildx build`` and 'Build context': ``-`` is a Dockerfile
or a tar on standard input; ``-f -`` a Dockerfile there, beside a context; a Dockerfile may lie
outside of the context, and has an ignore file of its own name beside it. An address is fetched by
the engine.

A Dockerfile that is not in its context is sent under a name of its own, with an ignore file of
that name that takes both away again: nothing can be copied that was not there.
"""

from __future__ import annotations

import os
import sys

from jaula.cli.errors import CliError
from jaula.images.build import dockerignore
from jaula.images.build.dockerignore import Dockerignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.storage.tar.writer import Sink

_NAMES = ("Dockerfile", "dockerfile")
_REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
_HEAD = 512  # bytes of a tar's first header
_PIECE = 1 << 18
_LIMIT = 4 << 20  # bytes of a Dockerfile
_OUTSIDE = ".dockerfile-of-the-client"


class Context:
    """One context: ``remote`` and ``dockerfile`` as in the API, ``send`` writes the tar."""

    remote = ""
    dockerfile = ""
    renamed = ("", "")
    """The name under which a Dockerfile is sent, and the one under which a person knows it."""

    def send(self, sink: Sink) -> None:
        """Write the tar that is sent. Nothing where the engine fetches the context."""

    def with_original_name(self, text: str) -> str:
        """What the engine says, with the Dockerfile's name as a person knows it."""
        ours, theirs = self.renamed
        return text.replace(ours, theirs) if ours else text


class Remote(Context):
    """An address."""

    def __init__(self, address: str, dockerfile: str) -> None:
        self.remote = address
        self.dockerfile = dockerfile


class Stream(Context):
    """A tar that was begun to be read from standard input."""

    def __init__(self, head: bytes, dockerfile: str) -> None:
        self._head = head
        self.dockerfile = dockerfile

    def send(self, sink: Sink) -> None:
        sink(self._head)
        while piece := os.read(0, _PIECE):
            sink(piece)


class DockerfileOnly(Context):
    """A Dockerfile, and nothing that could be copied."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.dockerfile = _OUTSIDE
        self.renamed = (_OUTSIDE, "Dockerfile")

    def send(self, sink: Sink) -> None:
        from jaula.cli.build.context_tar import ContextTar

        packing = ContextTar(sink)
        _outside(packing.text, self._text)
        packing.finish()


class Directory(Context):
    """A directory; ``text`` is a Dockerfile that is not in it, else ``dockerfile`` is its path."""

    def __init__(
        self, path: str, dockerfile: str, text: bytes | None, ignore: Dockerignore | None
    ) -> None:
        self.path = path
        self.dockerfile = dockerfile if text is None else _OUTSIDE
        if text is not None:
            self.renamed = (_OUTSIDE, dockerfile)
        self._text = text
        if ignore is not None and text is None:
            ignore = ignore.keeping(dockerfile, *dockerignore.files(dockerfile))
        self._ignore = ignore

    def send(self, sink: Sink) -> None:
        from jaula.cli.build.context_tar import ContextTar as ContextTarContextTar

        packing = ContextTarContextTar(sink, self._ignore)
        packing.directory(self.path)
        if self._text is not None:
            _outside(packing.text, self._text)
        packing.finish()


def resolve(word: str, file: str) -> Context:
    """The context that ``word`` names; ``file`` is ``--file``. Raises Failure."""
    if word == "-":
        if file == "-":
            raise CliError(
                "invalid argument: can't use stdin for both build context and Dockerfile"
            )
        return _of_stdin(file)
    if os.path.isdir(word):
        return _of_directory(word, file)
    if word.startswith(_REMOTE):
        if file == "-":
            raise CliError("a Dockerfile on standard input needs a directory beside it")
        return Remote(word, file)
    raise CliError(f'unable to prepare context: path "{word}" not found')


def named_context(path: str) -> Context:
    """A directory that is a context beside the build's own."""
    return Directory(path, _NAMES[0], None, _ignore_file(path, _NAMES[0]))


def _of_stdin(file: str) -> Context:
    if sys.stdin is not None and sys.stdin.isatty():
        raise CliError("a Dockerfile or a tar is wanted on standard input, which is a terminal")
    head = b""
    while len(head) < _HEAD and (piece := os.read(0, _HEAD - len(head))):
        head += piece
    if head.startswith(_MAGIC) or head[257:262] == b"ustar" or _is_old_tar(head):
        return Stream(head, file)
    if file:
        raise CliError("--file names a file of a context, and a Dockerfile alone has none")
    return DockerfileOnly(_rest(head))


def _is_old_tar(head: bytes) -> bool:
    """A header of before POSIX, known by its sum alone."""
    if len(head) < _HEAD:
        return False
    try:
        stated = int(head[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return sum(head) - sum(head[148:156]) + 8 * 32 == stated


def _rest(head: bytes) -> bytes:
    while piece := os.read(0, _PIECE):
        head += piece
        if len(head) > _LIMIT:
            raise CliError(f"the Dockerfile on standard input has more than {_LIMIT} bytes")
    if not head.strip():
        raise CliError("the Dockerfile (standard input) cannot be empty")
    return head


def _of_directory(path: str, file: str) -> Directory:
    if file == "-":
        return Directory(path, _NAMES[0], _rest(b""), _ignore_file(path, _NAMES[0]))
    if not file:
        there = next((n for n in _NAMES if os.path.lexists(os.path.join(path, n))), _NAMES[0])
        file = os.path.join(path, there)
    inside = os.path.relpath(os.path.realpath(os.path.dirname(file)), os.path.realpath(path))
    name = os.path.normpath(os.path.join(inside, os.path.basename(file)))
    if not os.path.exists(file):
        raise CliError(
            f"unable to prepare context: unable to read the Dockerfile {file}: not found"
        )
    if os.path.isdir(file):
        raise CliError(f"the Dockerfile {file} is a directory")
    if name.startswith("../") or not _is_in(file, path):
        with open(file, "rb") as held:
            text = held.read(_LIMIT + 1)
        if len(text) > _LIMIT:
            raise CliError(f"the Dockerfile {file} has more than {_LIMIT} bytes")
        return Directory(path, file, text, _ignore_file(path, file))
    return Directory(path, name, None, _ignore_file(path, name))


def _is_in(file: str, path: str) -> bool:
    """Whether a Dockerfile that may be a link leads to a file of the context."""
    top = os.path.realpath(path)
    return top == "/" or os.path.realpath(file).startswith(top + "/")


def _ignore_file(path: str, dockerfile: str) -> Dockerignore | None:
    """What stays out: by the ignore file beside the Dockerfile, or the context's."""
    from jaula.errors import InvalidRequest

    for name in dockerignore.files(dockerfile):
        place = os.path.join(path, name)
        try:
            with open(place, encoding="utf-8", errors="surrogateescape") as file:
                return Dockerignore.read(file.read())
        except FileNotFoundError:
            continue
        except IsADirectoryError:
            raise CliError(f"{place} is a directory") from None
        except InvalidRequest as error:
            raise CliError(f"{place}: {error}") from None
    return None


def _outside(write: Callable[[str, bytes], None], text: bytes) -> None:
    names = (_OUTSIDE, _OUTSIDE + dockerignore.NAME)
    write(names[0], text)
    write(names[1], "".join(f"{name}\n" for name in names).encode())
