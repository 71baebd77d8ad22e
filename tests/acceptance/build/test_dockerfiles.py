"""A dozen usual kinds of Dockerfiles, built and run; ``dockerfiles/`` has a directory for each.

Dockerfiles that use packages of Debian, PyPI or npm need the machine's mirrors.
"""

from __future__ import annotations

import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from harness.build_context import make
from harness.images import archive, busybox_entries

Run = Callable[..., "subprocess.CompletedProcess[str]"]
DOCKERFILES = Path(__file__).parent / "dockerfiles"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
PATIENCE = 600.0  # seconds for a build that fetches packages


def build(jaula: Run, kind: str, *words: str, context: Path | None = None) -> str:
    """Build one of the Dockerfiles and return the name of its image."""
    name = f"dockerfiles/{kind}"
    done = jaula("build", "-t", name, *words, str(context or DOCKERFILES / kind), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-6000:]
    return name


def out(jaula: Run, image: str, *words: str) -> str:
    """Return the output of a container."""
    done = jaula("run", "--rm", image, *words)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@contextmanager
def running(jaula: Run, *words: str) -> Iterator[str]:
    """Run a container in the background."""
    started = jaula("run", "-d", *words)
    assert started.returncode == 0, started.stderr
    id = started.stdout.strip()
    try:
        yield id
    finally:
        jaula("rm", "-fv", id)


def until(true: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def authorities() -> list[str]:
    """Pass the machine's certificates to steps that download; no layer contains them."""
    return ["--secret", f"id=authorities,src={AUTHORITIES}"]


@pytest.mark.packages
@pytest.mark.timeout(900)
def test_a_python_application_is_built(jaula: Run, debian: str) -> None:
    image = build(jaula, "python", *authorities())
    assert out(jaula, image) == "hello from 900 in /venv\n"
    history = jaula("history", "--no-trunc", image).stdout
    assert "requirements" not in history and "BEGIN CERTIFICATE" not in history
    assert "CACHED" in jaula("build", *authorities(), str(DOCKERFILES / "python")).stderr


@pytest.mark.packages
@pytest.mark.timeout(900)
def test_a_node_application_is_built(jaula: Run, debian: str) -> None:
    image = build(jaula, "node", *authorities())
    assert out(jaula, image) == "...172800000 production 1000\n"
    assert "npm" not in out(jaula, image, "-p", "require('fs').readdirSync('/usr/bin').join()")


@pytest.mark.packages
@pytest.mark.timeout(900)
def test_a_c_program_is_built_in_stages(jaula: Run, debian: str, tmp_path: Path) -> None:
    image = build(jaula, "c", "--build-arg", "VERSION=1.2")
    assert out(jaula, image) == "hello world, version 1.2, user 65534\n"
    layers = jaula("image", "inspect", "-f", "{{len .RootFS.Layers}}", image).stdout
    assert layers == "1\n"
    done = jaula("build", "--target", "test", "--build-arg", "VERSION=1.2", str(DOCKERFILES / "c"))
    assert done.returncode == 0, done.stderr
    done = jaula("build", "--target", "bin", "-o", str(tmp_path / "out"), str(DOCKERFILES / "c"))
    assert done.returncode == 0, done.stderr
    reported = subprocess.run([str(tmp_path / "out/hello")], capture_output=True, text=True)
    assert reported.stdout == "hello nobody, version dev, user 0\n"


@pytest.mark.packages
@pytest.mark.timeout(900)
def test_a_service_from_a_debian_package_is_built(jaula: Run, debian: str) -> None:
    image = build(jaula, "service")
    with running(jaula, "-p", "127.0.0.1::80", image) as id:
        address = jaula("port", id, "80").stdout.split()[0]

        def answers() -> bool:
            try:
                with urlopen(f"http://{address}/health", timeout=5) as answer:
                    return bool(answer.read() == b"well\n")
            except OSError:
                return False

        until(answers, jaula("logs", id).stderr)
        with urlopen(f"http://{address}/", timeout=5) as answer:
            assert b"It is served." in answer.read()
        health = ("inspect", "-f", "{{.State.Health.Status}}", id)
        until(lambda: jaula(*health).stdout == "healthy\n", "it is not healthy")
        assert "GET /health" in jaula("logs", id).stdout
        assert jaula("stop", id).returncode == 0
        assert jaula("inspect", "-f", "{{.State.ExitCode}}", id).stdout == "0\n"


def test_a_static_site_is_built(jaula: Run, busybox: str) -> None:
    image = build(jaula, "static")
    with running(jaula, "-p", "127.0.0.1::8080", image) as id:
        address = jaula("port", id, "8080").stdout.split()[0]
        with urlopen(f"http://{address}/index.html", timeout=5) as answer:
            assert b"<h1>Static pages</h1>" in answer.read()
        with urlopen(f"http://{address}/style/main.css", timeout=5) as answer:
            assert answer.read() == b"h1 { color: teal }\n"
    done = jaula("run", "--rm", "--entrypoint", "find", image, "/www", "-name", "*.md")
    assert (done.returncode, done.stdout) == (0, "")


def test_steps_run_as_users_other_than_root(jaula: Run, debian: str) -> None:
    assert out(jaula, build(jaula, "users")).splitlines() == [
        "worker",
        "root:team 640 who",
        "worker:team 644 own",
        "worker:team 755 /data",
        "worker:team 640 /data/a",
        "worker:team 750 /data/run.sh",
        "worker:UNKNOWN 644 /owned/by/number.txt",
    ]


def test_a_long_dockerignore_is_applied(jaula: Run, busybox: str, tmp_path: Path) -> None:
    expected = ["docs/a.txt", "docs/x/y/b.txt", "important.md", "src/a/deep/down/kept", "src/b/ok"]
    expected += ["src/keep/x.o", "src/main.c", "src/tmp12"]
    ignored = ["docs/x/c.md", "other.md", "src/main.o", "src/keep/sub/y.o", "src/.cache/z"]
    ignored += ["src/tmp1", "src/Tmpx/w", "src/a/deep/f", "src/a/deep/down/other", ".git/config"]
    for name in ("Dockerfile", ".dockerignore"):
        (tmp_path / name).write_bytes((DOCKERFILES / "ignored" / name).read_bytes())
    make(tmp_path, dict.fromkeys([*expected, *ignored], ""))
    for number in range(2000):  # what no build has ever to see
        make(tmp_path, {f"node_modules/package-{number % 40}/lib/{number}.js": "x"})
    image = build(jaula, "ignored", context=tmp_path)
    assert out(jaula, image).split() == [f"./{name}" for name in expected]


def test_heredocs_are_executed_and_copied(jaula: Run, debian: str) -> None:
    image = build(jaula, "heredoc", "--build-arg", "NAME=you")
    assert out(jaula, image).splitlines() == [
        "Hello you",
        "$NAME stays as it is",
        "taken from the tabs",
        *("one", "two", "three"),
        "in perl: 42",
        "in a shell: you",
        *("first", "second"),
    ]


def test_a_workspace_of_packages_is_built(jaula: Run, busybox: str) -> None:
    done = jaula("build", "-t", "dockerfiles/workspace", str(DOCKERFILES / "workspace"))
    assert done.returncode == 0, done.stderr
    assert out(jaula, "dockerfiles/workspace").splitlines() == [
        *("name one", "name two"),
        "packages/one/package.txt",
        "packages/one/src/a.txt",
        "packages/two/package.txt",
        "/tested",
    ]
    done = jaula("build", "--target", "sources", str(DOCKERFILES / "workspace"))
    assert done.returncode == 0 and "test -f" not in done.stderr


def test_onbuild_triggers_of_the_base_image_run(jaula: Run, busybox: str) -> None:
    build(
        jaula,
        "onbuild-base",
        "-f",
        str(DOCKERFILES / "onbuild/base.Dockerfile"),
        context=DOCKERFILES / "onbuild",
    )
    image = build(jaula, "onbuild", "--build-arg", "FLAVOUR=sweet")
    assert out(jaula, image) == "built as sweet\nthe application\n"
    triggers = jaula("image", "inspect", "-f", "{{json .Config.OnBuild}}", image).stdout
    assert triggers.strip() in ("null", "[]")


def test_arguments_have_the_scope_of_their_stage(jaula: Run, busybox: str) -> None:
    image = build(jaula, "arguments", "--build-arg", "OWN=world", "--build-arg", "SUFFIX=x")
    platform = jaula("version", "-f", "{{.Server.Os}}/{{.Server.Arch}}").stdout.strip()
    first, second, third = out(jaula, image).splitlines()
    assert first == f"of-all/world/{platform}/{platform.partition('/')[0]}"
    assert second == "[not here] [not here]" or second == "[world] [of-all]"
    assert third.startswith("hello world-x|${OWN}|x|world|/opt/bin:/")
    label = '{{index .Config.Labels "com.example.text"}}'
    assert jaula("image", "inspect", "-f", label, image).stdout == "line one line two\n"


def test_an_entrypoint_may_be_a_script(jaula: Run, debian: str) -> None:
    image = build(jaula, "entrypoint")
    assert out(jaula, image, "echo", "another command") == "another command\n"
    with running(jaula, image) as id:
        until(lambda: "serving with --port 80" in jaula("logs", id).stdout, "it does not serve")
        assert jaula("exec", id, "test", "-e", "/var/lib/app/started").returncode == 0
        assert jaula("stop", id).returncode == 0
        assert jaula("inspect", "-f", "{{.State.ExitCode}}", id).stdout == "7\n"
        assert "stopped by USR1" in jaula("logs", id).stdout


@pytest.mark.packages
@pytest.mark.timeout(900)
def test_bind_and_cache_mounts_serve_run(jaula: Run, debian: str) -> None:
    image = build(jaula, "mounts")
    assert out(jaula, image) == "from a mount\n"
    assert out(jaula, image, "sh", "-c", "ls /var/cache/apt/archives/*.deb 2>&1 | wc -l") == "1\n"


def test_an_image_from_scratch_has_one_root_file_system(jaula: Run, tmp_path: Path) -> None:
    null = tarfile.TarInfo("dev/null")
    null.type, null.devmajor, null.devminor, null.mode = tarfile.CHRTYPE, 1, 3, 0o666
    import lzma

    tar = archive([*busybox_entries(), (null, b"")])
    (tmp_path / "rootfs.tar.xz").write_bytes(lzma.compress(tar, preset=0))
    (tmp_path / "Dockerfile").write_bytes((DOCKERFILES / "rootfs/Dockerfile").read_bytes())
    image = build(jaula, "rootfs", context=tmp_path)
    assert out(jaula, image, "sh", "-c", "echo $LANG; echo x > /dev/null; id -u") == "C.UTF-8\n0\n"
