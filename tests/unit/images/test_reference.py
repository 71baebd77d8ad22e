"""Image references: Docker's grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.images.reference import could_be_id, parse

DIGEST = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("text", "familiar", "canonical"),
    [
        ("busybox", "busybox:latest", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "busybox:1.36", "docker.io/library/busybox:1.36"),
        ("library/busybox", "busybox:latest", "docker.io/library/busybox:latest"),
        ("docker.io/busybox", "busybox:latest", "docker.io/library/busybox:latest"),
        ("index.docker.io/user/app", "user/app:latest", "docker.io/user/app:latest"),
        ("user/app:v1", "user/app:v1", "docker.io/user/app:v1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("host:5000/a/b:c", "host:5000/a/b:c", "host:5000/a/b:c"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("quay.io/a/b", "quay.io/a/b:latest", "quay.io/a/b:latest"),
        (f"busybox@{DIGEST}", f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"a/b:t@{DIGEST}", f"a/b:t@{DIGEST}", f"docker.io/a/b:t@{DIGEST}"),
        ("a__b-c---d.e", "a__b-c---d.e:latest", "docker.io/library/a__b-c---d.e:latest"),
    ],
)
def test_a_reference_is_read(text: str, familiar: str, canonical: str) -> None:
    reference = parse(text)
    assert (str(reference), reference.canonical) == (familiar, canonical)
    assert parse(str(reference)) == reference
    assert parse(reference.canonical) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-a",
        "a:",
        "a:b:c",
        ":tag",
        "a//b",
        "/a",
        "a/",
        "a..b",
        "a___b",
        "a b",
        "a\n",
        "a:t\n",
        "a@sha256:12",
        "a@md5:" + "0" * 32,
        "a@" + DIGEST.upper(),
        "a:" + "t" * 129,
        "x" * 256,
        "ab" * 32,
        "ho_st.x/a",
        "host:port/a",
        "ü",
        "../../etc",
        "a\0b",
    ],
)
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid reference format"):
        parse(text)


@pytest.mark.parametrize("text", ["BAD:TAG:x", "a/", "ü"])
def test_the_message_of_a_malformed_name_says_invalid_once(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a valid repository name") as refused:
        parse(text)
    assert str(refused.value).count("invalid reference format") == 1


def test_capital_letters_have_their_own_message() -> None:
    with pytest.raises(InvalidRequest, match="must be lowercase"):
        parse("BusyBox")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidRequest:
        return
    assert parse(reference.canonical) == reference


def test_ids_are_recognised_by_their_digits() -> None:
    assert could_be_id("abc123")
    assert could_be_id(DIGEST)
    assert not could_be_id("xyz")
    assert not could_be_id("sha256:")
    assert not could_be_id("a" * 65)
