"""The generator: what it writes, and what it reports."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaula.features.harden.formats import quadlet
from jaula.features.quadlet import generator
from jaula.features.quadlet.directories import VARIABLE
from jaula.spec.confinement_profile import Files, Limits, Network, Process, Profile, Seccomp

SOURCE = Path(generator.__file__).parents[3]
PODMAN = "/usr/lib/systemd/system-generators/podman-system-generator"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "units"
    path.mkdir()
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        stem, _, kind = name.rpartition("_")
        (directory / f"{stem}.{kind}").write_text(text)


def test_services_and_links_are_written(directory: Path, tmp_path: Path) -> None:
    write(
        directory,
        web_container="[Container]\nImage=x\n[Install]\nWantedBy=multi-user.target a/b\n"
        "Alias=www.service\nRequiredBy=other.service\n",
    )
    (directory / "one@.container").write_text(
        "[Container]\nImage=x\n[Install]\nWantedBy=a.target\nDefaultInstance=1\n"
    )
    output = tmp_path / "out"
    assert generator.main(["-no-kmsg-log", str(output)]) == 0
    assert "ExecStart=" in (output / "web.service").read_text()
    links = {
        str(path.relative_to(output)): os.readlink(path)
        for path in output.rglob("*")
        if path.is_symlink()
    }
    assert links == {
        "www.service": "web.service",
        "multi-user.target.wants/web.service": "../web.service",
        "other.service.requires/web.service": "../web.service",
        "a.target.wants/one@1.service": "../one@.service",
    }


def test_a_file_with_an_error_is_one_line_and_the_others_are_made(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        directory,
        bad_container="[Container]\nImage=x\nFoo=1\n",
        broken_volume="nonsense\n",
        good_container="[Container]\nImage=x\n",
    )
    output = tmp_path / "out"
    assert generator.main(["-no-kmsg-log", str(output)]) == 1
    assert [path.name for path in output.iterdir()] == ["good.service"]
    lines = [line.partition("]: ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        (
            f'error loading "{directory}/broken.volume": '
            "line 1: 'nonsense' is not a key with a value, section or comment"
        ),
        (
            "converting \"bad.container\": unsupported key 'Foo' in group 'Container' in "
            f"{directory}/bad.container"
        ),
    ]


def test_a_dry_run_prints_and_writes_nothing(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(directory, web_container="[Container]\nImage=x\n")
    drop_in = directory / "web.container.d"
    drop_in.mkdir()
    (drop_in / "10.conf").write_text("[Container]\nImage=y\n")
    assert generator.main(["-dryrun"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("---web.service---\n")
    assert output.out.rstrip().endswith(" y")
    assert "Loading source drop-in file" in output.err


def test_the_arguments_are_those_of_podman(capsys: pytest.CaptureFixture[str]) -> None:
    assert generator.main(["-no-kmsg-log"]) == 1
    assert "missing output directory" in capsys.readouterr().err
    assert generator.main(["--bad"]) == 2
    assert generator.main(["--version"]) == 0


def test_no_files_are_no_error(directory: Path, tmp_path: Path) -> None:
    assert generator.main(["-no-kmsg-log", str(tmp_path / "out")]) == 0


def test_fifty_files_take_a_fraction_of_a_second_and_few_modules(
    directory: Path, tmp_path: Path
) -> None:
    """systemd waits for its generators at boot."""
    for number in range(50):
        write(directory, **{f"c{number}_container": "[Container]\nImage=x\nVolume=d.volume:/d\n"})
    write(directory, d_volume="[Volume]\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules);"
        "from jaula.features.quadlet.generator import main;"
        "status = main(['-no-kmsg-log', sys.argv[2]]);"
        "print(*set(sys.modules) - before); sys.exit(status)"
    )
    times = []
    for _ in range(3):
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, str(SOURCE), str(tmp_path / "out")],
            capture_output=True,
            text=True,
            check=True,
        )
        times.append(time.monotonic() - begin)
    assert len(list((tmp_path / "out").glob("*.service"))) == 51
    modules = {name for name in done.stdout.split() if not name.startswith("jaula")}
    assert modules <= {
        *("os", "os.path", "posixpath", "genericpath", "stat", "_stat", "abc", "_abc"),
        *("_collections_abc", "__future__", "errno"),
    }
    assert min(times) < 1.0  # 0.1 s on a machine that does nothing else


def test_the_units_of_a_profile_are_accepted(directory: Path, tmp_path: Path) -> None:
    """``jaula harden --format quadlet`` writes files for podman, which are read here, too."""
    profile = Profile(
        name="web",
        image="docker.io/library/nginx",
        process=Process(user="101:101", no_new_privileges=True),
        capabilities=("NET_BIND_SERVICE",),
        devices=("/dev/fuse",),
        files=Files(read_only_root=True, tmpfs={"/run": "size=1m"}, volumes=("/data",),
                    masked=("/proc/acpi",)),
        network=Network(listen=("tcp:80",)),
        limits=Limits(pids=10, memory=1 << 26, cpus=0.5),
        seccomp=Seccomp(syscalls=("read", "write")),
    )  # fmt: skip
    (directory / "web.container").write_text(quadlet.render(profile))
    assert generator.main(["-no-kmsg-log", str(tmp_path / "out")]) == 0


@pytest.mark.needs(PODMAN)
@pytest.mark.parametrize(
    "text",
    [
        "[Container]\nImage=x\nFoo=1\n",
        "[Container]\nExec=a\n",
        "[Container]\nImage=a\nGroup=1\n",
        "[Container]\nImage=a\nPod=b\n",
        "[Container]\nImage=a\nPod=b.pod\n",
        "[Container]\nImage=a\nNetwork=b.network\n",
        "[Container]\nImage=a\nExposeHostPort=x\n",
        "[Container]\nImage=a\n[Service]\nKillMode=none\n",
        "[Container]\nImage=a\n[Service]\nType=simple\n",
        "[Container]\nImage=a\nUserNS=auto\nRemapUsers=auto\n",
        "[Container]\nImage=a\nRemapUsers=x\n",
        (
            "[Container]\nImage=a\nExec=a \\\n  b\\x20c 'd e'\nEnvironment=A=1 'B=2 3'\n"
            "Label=x=y\nPublishPort=80:80\nVolume=/a:/b:ro\nAddCapability=NET_ADMIN\n"
        ),
    ],
)
def test_a_unit_is_judged_as_by_podman(
    directory: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    write(directory, a_container=text)
    theirs = subprocess.run([PODMAN, "--dryrun"], capture_output=True, text=True)
    ours = generator.main(["-dryrun"])
    output = capsys.readouterr()
    assert ours == theirs.returncode

    def reason(lines: str) -> list[str]:
        return [line.partition("converting ")[2] for line in lines.splitlines() if "conv" in line]

    if ours:
        assert (
            reason(output.err)[0].replace("no Image key", "no Image or Rootfs key")
            == (reason(theirs.stderr)[0])
        )
        return

    def arguments(text: str) -> set[str]:
        (start,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
        return set(start.split()[1:])

    different = arguments(output.out) ^ arguments(theirs.stdout)
    assert different == {"-d", "--cgroups=split", "--label", "io.jaula.systemd-unit=%n"} - (
        {"--label"}  # both have a label
    )
