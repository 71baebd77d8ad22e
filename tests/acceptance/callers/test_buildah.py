"""buildah runs the commands of a build through the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.callers.buildah import Buildah
from harness.callers.caller import IMAGE

pytestmark = [pytest.mark.needs("buildah"), pytest.mark.xdist_group("buildah")]


@pytest.fixture
def container(buildah: Buildah) -> Iterator[str]:
    name = buildah.out("from", IMAGE)
    yield name
    buildah("rm", name)


def build(buildah: Buildah, context: Path, recipe: str, *flags: str, expect: int = 0) -> str:
    """Return the output of the build, both streams."""
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\n{recipe}")
    done = buildah("build", "-t", "built", *flags, str(context), expect=expect)
    return str(done.stdout + done.stderr)


def test_run_commands_change_the_image(buildah: Buildah, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("copied\n")
    recipe = """
        COPY file /file
        ENV A=b
        WORKDIR /work
        RUN pwd >/log && echo $A >>/log && cat /file >>/log
        USER www-data
        RUN id -un >/tmp/who
    """
    build(buildah, tmp_path, "\n".join(line.strip() for line in recipe.splitlines()))
    name = buildah.out("from", "localhost/built")
    output = buildah.out("run", name, "cat", "/log", "/tmp/who")
    assert output.splitlines() == ["/work", "b", "copied", "www-data"]
    buildah("rm", name)
    buildah("rmi", "localhost/built")


def test_a_failed_command_fails_the_build_and_is_printed(buildah: Buildah, tmp_path: Path) -> None:
    output = build(buildah, tmp_path, "RUN echo about to fail && exit 42\n", expect=42)
    assert "about to fail" in output
    assert "exit status 42" in output


def test_a_missing_program_fails_the_build(buildah: Buildah, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f'FROM {IMAGE}\nRUN ["/nonexistent"]\n')
    done = buildah("build", str(tmp_path), expect=None)
    assert done.returncode != 0
    assert "no such file or directory" in done.stderr


def test_mounts_apply_to_one_command(buildah: Buildah, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound\n")
    recipe = (
        "RUN --mount=type=bind,source=file,target=/bound --mount=type=tmpfs,target=/scratch"
        " cat /bound >/seen; touch /scratch/x; touch /bound 2>/dev/null || echo ro >>/seen\n"
        "RUN --mount=type=cache,target=/cache touch /cache/kept\n"
        "RUN --mount=type=cache,target=/cache ls /cache >>/seen; test ! -e /scratch/x\n"
        "RUN cat /seen\n"
    )
    output = build(buildah, tmp_path, recipe)
    assert "bound\nro\nkept\n" in output
    buildah("rmi", "localhost/built")


def test_a_secret_is_available_to_one_command_only(buildah: Buildah, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("whispered\n")
    recipe = (
        "RUN --mount=type=secret,id=word cat /run/secrets/word\n"
        "RUN test ! -e /run/secrets/word && echo gone\n"
    )
    output = build(buildah, tmp_path, recipe, "--secret", f"id=word,src={tmp_path}/secret")
    assert "whispered" in output
    assert "gone" in output
    buildah("rmi", "localhost/built")


def test_run_returns_streams_and_exit_status(buildah: Buildah, container: str) -> None:
    done = buildah(
        "run", container, "sh", "-c", "cat; echo err >&2; exit 4", input="in\n", expect=4
    )
    assert done.stdout == "in\n"
    assert "err\n" in done.stderr


def test_run_sets_user_directory_environment_and_hostname(buildah: Buildah, container: str) -> None:
    flags = ("--user", "33", "--workingdir", "/tmp", "--env", "A=b", "--hostname", "inner")
    output = buildah.out("run", *flags, container, "sh", "-c", "id -u; pwd; echo $A; hostname")
    assert output.splitlines() == ["33", "/tmp", "b", "inner"]


def test_run_has_a_terminal(buildah: Buildah, container: str) -> None:
    with buildah.terminal("run", "-t", container, "sh") as terminal:
        terminal.expect("# ")
        terminal.send("tty; echo $((6*7))\n")
        terminal.expect(r"/dev/pts/0\s+42")
        terminal.send("exit 9\n")
        assert terminal.wait() == 9


def test_run_has_volumes_and_fewer_capabilities(
    buildah: Buildah, container: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("theirs\n")
    flags = ("--volume", f"{tmp_path}:/theirs:ro", "--cap-drop", "CAP_CHOWN")
    script = "cat /theirs/file; touch /theirs/x || echo ro; chown 1 /etc/passwd || echo refused"
    output = buildah.out("run", *flags, container, "sh", "-c", script)
    assert output.splitlines() == ["theirs", "ro", "refused"]


def test_run_is_confined(buildah: Buildah, container: str) -> None:
    script = "grep Seccomp: /proc/self/status; wc -c </proc/timer_list; echo $$"
    output = buildah.out("run", container, "sh", "-c", script)
    assert output.splitlines() == ["Seccomp:\t2", "0", "1"]
