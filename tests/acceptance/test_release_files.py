"""Release files: wheel and sdist in clean environments, packages of the same bytes, SBOM."""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from harness.engine import PROJECT

pytestmark = [pytest.mark.packages, pytest.mark.timeout(1200)]
LIBRARIES = {
    "ld-linux-x86-64.so.2": "libc6", "libc.so.6": "libc6", "libdl.so.2": "libc6",
    "libm.so.6": "libc6", "libpthread.so.0": "libc6", "librt.so.1": "libc6",
    "libgcc_s.so.1": "libgcc-s1", "libstdc++.so.6": "libstdc++6",
}  # fmt: skip
"""Package of Debian and Ubuntu for each library that modules in C may use."""
NAMES = ["jaula", "jaula-docker", "jaula-selinux", "jaula-web"]


def run(*words: str | Path, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, text=True, stdin=subprocess.DEVNULL,
        capture_output=True, env=os.environ | environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the tag of a release."""
    directory = tmp_path_factory.mktemp("tagged") / "jaula"
    run("git", "clone", "-q", "--no-hardlinks", PROJECT, directory)
    (directory / ".venv").symlink_to(PROJECT / ".venv")
    module = directory / "src/jaula/__init__.py"
    module.write_text(module.read_text().replace('__version__ = "', '__version__ = "9.'))
    git = ("git", "-C", directory, "-c", "user.name=a", "-c", "user.email=a@b.example")
    run(*git, "commit", "-qam", "Raise the version")
    run(*git, "tag", f"v{version_of(directory)}")
    return directory


def version_of(directory: Path) -> str:
    return run(sys.executable, "-B", directory / "packaging/version.py").strip()


@pytest.fixture(scope="module")
def built(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and a source distribution of the tagged clone."""
    return build(clone, tmp_path_factory.mktemp("built"))


def build(source: Path, output: Path) -> Path:
    run(PROJECT / ".venv/bin/hatchling", "build", "-d", output, cwd=source)
    return output


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The locked packages and the files of the web view."""
    directory = tmp_path_factory.mktemp("wheels")
    run(PROJECT / "scripts/build-deb", "--download-only", directory)
    return directory


def wheel(directory: Path) -> Path:
    (path,) = directory.glob("*.whl")
    return path


def test_the_wheel_has_the_version_of_the_tag(clone: Path, built: Path) -> None:
    version = version_of(clone)
    assert version.startswith("9.")
    assert wheel(built).name == f"jaula-{version}-py3-none-any.whl"


def test_pip_installs_the_wheel_into_a_clean_environment(
    clone: Path, built: Path, wheelhouse: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    run("/usr/bin/python3", "-m", "venv", environment)
    pip = (environment / "bin/python", "-m", "pip", "install", "-q", "--no-index")
    run(*pip, f"--find-links={wheelhouse}", wheel(built))
    check_commands(environment / "bin", version_of(clone))
    assert (environment / "share/man/man1/jaula-run.1").exists()
    assert (environment / "share/jaula/monitoring/prometheus-alerts.yml").exists()


@pytest.mark.parametrize("program", ["pipx", "uv"])
def test_tools_install_the_wheel(program: str, clone: Path, built: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    run("/usr/bin/python3", "-m", "venv", tools)
    run(tools / "bin/python", "-m", "pip", "install", "-q", program)
    links = tmp_path / "bin"
    settings = {
        "PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(links),
        "PIPX_MAN_DIR": str(tmp_path / "man"), "UV_TOOL_DIR": str(tmp_path / "uv"),
        "UV_TOOL_BIN_DIR": str(links), "UV_CACHE_DIR": str(tmp_path / "cache"),
    }  # fmt: skip
    words = ("install", "--python", "/usr/bin/python3")
    if program == "uv":
        words = ("tool", *words)
    run(tools / "bin" / program, *words, wheel(built), **settings)
    check_commands(links, version_of(clone))


def check_commands(directory: Path, version: str) -> None:
    assert run(directory / "jaula", "--version") == f"jaula version {version}\n"
    assert version in run(directory / "jaula-runtime", "--version")
    assert "overlay" in run(directory / "jaula", "check")


def test_the_source_distribution_builds_without_git(
    clone: Path, built: Path, tmp_path: Path
) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    empty = tmp_path / "programs"
    empty.mkdir()
    hatchling = PROJECT / ".venv/bin/hatchling"
    run(hatchling, "build", "-t", "wheel", "-d", tmp_path / "out", cwd=tree, PATH=str(empty))
    assert wheel(tmp_path / "out").name == wheel(built).name
    assert filecmp.cmp(wheel(tmp_path / "out"), wheel(built), shallow=False)


def test_two_builds_of_a_release_have_the_same_bytes(
    clone: Path, wheelhouse: Path, tmp_path: Path
) -> None:
    sums = []
    for name in ("first", "second"):
        copy = tmp_path / name / ("x" * len(name)) / "jaula"  # paths of other lengths
        run("git", "clone", "-q", "--no-hardlinks", clone, copy)
        (copy / ".venv").symlink_to(PROJECT / ".venv")
        run("git", "-C", copy, "config", "core.excludesFile", "/dev/null")
        (copy / ".git/info/exclude").write_text(".venv\n")
        output = tmp_path / f"release {name}"
        run(copy / "scripts/release", "--offline", wheelhouse, "--output", output)
        run(copy / "scripts/release", "--verify", output)
        sums.append((output / "SHA256SUMS").read_text())
        shutil.rmtree(copy)
    assert sums[0] == sums[1]
    names = [line.split("  ")[1] for line in sums[0].splitlines()]
    for suffix in (".whl", ".tar.gz", ".cdx.json", ".intoto.json", ".rpm", "_amd64.deb"):
        assert any(name.endswith(suffix) for name in names), suffix


@pytest.fixture(scope="module")
def debs(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The Debian packages of this tree."""
    directory = tmp_path_factory.mktemp("debs")
    run(PROJECT / "scripts/build-deb", "--offline", wheelhouse, "--output", directory)
    packages = sorted(directory.glob("*.deb"), key=lambda path: path.name.partition("_")[0])
    assert [path.name.partition("_")[0] for path in packages] == NAMES
    return packages


@pytest.fixture(scope="module")
def rpms(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The rpm packages of this tree."""
    directory = tmp_path_factory.mktemp("rpms")
    run(PROJECT / "scripts/build-rpm", "--offline", wheelhouse, "--output", directory)
    packages = sorted(directory.glob("*.rpm"))
    assert sorted(run("rpm", "-qp", "--qf", "%{NAME}\n", *packages).split()) == NAMES
    return packages


def test_the_packages_have_no_complaint_of_lintian(debs: list[Path]) -> None:
    assert run("lintian", "--allow-root", "--fail-on=error,warning", *debs) == ""


def deb_files(package: Path) -> set[str]:
    """Return the paths of a Debian package, without its directories."""
    lines = run("dpkg-deb", "--contents", package).splitlines()
    paths = (line.split(maxsplit=5)[5].partition(" -> ")[0] for line in lines)
    return {path.removeprefix(".") for path in paths if not path.endswith("/")}


def test_the_libraries_of_a_package_are_its_dependencies(debs: list[Path], tmp_path: Path) -> None:
    """Compare the modules in C with debian/control, which names them for every target."""
    for package in debs:
        run("dpkg-deb", "-x", package, tmp_path)
    modules = sorted((tmp_path / "usr/lib/jaula").rglob("*.so*"))
    libraries = re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "--dynamic", *modules))
    assert set(libraries) <= LIBRARIES.keys()
    depends = run("dpkg-deb", "--field", debs[0], "Depends")
    for library in set(libraries):
        assert LIBRARIES[library] in depends, library
    symbols = run("readelf", "--version-info", *modules)
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)", symbols)}
    (libc,) = re.findall(r"libc6 \(>= ([0-9.]+)\)", depends)
    assert max(versions) <= tuple(map(int, libc.split(".")))


@pytest.mark.skipif(Path("/usr/bin/python3.12").exists(), reason="needs a host without it")
def test_packages_for_another_python_compile_at_installation(tmp_path: Path) -> None:
    run(PROJECT / "scripts/build-deb", "--target", "ubuntu24.04", "--output", tmp_path)
    (package,) = tmp_path.glob("jaula_*.deb")
    files = deb_files(package)
    assert not [path for path in files if path.endswith(".pyc")]
    assert {"/usr/lib/jaula/.compile", "/usr/share/man/man1/jaula-run.1.gz"} <= files
    assert [path for path in files if path.endswith(".cpython-312-x86_64-linux-gnu.so")]
    assert not [path for path in files if ".cpython-313" in path]
    depends = run("dpkg-deb", "--field", package, "Depends")
    assert "python3.12" in depends
    (libc,) = re.findall(r"libc6 \(>= ([0-9.]+)\)", depends)
    assert tuple(map(int, libc.split("."))) <= (2, 39)  # that of Ubuntu 24.04
    assert package.name.endswith("~ubuntu24.04_amd64.deb")


def rpm_files(package: Path) -> set[str]:
    """Return the paths of an rpm, without its directories."""
    lines = run("rpm", "-qp", "--qf", "[%{FILEMODES:perms} %{FILENAMES}\n]", package).splitlines()
    return {line.split(maxsplit=1)[1] for line in lines if not line.startswith("d")}


def test_deb_and_rpm_have_the_same_files(debs: list[Path], rpms: list[Path]) -> None:
    deb = set().union(*map(deb_files, debs))
    rpm = set().union(*map(rpm_files, rpms))
    own = ("/etc/apparmor.d/", "/usr/share/doc/", "/usr/share/lintian/", "/usr/share/licenses/")
    assert "/usr/share/jaula/monitoring/grafana-dashboard.json" in deb
    assert {path for path in deb ^ rpm if not path.startswith(own)} == {
        "/usr/share/zsh/vendor-completions/_jaula",
        "/usr/share/zsh/site-functions/_jaula",
    }


ARCHIVES = (
    "oci/__pycache__/jaula.{tag}.modules",
    "oci/__pycache__/jaula-runtime.{tag}.modules",
    "daemon/__pycache__/jaula-engine.{tag}.modules",
)


def test_an_rpm_has_the_archives_and_its_removal_leaves_nothing(
    rpms: list[Path], tmp_path: Path
) -> None:
    rpm = ("rpm", "--root", tmp_path, "--dbpath", "/var/lib/rpm")
    run(*rpm, "--install", "--nodeps", "--noscripts", *rpms)
    library = tmp_path / "usr/lib/jaula"
    for name in ARCHIVES:
        assert (library / "jaula" / name.format(tag=sys.implementation.cache_tag)).exists(), name
    # The archive is that of the installed modules: these are found in it, and not imported.
    inner = 'mount -t overlay -o "lowerdir=$1:/usr/lib" overlay /usr/lib && shift && exec "$@"'
    command = (sys.executable, "-ISXutf8", "-X", "importtime", tmp_path / "usr/bin/jaula")
    words = ("--host", "unix:///nonexistent/s", "exec", "c", "true")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", inner, "sh", library.parent, *command, *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Cannot connect to the jaula engine" in done.stderr
    assert "jaula.oci.pyc_archive" in done.stderr
    assert "jaula.cli" not in done.stderr
    run(*rpm, "--erase", "--nodeps", "--noscripts", *NAMES)
    assert not library.exists(), [str(path) for path in library.rglob("*")][:10]


def test_the_packages_have_no_complaint_of_rpmlint(rpms: list[Path]) -> None:
    output = run("rpmlint", "--rpmlintrc", PROJECT / "packaging/rpm/rpmlintrc", *rpms)
    assert "4 packages and 0 specfiles checked; 0 errors, 0 warnings" in output


def test_a_wheel_with_another_hash_is_refused(wheelhouse: Path, tmp_path: Path) -> None:
    copy = tmp_path / "wheels"
    shutil.copytree(wheelhouse, copy)
    (path,) = copy.glob("h11-*.whl")
    path.write_bytes(path.read_bytes() + b"x")
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        not in (PROJECT / "requirements/web.txt").read_text()
    )
    words = [PROJECT / "packaging/install", "--destdir", tmp_path / "root", "--wheels", copy]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
