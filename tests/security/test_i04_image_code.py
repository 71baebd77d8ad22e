"""I4: after entering a container's root, the engine loads no code or data from it."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from harness import containers, images
from harness.engine import PROJECT, PrivateEngine

MARK = b"import os\nos.open('/loaded', os.O_CREAT | os.O_WRONLY)\n"
STANDARD_LIBRARY = sysconfig.get_path("stdlib").lstrip("/")
SITE = sysconfig.get_path("purelib").lstrip("/")


@pytest.fixture(scope="module")
def trapped(engine: PrivateEngine) -> str:
    """Return an image with code at every path that an interpreter searches.

    The code leaves a mark if it runs.
    """
    modules = (
        "sitecustomize",
        "encodings/idna",
        "encodings/utf_8",
        "encodings/ascii",
        "pwd",
        "grp",
    )
    modules += ("os", "socket", "ctypes/__init__", "json/__init__", "traceback", "locale")
    entries = images.busybox_entries()
    for base in {STANDARD_LIBRARY, SITE, str(PROJECT / "src").lstrip("/"), "usr/lib/python3"}:
        entries += [images.file(f"{base}/{module}.py", MARK) for module in modules]
    entries += [
        images.file("etc/ld.so.preload", b"/trap.so\n"),
        images.file("etc/nsswitch.conf", b"passwd: trap\ngroup: trap\nhosts: trap\n"),
        images.file("lib/libnss_trap.so.2", b"\x7fELF not really", 0o755),
        images.file("usr/lib/locale/locale-archive", b"\0" * 64),
        images.file("etc/localtime", b"TZif" + b"\xff" * 64),
    ]
    return images.import_image(engine, "trapped", entries)


@pytest.mark.parametrize("flags", [(), ("-t",), ("-u", "1000:1000"), ("--read-only",)])
@pytest.mark.parametrize("cve", ["CVE-2019-14271 CVE-2022-1227 CVE-2025-23266"])
def test_a_start_loads_no_code_of_the_image(
    engine: PrivateEngine, trapped: str, flags: tuple[str, ...], cve: str
) -> None:
    name = containers.unique("trap")
    environment = ("-e", "LD_PRELOAD=/trap.so", "-e", f"PYTHONPATH=/{SITE}", "-e", "LANG=tr_TR")
    done = engine.cli("jaula", "run", "--name", name, *flags, *environment, trapped, "echo", "well")
    try:
        assert done.stdout.strip() == "well", done.stderr
        assert "/loaded" not in engine.cli("jaula", "diff", name).stdout
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize("cve", ["CVE-2019-14271 CVE-2022-1227"])
def test_commands_on_a_container_load_no_code_of_the_image(
    engine: PrivateEngine, trapped: str, cve: str
) -> None:
    with containers.running(engine, trapped) as name:
        assert engine.cli("jaula", "exec", name, "echo", "well").stdout == "well\n"
        assert engine.cli("jaula", "top", name).returncode == 0
        assert engine.cli("jaula", "stats", "--no-stream", name).returncode == 0
        assert engine.cli("jaula", "export", "-o", "/dev/null", name).returncode == 0
        shim = containers.shim(containers.pid(engine, name))
        assert "/loaded" not in engine.cli("jaula", "diff", name).stdout
        mapped = Path(f"/proc/{shim}/maps").read_text()
        assert "trap" not in mapped
        assert os.readlink(f"/proc/{shim}/root") == "/"
