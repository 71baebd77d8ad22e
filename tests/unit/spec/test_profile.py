"""The document of a profile: what it may contain, and errors with the place."""

import pytest

from jaula.errors import InvalidRequest
from jaula.spec import profile

MINIMAL = b'name = "web"\n'


def test_an_absent_section_is_the_least() -> None:
    loaded = profile.load(MINIMAL, "web.toml")
    assert loaded.capabilities == ()
    assert loaded.files.read_only_root
    assert loaded.process.no_new_privileges
    assert loaded.network.egress is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", "name"),
        (b'name = "a b"', r"\$.name"),
        (b'name = "web"\ncolour = 1', "colour"),
        (b'name = "web"\nversion = 2', r"\$.version"),
        (b'name = "web"\n[files]\nwrite = ["data"]', r"\$.files.write"),
        (b'name = "web"\n[seccomp.syscalls]\nvax = ["read"]', "vax"),
        (b'name = "web"\n[limits]\npids = -1', r"\$.limits.pids"),
        (b"name = ", "Invalid value"),
        (b"\xff", "utf-8"),
        (b"a" * (profile.MAX_SIZE + 1), "at most"),
        (b"a=" + b"[" * 100_000, "profile web.toml"),
    ],
)
def test_a_wrong_profile_is_one_error(text: bytes, error: str) -> None:
    with pytest.raises(InvalidRequest, match=error):
        profile.load(text, "web.toml")
