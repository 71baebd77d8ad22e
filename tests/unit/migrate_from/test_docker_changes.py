"""The files that a container has changed, by docker's API: what is read, and what is left out."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from jaula.errors import NotFound
from jaula.features.migrate_from.docker_changes import ChangedPath, Step, steps, write_changes

MODIFIED, ADDED, DELETED = 0, 1, 2


def changes(*pairs: tuple[str, int]) -> list[ChangedPath]:
    return [ChangedPath(path=path, kind=kind) for path, kind in pairs]


def test_a_new_directory_is_one_step() -> None:
    listed = changes(("/app/new/a/b", ADDED), ("/app", MODIFIED), ("/app/new", ADDED),
                     ("/app/new-er", ADDED), ("/app/new/a", ADDED))  # fmt: skip
    assert steps(listed, ()) == [
        Step("/app"),
        Step("/app/new", is_tree=True),
        Step("/app/new-er", is_tree=True),
    ]


def test_nothing_below_a_mount_point_is_read() -> None:
    listed = changes(("/data", ADDED), ("/data/x", ADDED), ("/srv", ADDED), ("/srv/www", ADDED),
                     ("/srv/own", ADDED))  # fmt: skip
    assert steps(listed, ("/data/", "/srv/www")) == [
        Step("/data"),
        Step("/srv"),
        Step("/srv/own", is_tree=True),
        Step("/srv/www"),
    ]


@pytest.mark.parametrize("path", ["/", "", "relative", "//", "/.."])
def test_a_path_that_is_not_below_the_root_is_left_out(path: str) -> None:
    assert steps(changes((path, ADDED)), ()) == []


class Api:
    """The API of a docker with these files; ``read`` are the requested paths."""

    def __init__(self, listed: list[ChangedPath], files: dict[str, list[tarfile.TarInfo]]) -> None:
        self._listed, self._files = listed, files
        self.read: list[str] = []

    def get(self, path: str, kind: object) -> object:
        assert path == "/containers/id/changes"
        return tuple(self._listed)

    def stream(self, path: str, query: Sequence[tuple[str, str]]) -> Generator[bytes]:
        ((_, name),) = query
        self.read.append(name)
        if name not in self._files:
            raise NotFound("no such path")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for member in self._files[name]:
                archive.addfile(member, io.BytesIO(b"x" * member.size))
        yield buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def test_names_and_hard_links_are_those_in_the_root() -> None:
    files = {
        "/app": [member("app/", tarfile.DIRTYPE, mode=0o700), member("app/old", size=3)],
        "/app/new": [
            member("new/", tarfile.DIRTYPE),
            member("new/f", size=5, uid=7),
            member("new/h", tarfile.LNKTYPE, linkname="new/f"),
            member("new/s", tarfile.SYMTYPE, linkname="../old"),
        ],
        "/app/file": [member("file", size=2)],
    }
    listed = changes(("/app", MODIFIED), ("/app/gone", DELETED), ("/app/new", ADDED),
                     ("/app/file", MODIFIED), ("/app/vanished", ADDED))  # fmt: skip
    api: Any = Api(listed, files)
    buffer = io.BytesIO()
    write_changes(api, "id", (), buffer.write)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        found = {each.name: (each.type, each.linkname, each.size) for each in archive}
    assert found == {
        "app": (tarfile.DIRTYPE, "", 0),
        "app/.wh.gone": (tarfile.REGTYPE, "", 0),
        "app/file": (tarfile.REGTYPE, "", 2),
        "app/new": (tarfile.DIRTYPE, "", 0),
        "app/new/f": (tarfile.REGTYPE, "", 5),
        "app/new/h": (tarfile.LNKTYPE, "app/new/f", 0),
        "app/new/s": (tarfile.SYMTYPE, "../old", 0),
    }
    assert "/app/gone" not in api.read
