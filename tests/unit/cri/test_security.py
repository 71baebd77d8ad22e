"""Security contexts of CRI as security options."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cri import security_context
from jaula.features.kubernetes.cri.proto import api_pb2

Context = api_pb2.LinuxContainerSecurityContext
Profile = api_pb2.SecurityProfile


def test_an_absent_seccomp_profile_is_unconfined_and_runtime_default_the_engine_s() -> None:
    assert list(security_context.container_options(Context())) == ["seccomp=unconfined"]
    context = Context(seccomp=Profile(profile_type=Profile.RuntimeDefault))
    assert list(security_context.container_options(context)) == []


@pytest.mark.parametrize(
    ("text", "options"),
    [("unconfined", ["seccomp=unconfined"]), ("runtime/default", [])],
)
def test_the_deprecated_seccomp_field_counts_without_the_new_one(
    text: str, options: list[str]
) -> None:
    context = Context(seccomp_profile_path=text)
    assert list(security_context.container_options(context)) == options
    context.seccomp.profile_type = Profile.RuntimeDefault
    assert list(security_context.container_options(context)) == []


def test_the_deprecated_seccomp_field_names_a_file(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text("{}")
    profile.chmod(0o600)
    context = Context(seccomp_profile_path=f"localhost/{profile}")
    assert list(security_context.container_options(context)) == ["seccomp={}"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", []),
        ("runtime/default", []),
        ("unconfined", ["apparmor=unconfined"]),
        ("localhost/strict", ["apparmor=strict"]),
    ],
)
def test_the_deprecated_apparmor_field_counts_without_the_new_one(
    text: str, options: list[str]
) -> None:
    context = Context(seccomp=Profile(profile_type=Profile.RuntimeDefault), apparmor_profile=text)
    assert list(security_context.container_options(context)) == options
    context.apparmor.profile_type = Profile.Localhost
    context.apparmor.localhost_ref = "localhost/other"
    assert list(security_context.container_options(context)) == ["apparmor=other"]
    context.privileged = True
    assert list(security_context.container_options(context)) == ["seccomp=unconfined"]


@pytest.mark.parametrize("text", ["strict", "localhost", "runtime/", "\0"])
@pytest.mark.parametrize("field", ["apparmor_profile", "seccomp_profile_path"])
def test_another_value_of_a_deprecated_field_is_refused(field: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match="must be one of runtime/default, unconfined and"):
        list(security_context.container_options(Context(**{field: text})))


def test_an_apparmor_profile_needs_a_name() -> None:
    for context in (
        Context(apparmor_profile="localhost/"),
        Context(apparmor=Profile(profile_type=Profile.Localhost)),
    ):
        with pytest.raises(InvalidRequest, match="needs a name"):
            list(security_context.container_options(context))
