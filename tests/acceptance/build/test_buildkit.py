"""Builds over BuildKit's protocol with its own clients: docker build, buildx, bake, compose."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from harness import git_server
from harness.containers import unique
from harness.engine import PrivateEngine
from harness.registry import PASSWORD, USER, Registry, basic_auth

PLUGIN = "/usr/libexec/docker/cli-plugins/docker-buildx"
pytestmark = [
    pytest.mark.client(name="buildx"),
    pytest.mark.needs(PLUGIN),
    pytest.mark.timeout(240),
]

Docker = Callable[..., "CompletedProcess[str]"]


def environment(engine: PrivateEngine, **more: str) -> dict[str, str]:
    variables = engine.environment() | more
    del variables["DOCKER_BUILDKIT"]
    return variables


@pytest.fixture
def docker(engine: PrivateEngine) -> Docker:
    """Run the docker command with its defaults: builds use BuildKit."""

    def run(*words: str, **options: object) -> CompletedProcess[str]:
        variables = environment(engine, **options.pop("env", {}))  # type: ignore[arg-type]
        return engine.cli("docker", *words, env=variables, timeout=120, **options)

    return run


@pytest.fixture
def name(engine: PrivateEngine) -> Iterator[str]:
    chosen = unique("kit")
    yield f"{chosen}:1"
    engine.request("DELETE", f"/images/{chosen}:1?force=1")


def build(docker: Docker, *words: str, **options: object) -> str:
    """Build, and return the progress."""
    done = docker("build", "--progress", "plain", *words, **options)
    assert done.returncode == 0, done.stderr
    return done.stderr


def write(place: Path, dockerfile: str, **files: str) -> Path:
    place.mkdir(exist_ok=True)
    (place / "Dockerfile").write_text(dockerfile)
    for file, text in files.items():
        (place / file).write_text(text)
    return place


def test_a_plain_docker_build_shows_its_steps_and_makes_the_image(
    docker: Docker, busybox: str, tmp_path: Path, name: str
) -> None:
    place = write(
        tmp_path / "context",
        f"FROM {busybox} AS first\nRUN echo one > /one\nFROM {busybox}\nARG WHO\nENV A=b\n"
        "RUN echo hello $WHO; echo oops >&2\nCOPY --from=first /one /\nCOPY . /all\n",
        file="content\n",
        secret="not for the image\n",
    )
    (place / ".dockerignore").write_text("secret\n")
    words = ("-t", name, "--build-arg", "WHO=you", "--label", "made=kit", str(place))
    iid, metadata = tmp_path / "iid", tmp_path / "metadata"
    text = build(docker, "--iidfile", str(iid), "--metadata-file", str(metadata), *words)
    assert "[internal] load build definition from Dockerfile" in text
    assert re.search(r"\[first 2/2\] RUN echo one > /one", text)
    assert re.search(r"\[stage-1 2/4\] RUN echo hello \$WHO", text), text  # ENV is not a step
    assert "hello you" in text and "oops" in text
    assert f"naming to docker.io/library/{name}" in text
    inspected = json.loads(docker("inspect", name).stdout)[0]
    assert inspected["Config"]["Labels"]["made"] == "kit"
    assert iid.read_text() == inspected["Id"]
    assert json.loads(metadata.read_text())["containerimage.config.digest"] == inspected["Id"]
    listed = docker("run", "--rm", name, "ls", "-A", "/all", "/one").stdout.split()
    assert "file" in listed and "secret" not in listed and "/one" in listed
    assert build(docker, *words).count("CACHED") == 4
    assert build(docker, "--no-cache-filter", "first", *words).count("CACHED") == 3
    assert docker("build", "-q", *words).stdout.strip() == inspected["Id"]


def test_a_failed_step_shows_its_log_and_its_place(
    docker: Docker, busybox: str, tmp_path: Path
) -> None:
    place = write(tmp_path, f"FROM {busybox}\nENV A=b\nRUN echo before; exit 9\nRUN true\n")
    failed = docker("build", "--progress", "plain", str(place))
    assert failed.returncode == 1
    assert "#5 ERROR" in failed.stderr and "before" in failed.stderr
    assert "   3 | >>> RUN echo before; exit 9" in failed.stderr
    assert failed.stderr.rstrip().endswith(
        'ERROR: failed to solve: process "/bin/sh -c echo before; exit 9" did not complete '
        "successfully: exit code: 9"
    )
    write(tmp_path, f"FROM {busybox}\nRUNN x\n")
    assert "Dockerfile:2: unknown instruction: RUNN" in docker("build", str(place)).stderr
    write(tmp_path, f"FROM {busybox}\n")
    assert "target stage" in docker("build", "--target", "no", str(place)).stderr
    assert "no such file" in docker("build", "-f", str(place / "no"), str(place)).stderr


def test_the_command_is_stored_as_by_buildkit(
    docker: Docker, busybox: str, tmp_path: Path, name: str
) -> None:
    for lines, command in (("CMD []", None), ("CMD", ["/bin/sh", "-c", ""]), ("CMD a", None)):
        build(docker, "-t", name, str(write(tmp_path, f"FROM {busybox}\n{lines}\n")))
        config = json.loads(docker("inspect", name).stdout)[0]["Config"]
        assert config["ArgsEscaped"] is True
        assert config["Cmd"] == (command if lines != "CMD a" else ["/bin/sh", "-c", "a"])
    build(docker, "-t", name, str(write(tmp_path, "FROM scratch\nCMD []\n")))
    assert json.loads(docker("inspect", name).stdout)[0]["Config"]["WorkingDir"] == "/"


def test_targets_and_parameters_are_printed_without_a_build(
    docker: Docker, busybox: str, tmp_path: Path
) -> None:
    place = write(
        tmp_path,
        f"# tool makes it\nFROM {busybox} AS tool\n# WHO is greeted\nARG WHO=you\nFROM tool\n"
        "RUN --mount=type=secret,id=s,required=true exit 1\n",
    )
    experimental = {"BUILDX_EXPERIMENTAL": "1"}

    def printed(what: str) -> str:
        words = ("buildx", "build", f"--print={what}", str(place))
        done = docker(*words, env=experimental)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.search(r"^tool +makes it$", printed("targets"), re.MULTILINE)
    outline = printed("outline")
    assert re.search(r"^WHO +you +is greeted$", outline, re.MULTILINE)
    assert re.search(r"^s +true$", outline, re.MULTILINE)
    assert "outline" in printed("subrequests.describe")


def test_frontends_and_platforms_that_cannot_run_are_refused_by_name(
    docker: Docker, busybox: str, tmp_path: Path
) -> None:
    place = write(tmp_path, f"# syntax=docker/dockerfile:1.7\nFROM {busybox}\n")
    build(docker, str(place))
    write(tmp_path, f"# syntax=example.org/other:2\nFROM {busybox}\n")
    assert "example.org/other:2" in docker("build", str(place)).stderr
    write(tmp_path, f"FROM {busybox}\n")
    argument = ("--build-arg", "BUILDKIT_SYNTAX=example.org/x")
    assert "example.org/x" in docker("build", *argument, str(place)).stderr
    write(
        tmp_path,
        f"FROM --platform=$BUILDPLATFORM {busybox} AS made\nRUN echo $TARGETARCH\n"
        "FROM scratch\nCOPY --from=made /bin/busybox /cross\n",
    )
    cross = ("--platform", "linux/s390x", "-t", "cross:1")
    build(docker, *cross, str(place))
    assert '"s390x"' in docker("inspect", "cross:1").stdout
    docker("rmi", "cross:1")
    write(tmp_path, f"FROM {busybox}\nRUN true\n")
    foreign = docker("build", "--platform", "linux/s390x", str(place)).stderr
    assert "programs for linux/s390x cannot run on this machine" in foreign


def test_warnings_have_their_lines(docker: Docker, busybox: str, tmp_path: Path) -> None:
    place = write(tmp_path, f"FROM {busybox}\nMAINTAINER me\nCMD echo hi\n")
    text = docker("--debug", "build", "--progress", "plain", str(place)).stderr
    assert "MaintainerDeprecated" in text and "(line 2)" in text
    assert "   2 | >>> MAINTAINER me" in text


def test_secrets_and_the_ssh_agent_of_the_client(
    docker: Docker, busybox: str, tmp_path: Path
) -> None:
    place = write(
        tmp_path,
        f"FROM {busybox}\nRUN --mount=type=secret,id=file cat /run/secrets/file\n"
        "RUN --mount=type=secret,id=variable,env=FOO echo foo=$FOO\n"
        "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo agent at $SSH_AUTH_SOCK\n",
    )
    (tmp_path / "value").write_text("top secret")
    secrets = ("--secret", f"id=file,src={tmp_path}/value", "--secret", "id=variable,env=VALUE")
    with agent(tmp_path) as path:
        more = {"VALUE": "from-env", "SSH_AUTH_SOCK": path}
        text = build(docker, *secrets, "--ssh", "default", str(place), env=more)
    assert "top secret" in text and "foo=from-env" in text and "agent at /run/" in text
    write(tmp_path, f"FROM {busybox}\nRUN --mount=type=secret,id=x,required=true true\n")
    assert "secret 'x' is required" in docker("build", str(place)).stderr
    write(tmp_path, f"FROM {busybox}\nRUN --mount=type=ssh,required=true true\n")
    assert "ssh agent 'default' is required" in docker("build", str(place)).stderr


class agent:
    """An ssh agent without keys."""

    def __init__(self, directory: Path) -> None:
        self._path = str(directory / "agent")

    def __enter__(self) -> str:
        command = ["ssh-agent", "-D", "-a", self._path]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not os.path.exists(self._path):
            time.sleep(0.02)
        return self._path

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()


def test_limits_and_modes_of_the_steps(docker: Docker, busybox: str, tmp_path: Path) -> None:
    place = write(
        tmp_path,
        f"FROM {busybox}\nRUN grep made /etc/hosts; ulimit -n; ls /sys/class/net; df -h /dev/shm\n",
    )
    words = ("--add-host", "made.up:1.2.3.4", "--ulimit", "nofile=77:88", "--shm-size", "3m")
    text = build(docker, *words, "--network", "none", str(place))
    assert "1.2.3.4\tmade.up" in text and " 77\n" in text and "3.0M" in text
    assert "eth0" not in text


def test_results_are_sent_to_the_client(docker: Docker, busybox: str, tmp_path: Path) -> None:
    place = write(
        tmp_path / "context",
        f"FROM {busybox} AS made\nRUN mkdir -p /d/e && echo hi > /d/e/f && ln -s f /d/e/l && "
        "ln /d/e/f /d/e/h && chmod 640 /d/e/f && dd if=/dev/zero of=/d/big bs=1M count=3\n"
        "FROM scratch\nCOPY --from=made /d /d\n",
    )
    build(docker, "-o", str(tmp_path / "out"), str(place))
    made = tmp_path / "out" / "d" / "e"
    assert (made / "f").read_text() == "hi\n" and (made / "l").readlink() == Path("f")
    assert (made / "f").stat().st_mode & 0o777 == 0o640
    assert (made / "f").stat().st_ino == (made / "h").stat().st_ino
    assert (tmp_path / "out" / "d" / "big").stat().st_size == 3 << 20
    for kind, member in (("tar", "d/e/f"), ("oci", "index.json"), ("docker", "manifest.json")):
        target = tmp_path / f"out.{kind}"
        build(docker, "-t", "sent:1", "-o", f"type={kind},dest={target}", str(place))
        with tarfile.open(target) as tar:
            assert member in tar.getnames()
    before = docker("images", "-aq").stdout
    build(docker, "-o", "type=cacheonly", str(place))
    assert docker("images", "-aq").stdout == before  # only the cache has it
    loaded = docker("load", "-i", str(tmp_path / "out.docker"))
    assert "Loaded image: sent:1" in loaded.stdout
    docker("rmi", "sent:1")


def test_contexts_from_the_standard_input_and_by_name(
    docker: Docker, busybox: str, tmp_path: Path
) -> None:
    place = write(tmp_path / "context", f"FROM {busybox}\nCOPY a /a\nRUN cat /a\n", a="sent-a\n")
    archive = tmp_path / "context.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(place, arcname=".")
    with archive.open("rb") as stream:
        assert "sent-a" in build(docker, "-", stdin=stream)
    text = f"FROM {busybox}\nRUN echo only a Dockerfile\n"
    assert "only a Dockerfile" in build(docker, "-", input=text)
    other = write(tmp_path / "other", "", file="from-other\n", left="out\n")
    (other / ".dockerignore").write_text("left\n")
    write(place, "FROM base\nCOPY --from=more . /m\nRUN cat /m/file; ls /m/left || echo none\n")
    named = ("--build-context", f"more={other}")
    named += ("--build-context", f"base=docker-image://{busybox}")
    text = build(docker, *named, str(place))
    assert "from-other" in text and "none" in text


def test_only_what_changed_and_is_used_is_sent(
    docker: Docker, busybox: str, tmp_path: Path
) -> None:
    place = write(tmp_path, f"FROM {busybox}\nCOPY used sub/* /to/\nRUN cat /to/*\n", used="u1\n")
    (place / "unused").write_bytes(b"x" * 3_000_000)
    (place / "sub").mkdir()
    (place / "sub" / "big").write_bytes(b"b" * 500_000)

    def transferred(text: str) -> str:
        found = re.findall(r"transferring context: (\S+)", text)
        return found[-1] if found else ""

    assert transferred(build(docker, str(place))).startswith("500")
    (place / "used").write_text("u2 and more\n")
    text = build(docker, str(place))
    assert transferred(text) == "12B" and "u2 and more" in text
    assert text.count("CACHED") == 0
    assert "local source for context" in docker("buildx", "du", "--verbose").stdout


def test_an_oci_layout_of_the_client_and_an_image_are_bases_by_name(
    docker: Docker, busybox: str, tmp_path: Path, name: str
) -> None:
    made = unique("layout")
    base = write(
        tmp_path / "base",
        f"FROM {busybox}\nENV L={made}\nRUN echo {made} > /l\nONBUILD RUN cat /l\n",
    )
    archive, layout = tmp_path / "oci.tar", tmp_path / "layout"
    build(docker, "-t", name, "-o", f"type=oci,dest={archive}", str(base))
    with tarfile.open(archive) as file:
        file.extractall(layout, filter="data")
    tag = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"]
    assert tag["org.opencontainers.image.ref.name"]
    docker("buildx", "prune", "-af")
    images = docker("images", "-aq", "--no-trunc").stdout
    place = write(
        tmp_path / "context",
        "FROM docker.io/library/lay:latest\nRUN echo var $L\nCOPY --from=more /l /more\n"
        "RUN --mount=type=bind,from=more,target=/m cat /m/l /more\n",
    )
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    words = ["-o", "type=cacheonly"]
    for context in ("lay", "more"):
        words += ["--build-context", f"{context}=oci-layout://{layout}@{digest}"]
    text = build(docker, *words, str(place))
    assert "[context lay] OCI load from client" in text
    assert re.search(r"\[2/5\] RUN cat /l", text)  # ONBUILD
    assert f"var {made}" in text and text.count(f" {made}\n") == 4
    assert docker("images", "-aq", "--no-trunc").stdout == images
    missing = f"lay=oci-layout://{layout}@sha256:{'0' * 64}"
    refused = docker("build", "--build-context", missing, str(place))
    assert refused.returncode == 1 and "not found" in refused.stderr
    build(docker, "-t", name, str(base))
    named = ("--build-context", f"lay=docker-image://{name}", "--build-context", "more=.")
    text = docker("build", "--progress", "plain", *named, str(place), cwd=tmp_path).stderr
    assert re.search(r"\[2/5\] RUN cat /l", text)


def test_a_context_from_a_git_repository(docker: Docker, busybox: str, tmp_path: Path) -> None:
    top = tmp_path / "repositories"
    top.mkdir()
    with git_server.served(top) as url:
        files = {"sub/Dockerfile": f"FROM {busybox}\nCOPY a /a\nRUN cat /a\n", "sub/a": "from-git"}
        git_server.repository(top, "context", files)
        words = ("--network", "host", "--allow", "network.host")
        assert "from-git" in build(docker, *words, f"{url}/context.git#main:sub")


def test_bake_builds_targets_that_use_each_other(
    docker: Docker, busybox: str, tmp_path: Path, name: str
) -> None:
    write(tmp_path / "base", f"FROM {busybox}\nRUN echo from-base > /base\nENV WORD=kept\n")
    write(tmp_path / "app", "FROM one\nRUN cat /base; echo word=$WORD\nCOPY --from=one /base /c\n")
    (tmp_path / "docker-bake.json").write_text(
        json.dumps(
            {
                "target": {
                    "base": {"context": "base", "output": ["type=cacheonly"]},
                    "default": {
                        "context": "app",
                        "contexts": {"one": "target:base"},
                        "tags": [name],
                        "labels": {"by": "bake"},
                    },
                }
            }
        )
    )
    done = docker("buildx", "bake", "--progress", "plain", cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "from-base" in done.stderr and "word=kept" in done.stderr
    assert json.loads(docker("inspect", name).stdout)[0]["Config"]["Labels"]["by"] == "bake"


def test_compose_builds_its_services(docker: Docker, busybox: str, tmp_path: Path) -> None:
    project = unique("kit")
    write(tmp_path, f'FROM {busybox}\nARG W\nRUN echo $W > /w\nCMD ["cat", "/w"]\n')
    (tmp_path / "compose.yaml").write_text(
        f"name: {project}\nservices:\n  web:\n    image: {project}-web:1\n"
        "    build: {context: ., args: {W: hello-compose}}\n"
    )
    try:
        up = docker("compose", "up", "--build", cwd=str(tmp_path))
        assert up.returncode == 0, up.stderr
        assert "hello-compose" in up.stdout
    finally:
        docker("compose", "down", "--rmi", "all", cwd=str(tmp_path))


def test_the_builder_and_its_cache_are_listed(docker: Docker, busybox: str, tmp_path: Path) -> None:
    assert "running" in docker("buildx", "ls").stdout
    assert "linux/" in docker("buildx", "inspect").stdout
    marker = unique("marker")
    place = write(tmp_path, f"FROM {busybox}\nRUN echo {marker}\n")
    docker("build", "-o", "type=cacheonly", str(place))
    used = docker("buildx", "du", "--verbose")
    assert f"RUN echo {marker}" in used.stdout, used.stderr
    record = next(text for text in used.stdout.split("\n\n") if marker in text)
    id = record.split()[1]
    pruned = docker("buildx", "prune", "-af", "--filter", f"id={id}")
    assert pruned.returncode == 0 and id in pruned.stdout, pruned.stderr
    assert marker not in docker("buildx", "du", "--verbose").stdout


def test_credentials_of_a_registry_come_over_the_session(
    engine: PrivateEngine, docker: Docker, busybox: str, tmp_path: Path
) -> None:
    directory = tmp_path / "registry"
    with Registry(directory, auth=basic_auth(directory)) as registry:
        config = tmp_path / "config"
        home = {"DOCKER_CONFIG": str(config)}
        remote = f"{registry.name}/kit/base:1"
        login = ("login", "-u", USER, "--password-stdin", registry.name)
        assert docker(*login, input=PASSWORD, env=home).returncode == 0
        place = write(tmp_path / "context", f"FROM {busybox}\nRUN echo pushed > /pushed\n")
        build(docker, "--push", "-t", remote, str(place), env=home)
        docker("rmi", remote)
        write(place, f"FROM {remote}\nRUN cat /pushed\n")
        assert "pushed" in build(docker, "--no-cache", str(place), env=home)
        docker("rmi", remote)
        refused = docker("build", "--pull", str(place))
        assert refused.returncode == 1 and "cannot pull image" in refused.stderr


def test_the_cache_goes_through_a_registry(docker: Docker, busybox: str, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        cache, image = f"{registry.name}/kit/cache:1", f"{registry.name}/kit/image:1"
        place = write(
            tmp_path / "context",
            f"FROM {busybox} AS tools\nRUN echo {unique('t')} > /tool\n"
            f"FROM {busybox}\nRUN echo {unique('r')} > /result\nCOPY --from=tools /tool /\n",
        )
        exported = ("--cache-to", f"type=registry,ref={cache},mode=max")
        text = build(docker, *exported, "-t", image, "--push", str(place))
        assert "exporting cache to registry" in text
        assert cache not in docker("images", "--digests").stdout
        for source, cached in ((cache, 3), (image, 2)):
            docker("rmi", "-f", image)
            docker("buildx", "prune", "-af")
            text = build(docker, "--cache-from", source, "-t", image, str(place))
            assert text.count("CACHED") == cached, text
            docker("rmi", "-f", source)
        refused = docker("build", "--cache-to", "type=other", str(place))
        assert refused.returncode == 1 and "must be registry, local or inline" in refused.stderr
        broken = f"type=registry,ref={registry.name}:1/x/y:1"
        assert docker("build", "--cache-to", broken, str(place)).returncode == 1


def test_the_cache_goes_through_a_directory_of_the_client(
    docker: Docker, busybox: str, tmp_path: Path
) -> None:
    tool, result = unique("t"), unique("r")
    place = write(
        tmp_path / "context",
        f"FROM {busybox} AS tools\nRUN echo {tool} > /tool\n"
        f"FROM {busybox}\nRUN echo {result} > /result\nCOPY --from=tools /tool /\n",
    )
    minimal, all_steps = tmp_path / "minimal", tmp_path / "all"
    for directory, mode in ((minimal, "min"), (all_steps, "max")):
        text = build(
            docker, "--cache-to", f"type=local,dest={directory},mode={mode},tag=mine", str(place)
        )
        assert "exporting cache to client directory" in text
        index = json.loads((directory / "index.json").read_text())
        (entry,) = index["manifests"]
        assert entry["annotations"]["org.opencontainers.image.ref.name"] == "mine"
        manifest = json.loads(blob_of(directory, entry["digest"]).read_text())
        assert all(layer["mediaType"].endswith("tar+gzip") for layer in manifest["layers"])
        assert all(blob_of(directory, b["digest"]).exists() for b in manifest["layers"])
    for directory, cached in ((minimal, 2), (all_steps, 3)):
        docker("buildx", "prune", "-af")
        text = build(docker, "--cache-from", f"type=local,src={directory},tag=mine", str(place))
        assert "importing cache manifest from local:sha256:" in text
        assert text.count("CACHED") == cached, text
    docker("buildx", "prune", "-af")
    for layer in {b["digest"] for b in manifest["layers"]}:
        blob_of(all_steps, layer).unlink()
    text = build(docker, "--cache-from", f"type=local,src={all_steps},tag=mine", str(place))
    assert "CACHED" not in text and "not found" in text  # the build makes the steps


def blob_of(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def test_a_client_that_leaves_ends_its_build(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    seconds = 1_000_000 + os.getpid()  # no other process of the machine sleeps so long
    place = write(tmp_path, f"FROM {busybox}\nRUN echo started; sleep {seconds}\n")
    command = ["docker", "build", "--progress", "plain", str(place)]
    process = subprocess.Popen(
        command, env=environment(engine), stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if b"started" in line and b"RUN" not in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while b"sleep\x00%d" % seconds in processes():
        assert time.monotonic() < deadline, "the step runs on"
        time.sleep(0.1)


def processes() -> bytes:
    found = b""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += (entry / "cmdline").read_bytes()
            except OSError:
                continue
    return found
