"""The document of a profile: what it may contain, and errors with the place."""

import pytest

from jaula.errors import InvalidRequest
from jaula.spec import confinement_profile

MINIMAL = b'name = "web"\n'


def test_an_absent_section_is_the_least() -> None:
    loaded = confinement_profile.load(MINIMAL, "web.toml")
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
        (b"a" * (confinement_profile.MAX_SIZE + 1), "at most"),
        (b"a=" + b"[" * 100_000, "profile web.toml"),
    ],
)
def test_a_wrong_profile_is_one_error(text: bytes, error: str) -> None:
    with pytest.raises(InvalidRequest, match=error):
        confinement_profile.load(text, "web.toml")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[seccomp.syscalls]\nx86_64 = ["read"]\nx32 = ["read", "re ad"]\n',
         "'re ad' at `$.seccomp.syscalls[...][1]` is not the name of a system call"),
        ('capabilities = ["NET ADMIN"]\n',
         "'NET ADMIN' at `$.capabilities[0]` is not the name of a capability"),
        ('[files]\nread = ["/a", "b"]\n', "'b' at `$.files.read[1]` is not an absolute path"),
        ('[files]\ntmpfs = {"/a" = "", "/a:b" = ""}\n',
         "'/a:b' at `$.files.tmpfs` is not the path of a mount"),
        ('[files]\ntmpfs = {"/a" = "", "/b" = "x;y"}\n',
         "'x;y' at `$.files.tmpfs[...]` is not a list of mount options"),
        ('[process]\nuser = "a b"\n', "'a b' at `$.process.user` is not a user"),
        ('image = "a b"\n', "'a b' at `$.image` is not a reference of an image"),
        ('incomplete = ["A"]\n', "'A' at `$.incomplete[0]` is not a field of a profile"),
    ],
)  # fmt: skip
def test_a_wrong_text_is_named_with_what_is_permitted(text: str, error: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        confinement_profile.load(MINIMAL + text.encode(), "web.toml")
    assert caught.value.message == f"profile web.toml: {error}"
    assert caught.value.hint
    assert "regex" not in f"{caught.value.message} {caught.value.hint}"


def test_a_wrong_name_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"'a b' at `\$.name` is not the name of a profile"):
        confinement_profile.load(b'name = "a b"', "web.toml")
