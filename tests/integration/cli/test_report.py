"""``jaula report`` of real containers: complete while they run, honest when they do not."""

from __future__ import annotations

from pathlib import Path

from harness.containers import running
from harness.engine import PrivateEngine


def test_a_page_has_the_proof_and_the_audit(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    with running(engine, busybox) as name:
        done = engine.cli("jaula", "report", "-o", str(file), name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{file}: Confined")
        printed = engine.cli("jaula", "report", name)
        assert engine.cli("jaula", "report", "-o", "-", name).stdout[:15] == printed.stdout[:15]
    text = file.read_text()
    assert printed.stdout.startswith("<!doctype html>")
    for part in (name, "Confined, with exceptions", "CIS Docker Benchmark", "seccomp"):
        assert part in text
    assert list(tmp_path.iterdir()) == [file]


def test_a_container_that_does_not_run_is_not_proved(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    with running(engine, busybox) as name:
        engine.cli("jaula", "stop", "-t", "0", name)
        done = engine.cli("jaula", "report", "-o", str(file), name)
    assert done.returncode == 1
    assert "Not proved" in done.stdout
    assert "the container does not run" in file.read_text()


def test_bad_input_is_an_error_and_writes_nothing(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    file, bad = tmp_path / "page.html", tmp_path / "bad.toml"
    bad.write_text("version = 99\n")
    with running(engine, busybox) as name:
        for words in (
            ("--profile", str(bad), name),
            ("--profile", str(tmp_path / "absent"), name),
            ("--record", str(tmp_path / "absent"), name),
            ("-o", str(tmp_path / "absent" / "x.html"), name),
            ("no-such-container",),
        ):
            out = () if "-o" in words else ("-o", str(file))
            done = engine.cli("jaula", "report", *out, *words)
            assert done.returncode == 1, words
            assert done.stderr.strip(), words
    assert sorted(tmp_path.iterdir()) == [bad]
