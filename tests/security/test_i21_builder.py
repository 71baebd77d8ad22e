"""I21: the builder confines mounts, cache ids, contexts, secrets and keys.

A Dockerfile, its context and its base image are untrusted; the engine that builds them is root. The
canary stands for the host.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import builds
from harness.api_user import ApiUser
from harness.engine import PrivateEngine
from harness.host_mounts import host_mounts

MEMBER, OTHER, GROUP = 54201, 54202, 54210


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    return info


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o666
    info.devmajor, info.devminor = 1, 3
    return info


def unique(word: str) -> str:
    return f"{word}{time.time_ns()}"


# -- mounts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["context", "stage"])
@pytest.mark.parametrize("way", ["{}", "../../../../..{}", "l", "l/secret", "d/../l"])
def test_the_source_of_a_mount_is_resolved_in_its_root(
    engine: PrivateEngine, busybox: str, canary: Path, kind: str, way: str
) -> None:
    """CVE-2024-1753: a link in the image, the source of a mount, led to the host."""
    source = way.format(canary)
    origin = "from=evil," if kind == "stage" else ""
    text = (
        f"FROM {busybox} AS evil\nRUN ln -s {canary} /l && mkdir /d\n"
        f"FROM {busybox}\n"
        f"RUN --mount={origin}source={source},target=/m,rw cat /m/secret /m;"
        " echo > /m/directory/x\n"
    )
    files = {"Dockerfile": text, "l": link("l", str(canary)), "d/x": ""}
    built = builds.build(engine, files, nocache=1)
    assert built.error
    assert "only the host" not in built.text


@pytest.mark.parametrize(
    "options",
    [
        "bind-propagation=shared",
        "bind-propagation=rshared",
        "propagation=shared",
        "type=bind,propagation=rslave",
        "type=devpts",
        "type=bind,exec,suid,dev",
        "type=tmpfs,tmpcopyup",
        "type=cache,Z",
    ],
)
def test_a_mount_has_only_the_options_of_the_dockerfile_syntax(
    engine: PrivateEngine, busybox: str, options: str
) -> None:
    """CVE-2024-9407: propagation requested by a Dockerfile let mounts out of the container."""
    built = builds.build(
        engine, {"Dockerfile": f"FROM {busybox}\nRUN --mount={options},target=/m true\n"}
    )
    assert built.error
    assert not built.image


def test_mounts_are_nodev_nosuid_and_do_not_propagate(engine: PrivateEngine, busybox: str) -> None:
    text = (
        f"FROM {busybox}\nRUN --mount=target=/c --mount=type=cache,target=/k"
        " --mount=type=tmpfs,target=/t grep -E ' /(c|k|t) ' /proc/self/mountinfo\n"
    )
    before = host_mounts(engine.root, engine.run)
    reported = builds.done(engine, {"Dockerfile": text}, nocache=1).text
    lines = [line for line in reported.splitlines() if " - " in line and line[0].isdigit()]
    assert len(lines) == 3
    for line in lines:
        assert "nosuid" in line and "nodev" in line and "shared:" not in line, line
    assert host_mounts(engine.root, engine.run) == before


@pytest.mark.parametrize("place", ["/l/x", "/l/directory", "/l/secret", "/p/1/root/x"])
def test_the_removal_of_mount_points_removes_no_file_of_the_host(
    engine: PrivateEngine, busybox: str, canary: Path, place: str
) -> None:
    """CVE-2024-23652: the removal of mount points followed links out of the image."""
    text = (
        f"FROM {busybox}\nRUN ln -s {canary} /l && ln -s /proc /p\n"
        f"RUN --mount=type=tmpfs,target={place} rm -rf /l; ln -s {canary} /l\n"
    )
    builds.build(engine, {"Dockerfile": text}, nocache=1)  # made or refused: the canary is whole


def test_parallel_steps_cannot_swap_a_mount_of_another(
    engine: PrivateEngine, busybox: str, canary: Path
) -> None:
    """CVE-2024-23651, CVE-2024-11218: a directory shared by two steps was swapped for a link."""
    cache = f"--mount=type=cache,id={unique('swap')},target=/c"
    swap = "for i in $(seq 300); do rm -rf /c/d; ln -s {} /c/d; rm -f /c/d; mkdir /c/d; done"
    text = (
        f"FROM {busybox} AS swapping\nRUN {cache} {swap.format(canary)}\n"
        f"FROM {busybox} AS looking\n"
        f"RUN {cache} for i in $(seq 300); do cat /c/d/secret 2>/dev/null && exit 9; done; true\n"
        f"RUN {cache},source=d cat /c/secret || true\n"
        f"FROM {busybox}\nCOPY --from=swapping /etc/passwd /a\nCOPY --from=looking /etc/passwd /b\n"
    )
    built = builds.build(engine, {"Dockerfile": text}, nocache=1)
    assert "only the host" not in built.text


# -- caches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["../../../../../..{}", "{}", ".", "..", "a/../../b", "a\\nb"])
def test_the_id_of_a_cache_is_not_used_as_a_path(
    engine: PrivateEngine, busybox: str, canary: Path, id: str
) -> None:
    name = id.format(canary)
    text = (
        f"FROM {busybox}\nRUN --mount=type=cache,id={name},target=/m"
        " ls -A /m; touch /m/left; ! cat /m/secret\n"
    )
    built = builds.build(engine, {"Dockerfile": text}, nocache=1)
    assert built.image, built
    assert "secret\n" not in built.text.partition("Running in")[2]
    caches = engine.root / "lib" / "build" / "caches"
    assert all(len(path.name) == 66 for path in caches.iterdir())


@pytest.fixture
def guarded(new_engine: Callable[..., PrivateEngine], tmp_path: Path) -> PrivateEngine:
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[group.{GROUP}]\naccess = "run"\n')
    engine = new_engine("--policy", str(policy))
    engine.run.chmod(0o711)
    engine.socket.chmod(0o666)
    load_image(engine, "busybox")
    return engine


def ask(engine: PrivateEngine, uid: int, files: builds.Files, **parameters: object) -> str:
    """Build as a user and return the whole response of the engine."""
    body = builds.context(files)
    head = (
        f"POST /build?{builds.query(**parameters)} HTTP/1.1\r\nHost: x\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with ApiUser(engine, uid, uid, (GROUP,)).connect() as sock:
        sock.sendall(head.encode() + body)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer.decode()


def test_the_build_cache_of_another_user_is_not_used(guarded: PrivateEngine) -> None:
    """A poisoned step or cache would enter an image of a user with more privileges."""
    text = (
        "FROM busybox\nARG HTTP_PROXY\nRUN date +%N > /made\n"
        "RUN --mount=type=cache,id=common,target=/c ls /c; touch /c/$HTTP_PROXY\n"
    )
    files = {"Dockerfile": text}
    assert "Successfully" in ask(guarded, MEMBER, files, buildargs={"HTTP_PROXY": "poison"})
    again = ask(guarded, MEMBER, files, buildargs={"HTTP_PROXY": "poison"})
    assert again.count("Using cache") >= 2
    other = ask(guarded, OTHER, files, buildargs={"HTTP_PROXY": "poison"})
    assert "Using cache" not in other.replace("Step 2/4 : ARG", "")[other.index("RUN date") :]
    assert "poison\\n" not in other.partition("Running in")[2]
    root = builds.done(guarded, files)
    assert root.text.count("Running in") == 2


# -- rights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "allow"),
    [
        ("RUN --network=host true", ""),
        ("RUN --security=insecure true", ""),
        ("RUN --network=host true", "network.host"),
        ("RUN --security=insecure true", "security.insecure"),
    ],
)
def test_a_dockerfile_gets_only_the_privileges_of_its_user(
    guarded: PrivateEngine, line: str, allow: str
) -> None:
    """CVE-2024-23653: steps ran privileged without authorization."""
    reported = ask(guarded, MEMBER, {"Dockerfile": f"FROM busybox\n{line}\n"}, allow=allow)
    assert "Successfully" not in reported
    assert "not allowed" in reported if not allow else "may not ask for" in reported


@pytest.mark.parametrize(
    "parameters",
    [
        {"networkmode": "host"},
        {"networkmode": "container:x"},
        {"cgroupparent": "/x"},
        {"securityopt": ["seccomp=unconfined"]},
        {"securityopt": ["label=disable"]},
    ],
)
def test_options_of_a_build_are_authorized_like_those_of_a_container(
    guarded: PrivateEngine, parameters: dict[str, object]
) -> None:
    reported = ask(guarded, MEMBER, {"Dockerfile": "FROM busybox\nRUN true\n"}, **parameters)
    assert "Running in" not in reported or "No such container: x" in reported
    assert "Successfully" not in reported


def test_a_build_uses_no_network_of_another_user(guarded: PrivateEngine) -> None:
    made = guarded.request("POST", "/networks/create", {"Name": "of-root"})
    assert made.status == 201, made
    try:
        files = {"Dockerfile": "FROM busybox\nRUN true\n"}
        reported = ask(guarded, MEMBER, files, networkmode="of-root")
        assert "Successfully" not in reported
        assert "Running in" not in reported
        assert "network" in reported
    finally:
        assert guarded.request("DELETE", "/networks/of-root").status == 204


def test_a_step_is_confined_like_a_container(engine: PrivateEngine, busybox: str) -> None:
    text = (
        f"FROM {busybox}\nRUN cat /proc/self/uid_map; grep -E 'Cap(Eff|Bnd)|Seccomp:'"
        " /proc/self/status; ls /dev; ! mount -t tmpfs x /mnt; ! mknod /x b 8 0\n"
    )
    reported = builds.done(engine, {"Dockerfile": text}, nocache=1).text
    values = dict(
        line.split(":", 1) for line in reported.splitlines() if line.startswith(("Cap", "Sec"))
    )
    assert values["Seccomp"].strip() == "2"
    assert int(values["CapEff"], 16) == int(values["CapBnd"], 16) == 0x00000000A80425FB
    first = next(line.split() for line in reported.splitlines() if len(line.split()) == 3)
    assert first[0] == "0" and int(first[1]) > 100_000
    assert not {"sda", "kmsg", "mem"} & set(reported.split())


# -- contexts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "member",
    [
        special("../escaped", tarfile.REGTYPE),
        special("/../../escaped", tarfile.REGTYPE),
        special("device", tarfile.CHRTYPE),
        special("block", tarfile.BLKTYPE),
        special("hard", tarfile.LNKTYPE, "/etc/passwd"),
        special("hard", tarfile.LNKTYPE, "../../../../../../etc/passwd"),
    ],
    ids=lambda member: f"{member.name}-{member.type!r}",
)
def test_a_context_stays_in_its_directory(
    engine: PrivateEngine, busybox: str, member: tarfile.TarInfo
) -> None:
    text = f"FROM {busybox}\nCOPY . /context/\n"
    built = builds.build(engine, {"Dockerfile": text, "x": member}, nocache=1)
    assert builds.nothing_left(engine)
    assert not list(engine.root.glob("**/escaped"))
    if built.image:
        reported = builds.output(
            engine, built.image, "find", "/context", "-type", "c", "-o", "-type", "b"
        )
        assert reported == ""
        assert (
            "root:" not in builds.files_of(engine, built.image).get("/context/hard", b"").decode()
        )


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore"])
def test_no_link_of_the_context_reaches_a_file_of_the_host(
    engine: PrivateEngine, busybox: str, canary: Path, name: str
) -> None:
    files: dict[str, str | tarfile.TarInfo] = {"Dockerfile": f"FROM {busybox}\nCOPY . /c\n"}
    files[name] = link(name, str(canary / "secret"))
    built = builds.build(engine, files)
    assert "only the host" not in json.dumps(built.messages)


@pytest.mark.parametrize(
    "line",
    [
        "COPY l/secret /x",
        "COPY l /x",
        "COPY d/../l/secret /x",
        "COPY l* /x/",
        "ADD l/secret /x",
        "COPY --parents ./l/secret /x/",
    ],
)
def test_a_copy_reads_no_file_of_the_host(
    engine: PrivateEngine, busybox: str, canary: Path, line: str
) -> None:
    files = {"Dockerfile": f"FROM {busybox}\n{line}\n", "l": link("l", str(canary)), "d/x": ""}
    built = builds.build(engine, files, nocache=1)
    if built.image:
        assert b"only the host" not in b"".join(builds.files_of(engine, built.image).values())


@pytest.mark.parametrize(
    "line",
    [
        "COPY f /l/directory/",
        "COPY f /l/secret",
        "COPY --link f /l/secret",
        "COPY d /l",
        "ADD archive.tar /",
        "ADD archive.tar /l/",
        "WORKDIR /l/made",
        "COPY --from=evil /l/secret /x",
    ],
)
def test_a_copy_writes_no_file_of_the_host(
    engine: PrivateEngine, busybox: str, canary: Path, line: str
) -> None:
    """Links of the image are resolved in the image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(link("way", str(canary)))
        info = tarfile.TarInfo("way/secret")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    text = (
        f"FROM {busybox} AS evil\nRUN ln -s {canary} /l\n"
        f"FROM evil\n{line}\nRUN cat /x /l/secret 2>/dev/null || true\n"
    )
    files = {"Dockerfile": text, "f": "evil", "d/secret": "evil", "archive.tar": buffer.getvalue()}
    built = builds.build(engine, files, nocache=1)
    assert "only the host" not in built.text


# -- secrets -----------------------------------------------------------------------------------


def test_a_secret_is_not_in_the_image_cache_or_output(engine: PrivateEngine, busybox: str) -> None:
    secret = os.urandom(12).hex()
    text = (
        f"FROM {busybox}\n"
        "RUN --mount=type=secret,id=s cp /run/secrets/s /tmp/x && rm /tmp/x\n"
        'RUN --mount=type=secret,id=s,env=S test -n "$S"\n'
    )
    with builds.Session(engine, secrets={"s": secret.encode()}) as session:
        built = builds.done(engine, {"Dockerfile": text}, session=session.id, nocache=1)
    reported = json.dumps(built.messages)
    reported += engine.request("GET", f"/images/{built.image}/history").body.decode()
    reported += engine.request("GET", f"/images/{built.image}/json").body.decode()
    reported += engine.request("GET", "/system/df").body.decode()
    assert secret not in reported
    for path in [*engine.root.rglob("*"), *engine.run.rglob("*")]:
        if not path.is_symlink() and path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_the_build_session_of_another_user_cannot_be_used(guarded: PrivateEngine) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n"
    with builds.Session(guarded, secrets={"s": b"of root"}) as session:
        reported = ask(guarded, MEMBER, {"Dockerfile": text}, session=session.id)
    assert "no such session" in reported
    assert not session.asked


# -- what makes no sense --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "RUN --mount=type=cache true",
        "RUN --mount=type=secret,id=,target= true",
        "RUN --mount=type=cache,target=/,id=x true",
        "RUN --mount=type=bind,target=/proc/self/fd true",
        "RUN --mount=type=tmpfs,target=/x,size=-1 true",
        "RUN --mount=type=tmpfs,target=/x,size=99999999999999999999 true",
        "RUN --mount=type=secret,id=x,uid=4294967296,required true",
        "COPY --chown=4294967295:0 f /x",
        "COPY --chmod=77777 f /x",
        "USER 4294967296\nRUN true",
        "WORKDIR /proc/self/fd/3\nRUN true",
        "COPY --from=99999999999999999999 f /x",
        "FROM 99999999999999999999",
        "HEALTHCHECK --interval=99999999999h CMD x",
        "EXPOSE 99999999",
        "STOPSIGNAL SIGNOTHING",
        "ONBUILD ONBUILD RUN x",
    ],
)
def test_an_invalid_request_is_one_error_and_the_engine_continues(
    engine: PrivateEngine, busybox: str, line: str
) -> None:
    """CVE-2024-23650: an unexpected request crashed the engine."""
    built = builds.build(engine, {"Dockerfile": f"FROM {busybox}\n{line}\n", "f": ""}, nocache=1)
    assert built.error and not built.image, built
    assert "internal error" not in built.error
    assert engine.request("GET", "/_ping").status == 200
