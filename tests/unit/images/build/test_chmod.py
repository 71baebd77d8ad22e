"""``--chmod``, compared with chmod(1) if it is installed."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.features.build.files.chmod import parse


@pytest.mark.parametrize(
    ("text", "mode", "directory", "expected"),
    [
        ("755", 0o600, False, 0o755),
        ("0644", 0o777, True, 0o644),
        ("4755", 0o600, False, 0o4755),
        ("+x", 0o644, False, 0o755),
        ("u=rwX,go=rX", 0o644, False, 0o644),
        ("u=rwX,go=rX", 0o744, False, 0o755),
        ("u=rwX,go=rX", 0o700, True, 0o755),
        ("g=u", 0o640, False, 0o660),
        ("a-w", 0o666, False, 0o444),
        ("u+s,g+s,+t", 0o755, False, 0o7755),
        ("o=", 0o777, False, 0o770),
        ("u+r-x", 0o311, False, 0o611 & ~0o100 | 0o400),
        ("=r", 0o777, False, 0o444),
    ],
)
def test_a_mode_is_changed(text: str, mode: int, directory: bool, expected: int) -> None:
    assert oct(parse(text)(mode, directory)) == oct(expected)


@pytest.mark.parametrize("text", ["", "8", "99999", "u", "x+x", "u+q", "u=rw,", "+x,z", "-1", "７"])
def test_an_invalid_mode_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid --chmod"):
        parse(text)


@pytest.mark.skipif(shutil.which("chmod") is None, reason="no chmod here")
@pytest.mark.parametrize(
    "text", ["a+x", "u=rwX,go=rX", "g=u", "o-rwx", "ug=rw,o=r", "a=rX", "u-s", "g+s", "u=g,g=o"]
)
def test_the_result_is_that_of_chmod(tmp_path: Path, text: str) -> None:
    for number, mode in enumerate((0o644, 0o755, 0o4711, 0o2750, 0o600)):
        for directory in (False, True):
            place = tmp_path / f"{number}-{directory}"
            place.mkdir() if directory else place.touch()
            place.chmod(mode)
            subprocess.run(["chmod", text, str(place)], check=True)
            reported = stat.S_IMODE(place.stat().st_mode)
            assert oct(parse(text)(mode, directory)) == oct(reported), (text, oct(mode), directory)
