"""Parse os-release and Release files."""

from __future__ import annotations

from jaula.images.bootstrap.debian import host_release, release_time


def test_the_host_is_read_from_its_release_file() -> None:
    text = '# c\nID=ubuntu\nVERSION_CODENAME="noble"\nNAME="x"\n'
    assert host_release(text) == ("ubuntu", "noble")
    assert host_release("") == ("", "")


def test_the_time_of_a_suite_is_its_release_files() -> None:
    assert release_time("Origin: x\nDate: Sat, 06 Sep 2025 10:00:00 UTC\n") == 1757152800
    assert release_time("Date: yesterday\n") is None
    assert release_time("") is None
