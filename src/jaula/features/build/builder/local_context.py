"""The context and the Dockerfile of a client that sends only what the engine asks for.

The Dockerfile and its ignore file come first, and the context when the first step needs it, without
the ignored paths. Each transfer is a step of its own in the client's progress: a message
``{"internal": NAME, "state": ...}``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from jaula.engine.threads import in_thread
from jaula.errors import InvalidRequest, NotFound
from jaula.features.build.files import context_directory, dockerignore
from jaula.images.dockerfile import ast
from jaula.storage.trees import open_directory
from jaula.tasks import awaited_task

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from jaula.features.build.build_options import BuildOptions, LocalDirectories
    from jaula.features.build.builder.build_session import LocalSession, Report
    from jaula.features.build.builder.local_directories import LocalDirectoryStore
    from jaula.features.build.files.context_directory import ContextLocation
    from jaula.images.dockerfile.stage_graph import StageGraph

Document = dict[str, Any]

_UNCLEAR = re.compile(r"[$\\\[\]!\"'\s]|\.\.|\*\*")


class LocalContext:
    """The directories of one client's build. ``directory`` belongs to the build."""

    def __init__(
        self,
        session: LocalSession,
        directories: LocalDirectories,
        directory: Path,
        store: LocalDirectoryStore,
    ) -> None:
        self.session = session
        self.directories = directories
        self.dockerfile: ContextLocation | None = None
        self._directory = directory
        self._store = store
        self._only: tuple[str, ...] = ()
        self._received: list[tuple[str, str]] = []  # names and paths
        self._excluded: tuple[str, ...] | None = None
        self._context: asyncio.Task[str] | None = None

    async def read_dockerfile(self, name: str) -> None:
        """Receive the Dockerfile with its ignore file.

        :raises InvalidRequest: when the client does not have it, or it is not a text file.
        """
        path = self._new_directory("dockerfile")
        names = [name] if name else list(context_directory.NAMES)
        if name.rpartition("/")[2] == context_directory.NAMES[0]:
            names.append(name[: -len(context_directory.NAMES[0])] + context_directory.NAMES[1])
        only = (*names, *(dockerignore.files(text)[0] for text in names))
        await self.session.receive_files(self.directories.dockerfile, path, only)

        def read() -> tuple[ContextLocation, tuple[str, ...] | None]:
            with open_directory(path) as directory:
                for text in names:
                    try:
                        found = context_directory.dockerfile(directory, text)
                    except NotFound:
                        continue
                    own = dockerignore.files(found.name)[0]
                    return found, context_directory.ignore_patterns(directory, own)
            raise InvalidRequest(
                f"failed to read dockerfile: open {names[0]}: no such file or directory"
            )

        self.dockerfile, self._excluded = await in_thread(read)

    async def read_ignore_file(self) -> int:
        """Receive the ignore file of the context; return the number of its patterns."""
        if self._excluded is None and self.directories.context:
            path = self._new_directory("ignore")
            await self.session.receive_files(self.directories.context, path, (dockerignore.NAME,))

            def read() -> tuple[str, ...]:
                with open_directory(path) as directory:
                    return context_directory.ignore_patterns(directory, dockerignore.NAME) or ()

            self._excluded = await in_thread(read)
        return len(self._excluded or ())

    @property
    def used(self) -> tuple[str, ...]:
        """Return the names of the client's directories that the engine has read."""
        names = {name for name, _ in self._received}
        if self.dockerfile is not None:
            names.add(self.directories.dockerfile)
        return tuple(sorted(names))

    def limit(self, paths: tuple[str, ...]) -> None:
        """Receive only these paths of the context; all without any."""
        self._only = paths

    async def context(self, report: Report) -> str:
        """Return the directory of the context; it is received once."""
        import asyncio

        if self._context is None:
            self._context = awaited_task(self._receive(report))
        return await asyncio.shield(self._context)

    def close(self) -> None:
        """Cancel a transfer."""
        if self._context is not None:
            self._context.cancel()

    async def _receive(self, report: Report) -> str:
        path = self._new_directory("local")
        await self._directory_step(
            "load build context",
            self.directories.context,
            path,
            self._only,
            self._excluded or (),
            report,
        )
        return path

    async def named(self, directory: str, name: str, path: str, report: Report) -> None:
        """Receive the directory of a named context, which may have an ignore file of its own."""
        ignore = self._new_directory(f"ignore-{directory.encode().hex()[:64]}")
        await self.session.receive_files(directory, ignore, (dockerignore.NAME,))

        def read() -> tuple[str, ...]:
            with open_directory(ignore) as root:
                return context_directory.ignore_patterns(root, dockerignore.NAME) or ()

        excluded = await in_thread(read)
        await self._directory_step(f"load from {name}", directory, path, (), excluded, report)

    async def _directory_step(
        self,
        title: str,
        name: str,
        path: str,
        only: tuple[str, ...],
        excluded: tuple[str, ...],
        report: Report,
    ) -> None:
        async def progress(document: Document) -> None:
            await report({"internal": title, "status": f"transferring {name}:", **document})

        session = self.session
        previous = self._store.previous(session.owner, session.shared_key, name)
        await report(started(title))
        try:
            await session.receive_directory(name, path, only, excluded, previous, progress)
        except Exception as error:
            await report(ended(title, str(error)))
            raise
        self._received.append((name, path))
        await report(ended(title))

    def keep(self) -> None:
        """Keep what was received for the next build, when no step uses it any more. Blocks."""
        for name, path in self._received:
            self._store.keep(self.session.owner, self.session.shared_key, name, path)

    def _new_directory(self, name: str) -> str:
        path = self._directory / f"client-{name}"
        path.mkdir(mode=0o755)
        return str(path)


def used_paths(graphs: Iterable[StageGraph]) -> tuple[str, ...]:
    """Return the paths of the context that the stages use; none if they may use all of it. Pure.

    Variables and characters that the client reads in another way make it all.
    """
    paths: set[str] = set()
    for planned in (planned for graph in graphs for planned in graph.stages):
        for instruction in planned.instructions:
            match instruction:
                case ast.Copy(origin="") | ast.Add():
                    paths.update(instruction.sources)
                case ast.Run():
                    bind = ast.MountKind.BIND
                    own = [m for m in instruction.mounts if m.kind is bind and not m.origin]
                    paths.update(mount.source or "." for mount in own)
                case _:
                    continue
    cleaned = {posixpath.normpath("/" + path).lstrip("/") for path in paths if not _is_url(path)}
    if "" in cleaned or any(_UNCLEAR.search(path) for path in paths):
        return ()
    return tuple(sorted(cleaned))


def _is_url(path: str) -> bool:
    return "://" in path or path.startswith("git@")


async def receive_dockerfile(local: LocalContext, options: BuildOptions) -> AsyncIterator[Document]:
    """Receive the Dockerfile and the ignore file, and yield the progress.

    :raises InvalidRequest: when the client does not have the Dockerfile.
    """
    if local.directories.dockerfile:
        name = options.dockerfile or context_directory.NAMES[0]
        title = f"load build definition from {name}"
        yield started(title)
        try:
            await local.read_dockerfile(name)
        except Exception as error:
            yield ended(title, str(error))
            raise
        assert local.dockerfile is not None
        size = len(local.dockerfile.text.encode())
        yield {"internal": title, "status": "transferring dockerfile:", "current": size}
        yield ended(title)
    title = "load .dockerignore"
    yield started(title)
    await local.read_ignore_file()
    yield ended(title)


def started(title: str) -> Document:
    """Return the message that an internal step has begun. Pure."""
    return {"internal": title, "state": "started"}


def ended(title: str, error: str = "") -> Document:
    """Return the message that an internal step has ended. Pure."""
    return {"internal": title, "state": "failed" if error else "done", "error": error}
