"""Builds of an ordinary user's engine: steps, mounts, owners, sources of the client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.rootless import RootlessHost

pytestmark = [pytest.mark.xdist_group("rootless")]

DOCKERFILE = """
FROM busybox AS first
RUN echo one > /one && chown 33:34 /one && chmod 640 /one && rm /etc/nsswitch.conf
FROM busybox
COPY --from=first /one /copied
COPY --chown=5:6 file /owned
USER 33:34
WORKDIR /home/made
RUN --mount=from=first,source=/one,target=/mounted cat /mounted; stat -c %u:%g /mounted /home/made
USER 0
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=target=/ctx,rw \
    touch /c/x /t/x /ctx/x; ls /c /ctx; stat -c %u /c/x
RUN --mount=type=secret,id=s cat /run/secrets/s | wc -c; stat -c %u:%a /run/secrets/s
"""


@pytest.fixture(scope="module")
def host(busybox_archive: Path) -> Iterator[RootlessHost]:
    with RootlessHost() as made:
        made.load(busybox_archive)
        yield made


def test_several_stages_are_built_without_root(host: RootlessHost) -> None:
    place = host.home / "context"
    place.mkdir()
    (place / "Dockerfile").write_text(DOCKERFILE)
    (place / "file").write_text("content\n")
    (place / "secret").write_text("12345")
    words = ("build", "-t", "made:1", "--secret", f"id=s,src={place}/secret", str(place))
    host.run("chown", "-R", f"{host.uid}:{host.uid}", str(place), expect=None)
    first = host.jaula(*words)
    reported = first.stdout + first.stderr
    for line in ("one", "33:34", "5", "0:400"):
        assert any(row.split()[-1] == line for row in reported.splitlines() if row.split()), (
            reported
        )
    look = ("stat", "-c", "%u:%g:%a", "/copied", "/owned")
    assert host.jaula("run", "--rm", "made:1", *look).stdout == "33:34:640\n5:6:644\n"
    again = host.jaula(*words)
    assert (again.stdout + again.stderr).count("CACHED") >= 8


def test_docker_builds_with_buildkit_without_root(host: RootlessHost) -> None:
    place = host.home / "buildkit"
    place.mkdir()
    (place / "Dockerfile").write_text(DOCKERFILE)
    (place / "file").write_text("content\n")
    (place / "secret").write_text("12345")
    os.chown(place, host.uid, host.uid)
    words = ("build", "--progress", "plain", "-t", "kit:1", "--secret", f"id=s,src={place}/secret")
    built = host.docker(*words, str(place))
    assert "naming to docker.io/library/kit:1" in built.stderr, built.stderr
    look = ("stat", "-c", "%u:%g:%a", "/copied", "/owned")
    assert host.docker("run", "--rm", "kit:1", *look).stdout == "33:34:640\n5:6:644\n"
    host.docker(*words, "-o", str(place / "out"), str(place))
    assert (place / "out" / "owned").stat().st_uid == host.uid
