"""``jaula build`` on the command line: context, progress and outputs."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.build_context import make
from harness.engine import PROJECT, PrivateEngine
from harness.terminal import Terminal

Run = Callable[..., "subprocess.CompletedProcess[str]"]
JAULA = str(PROJECT / "jaula")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    return place


def shown(jaula: Run, image: str, *words: str) -> str:
    done = jaula("run", "--rm", image, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(jaula: Run, *words: str, **options: object) -> str:
    """Return the id of the image."""
    done = jaula("build", "-q", *words, **options)
    assert done.returncode == 0, done.stderr
    image = done.stdout.strip()
    assert image.startswith("sha256:") and done.stderr == ""
    return image


# -- the context ----------------------------------------------------------------------------------


def test_a_directory_is_a_context(jaula: Run, busybox: str, here: Path) -> None:
    make(here, {"Dockerfile": f"FROM {busybox}\nCOPY . /c\n", "a": "x", "no": "", "d/b": ""})
    make(here, {".dockerignore": "no\nDockerfile\n.dockerignore\n"})
    image = built(jaula, str(here))
    assert shown(jaula, image, "ls", "-A", "/c").split() == ["a", "d"]
    assert built(jaula, ".", cwd=here) == image


def test_a_dockerfile_of_another_name_has_its_own_ignore_file(
    jaula: Run, busybox: str, here: Path
) -> None:
    make(here, {"sub/D": f"FROM {busybox}\nCOPY . /c\n", "sub/D.dockerignore": "a\nsub\n", "a": ""})
    make(here, {"b": "", ".dockerignore": "b"})
    image = built(jaula, "-f", str(here / "sub/D"), str(here))
    assert shown(jaula, image, "ls", "-A", "/c").split() == [".dockerignore", "b"]


def test_a_dockerfile_may_be_outside_the_context(jaula: Run, busybox: str, here: Path) -> None:
    make(here, {"a": "", "Dockerfile": "another"})
    outer = here.parent / "Outer"
    outer.write_text(f"FROM {busybox}\nCOPY . /c\n")
    image = built(jaula, "-f", str(outer), str(here))
    assert shown(jaula, image, "ls", "-A", "/c").split() == ["Dockerfile", "a"]


def test_a_dockerfile_is_read_from_standard_input_with_a_context(
    jaula: Run, busybox: str, here: Path
) -> None:
    make(here, {"a": ""})
    image = built(jaula, "-f", "-", str(here), input=f"FROM {busybox}\nCOPY . /c\n")
    assert shown(jaula, image, "ls", "-A", "/c").split() == ["a"]


def test_a_dockerfile_on_standard_input_has_no_context(jaula: Run, busybox: str) -> None:
    image = built(jaula, "-", input=f"FROM {busybox}\nRUN echo x > /y\nCOPY . /c\n")
    assert shown(jaula, image, "sh", "-c", "cat /y; ls -A /c") == "x\n"
    done = jaula("build", "-", input=f"FROM {busybox}\nCOPY a /\n")
    assert done.returncode == 1 and "'a' is not in the build context" in done.stderr


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_on_standard_input_is_a_context(
    engine: PrivateEngine, busybox: str, mode: str
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, text in (("D", f"FROM {busybox}\nCOPY a /a\n"), ("a", "from a tar\n")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    words = [JAULA, "build", "-q", "-f", "D", "-"]
    done = subprocess.run(
        words, input=buffer.getvalue(), capture_output=True, env=engine.environment()
    )
    assert done.returncode == 0, done.stderr
    image = done.stdout.decode().strip()
    assert engine.cli("jaula", "run", "--rm", image, "cat", "/a").stdout == "from a tar\n"


def test_a_context_is_packed_for_root_with_modes_and_links(
    jaula: Run, busybox: str, here: Path
) -> None:
    make(here, {"Dockerfile": f"FROM {busybox}\nCOPY . /c\n", "a": "x", "l": "-> a", "d/": None})
    os.chmod(here / "a", 0o751)
    os.chown(here / "a", 1234, 1234)
    os.link(here / "a", here / "hard")
    image = built(jaula, "--compress", str(here))
    reported = shown(jaula, image, "sh", "-c", "cd /c; stat -c '%n %a %u %h' a; readlink l")
    assert reported == "a 751 0 2\na\n"


def test_named_contexts_and_secrets_are_sent(
    engine: PrivateEngine, jaula: Run, busybox: str, here: Path
) -> None:
    other = here.parent / "other"
    make(other, {"x": "from another", "no": "", ".dockerignore": "no"})
    secret = here.parent / "secret"
    secret.write_text("word-of-the-test")
    text = (
        f"FROM {busybox}\nCOPY --from=named . /n\n"
        "RUN --mount=type=secret,id=s,required=true "
        "test $(cat /run/secrets/s) = word-of-the-test && echo file > /got\n"
        'RUN --mount=type=secret,id=e,env=E test "$E" = of-a-variable && echo env >> /got\n'
    )
    words = ["--build-context", f"named={other}", "--secret", f"id=s,src={secret}"]
    words += ["--secret", "id=e,env=WORD", "-f", "-", str(here)]
    variables = engine.environment() | {"WORD": "of-a-variable"}
    done = jaula("build", "-q", *words, input=text, env=variables)
    assert done.returncode == 0, done.stderr
    image = done.stdout.strip()
    assert shown(jaula, image, "sh", "-c", "cat /got; ls /n") == "file\nenv\nx\n"


# -- arguments and names --------------------------------------------------------------------------


def test_build_arguments_labels_tags_and_id_files_take_effect(
    jaula: Run, busybox: str, here: Path
) -> None:
    make(
        here, {"Dockerfile": f"ARG B=none\nFROM {busybox} AS t\nARG A\nRUN echo $A > /a\nFROM $B\n"}
    )
    iid, metadata = here.parent / "iid", here.parent / "meta"
    iid.write_text("old")
    words = ["--build-arg", "A=one two", "--label", "k=v", "--target", "t", "-t", "cli/x:1"]
    words += ["-t", "cli/y", "--iidfile", str(iid), "--metadata-file", str(metadata)]
    image = built(jaula, *words, str(here))
    assert iid.read_text() == image
    assert json.loads(metadata.read_text())["containerimage.config.digest"] == image
    assert shown(jaula, "cli/y", "cat", "/a") == "one two\n"
    result = json.loads(jaula("image", "inspect", "cli/x:1").stdout)[0]
    assert result["Id"] == image and result["Config"]["Labels"] == {"k": "v"}


def test_source_date_epoch_in_the_environment_makes_the_image_reproducible(
    engine: PrivateEngine, busybox: str, here: Path
) -> None:
    make(here, {"Dockerfile": f"FROM {busybox}\nCOPY a /a\nRUN echo x > /x\n", "a": "1"})
    images = set()
    for moment in (1, 2):
        os.utime(here / "a", (moment, moment))
        done = engine.cli(
            *("jaula", "build", "-q", "--no-cache", str(here)),
            env=engine.environment() | {"SOURCE_DATE_EPOCH": "1000000000"},
        )
        assert done.returncode == 0, done.stderr
        images.add(done.stdout.strip())
    assert len(images) == 1


# -- progress -------------------------------------------------------------------------------------


def test_plain_progress_goes_to_standard_error(jaula: Run, busybox: str, here: Path) -> None:
    text = f"FROM {busybox} AS one\nRUN echo out; printf partial\n"
    make(here, {"Dockerfile": text})
    done = jaula("build", "--no-cache", str(here))
    assert done.returncode == 0 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert "#2 [one 2/2] RUN echo out; printf partial" in lines
    output = [line.split()[-1] for line in lines if line.startswith("#2 0.")]
    assert output == ["out", "partial"]
    assert any(line.startswith("#2 DONE ") for line in lines)
    assert "#2 CACHED" in jaula("build", "--progress", "plain", str(here)).stderr


def test_json_progress_is_one_document_per_line(jaula: Run, busybox: str, here: Path) -> None:
    make(here, {"Dockerfile": f"FROM {busybox}\nRUN true\n"})
    done = jaula("build", "--progress=json", str(here))
    messages = [json.loads(line) for line in done.stderr.splitlines()]
    assert any(m.get("aux", {}).get("ID", "").startswith("sha256:") for m in messages)
    assert {m["jaula"]["state"] for m in messages if "state" in m.get("jaula", {})} >= {"started"}


def test_terminal_progress_redraws_every_step(
    engine: PrivateEngine, busybox: str, here: Path
) -> None:
    make(here, {"Dockerfile": f"FROM {busybox}\nRUN printf '\\033[31mred\\n'; sleep 1; exit 3\n"})
    words = [JAULA, "build", "--no-cache", str(here)]
    with Terminal(words, engine.environment(), columns=60) as terminal:
        terminal.expect(r"\[\+\] Building \d+\.\ds \(1/2\)")
        terminal.expect("=> => red")
        terminal.expect(r"ERROR \[2/2\] RUN printf")
        terminal.expect("returned a non-zero code: 3")
        assert terminal.process.wait(10) == 1


def test_quiet_prints_the_output_of_a_failed_build(jaula: Run, busybox: str) -> None:
    done = jaula("build", "-q", "-", input=f"FROM {busybox}\nRUN echo the reason; false\n")
    assert done.returncode == 1 and done.stdout == ""
    assert "the reason" in done.stderr


# -- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text", "error"),
    [
        (["-"], "FROM busybox\nRUNN x\n", "Dockerfile:2: unknown instruction: RUNN"),
        (["-"], "", "cannot be empty"),
        (["-", "--secret", "id=x,src=/nope"], "", "secret x: /nope: no such file"),
        (["-", "--secret", "id=x,sauce=/nope"], "", "unexpected key 'sauce'"),
        (["-", "--ssh", "default"], "", "no ssh agent"),
        (["-", "--build-context", "a=/nope"], "", "/nope does not exist"),
        (["-", "-o", "type=local"], "", "dest=DIRECTORY is required"),
        (["-", "-o", "type=nope,dest=x"], "", "type must be one of local"),
        (["-", "--progress", "loud"], "", "one of auto"),
        (["-", "--build-arg", "=x"], "FROM scratch\n", "--build-arg"),
        (["-", "-f", "-"], "", "can't use stdin for both"),
        (["/nope"], "", 'path "/nope" not found'),
        (["/", "-f", "/nope"], "", "unable to read the Dockerfile /nope"),
        (["https://127.0.0.1:9/x.git"], "", "an address of the host itself"),
        ([], "", "requires exactly 1 argument"),
    ],
)
def test_invalid_input_is_one_clear_error(
    jaula: Run, busybox: str, words: list[str], text: str, error: str
) -> None:
    done = jaula("build", *words, input=text)
    assert done.returncode in (1, 125) and done.stdout == ""
    assert error in done.stderr and "Traceback" not in done.stderr


def test_an_interrupted_build_leaves_no_files(
    engine: PrivateEngine, busybox: str, here: Path
) -> None:
    mark = f"8{time.time_ns() % 10**7}"
    make(here, {"Dockerfile": f"FROM {busybox}\nRUN echo begun; sleep {mark}\n"})
    words = [JAULA, "build", "--no-cache", str(here)]
    building = subprocess.Popen(words, env=engine.environment(), stderr=subprocess.PIPE, text=True)
    assert building.stderr is not None
    while "begun" not in (line := building.stderr.readline()) or line.startswith("#2 ["):
        assert line, "it ended too early"
    building.send_signal(signal.SIGINT)
    building.stderr.close()
    assert building.wait(10) == 130
    deadline = time.monotonic() + 10
    work = engine.root / "lib" / "build" / "work"
    while _sleeping(mark) or list(work.iterdir()):
        assert time.monotonic() < deadline, (_sleeping(mark), list(work.iterdir()))
        time.sleep(0.1)


def _sleeping(mark: str) -> bool:
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes() == f"sleep\0{mark}\0".encode():
                return True
        except OSError:
            continue
    return False


# -- outputs --------------------------------------------------------------------------------------

RESULT = (
    "FROM {base} AS made\n"
    "RUN mkdir /d && echo x > /d/r && chmod 4711 /d/r && ln -s /etc/passwd /d/l\n"
    "FROM scratch\nCOPY --from=made /d /\n"
)


def test_output_local_writes_the_files_to_a_directory(
    jaula: Run, busybox: str, here: Path, engine: PrivateEngine
) -> None:
    before = jaula("images", "-aq", "--no-trunc").stdout
    containers = jaula("ps", "-aq").stdout  # of other modules, on the engine of this worker
    text = RESULT.format(base=busybox) + f"LABEL x={time.time_ns()}\n"
    make(here, {"Dockerfile": text})
    out = here.parent / "out/deep"
    done = jaula("build", "-o", str(out), str(here))
    assert done.returncode == 0, done.stderr
    assert (out / "r").read_text() == "x\n" and (out / "r").stat().st_mode & 0o7777 == 0o711
    assert os.readlink(out / "l") == "/etc/passwd"
    assert jaula("images", "-aq", "--no-trunc").stdout == before
    assert jaula("ps", "-aq").stdout == containers


def test_output_tar_writes_a_tar(
    jaula: Run, busybox: str, engine: PrivateEngine, here: Path
) -> None:
    make(here, {"Dockerfile": RESULT.format(base=busybox)})
    path = here.parent / "o.tar"
    assert jaula("build", "-o", f"type=tar,dest={path}", str(here)).returncode == 0
    with tarfile.open(path) as tar:
        assert {name.strip("./") for name in tar.getnames()} >= {"r", "l"}
    done = subprocess.run(
        [JAULA, "build", "-o", "-", str(here)], capture_output=True, env=engine.environment()
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert {name.strip("./") for name in tar.getnames()} >= {"r", "l"}


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_output_docker_writes_an_image_archive(
    jaula: Run, busybox: str, here: Path, kind: str
) -> None:
    make(here, {"Dockerfile": f"FROM {busybox}\nLABEL made=here\n"})
    path = here.parent / "image"
    done = jaula("build", "-t", "cli/out:1", "-o", f"type={kind},dest={path}", str(here))
    assert done.returncode == 0, done.stderr
    words = ["skopeo", "inspect", f"{kind}-archive:{path}"]
    result = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    assert result["Labels"] == {"made": "here"}


def test_builder_prune_empties_the_cache(jaula: Run, busybox: str) -> None:
    text = f"FROM {busybox}\nRUN echo {time.time_ns()} > /x\n"
    assert "CACHED" not in jaula("build", "-", input=text).stderr
    assert "CACHED" in jaula("build", "-", input=text).stderr
    done = jaula("builder", "prune", "-af")
    assert done.returncode == 0 and "Total reclaimed space" in done.stdout
    assert "CACHED" not in jaula("build", "-", input=text).stderr
