"""AppArmor: the text of the profile, the choice of a profile, and the files of the kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.kernel.apparmor_files import parse_current, parse_profiles
from jaula.runtime.init.process_labels import runs_under
from jaula.security.lsm import apparmor_choice, apparmor_profile
from jaula.security.lsm.apparmor_choice import AppArmor
from jaula.security.lsm.interface import LabelRequest
from jaula.spec.apparmor_name import is_default
from jaula.spec.runtime_spec import Process, Spec

GOLDEN = Path(__file__).parent / "golden" / "jaula-default"
OWN = "jaula-default-0123456789ab"  # the kernel's name of the engine's profile
LOADED = {OWN: "enforce", "jaula-default": "enforce", "mine": "enforce", "weak": "complain"}


def test_the_profile_equals_the_golden_file() -> None:
    assert apparmor_profile.text() == GOLDEN.read_text()


def test_the_kernel_s_name_depends_on_the_text() -> None:
    names = {apparmor_profile.loaded_name(engine) for engine in ("unconfined", "zone", "engine")}
    assert len(names) == 3
    assert all(is_default(name) for name in names)
    assert apparmor_profile.loaded_name("zone") in names


def test_another_text_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = apparmor_profile.loaded_name("unconfined")
    text = apparmor_profile.text
    monkeypatch.setattr(apparmor_profile, "text", lambda **engine: text(**engine) + "# more\n")
    assert apparmor_profile.loaded_name("unconfined") != before


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("jaula-default", True),
        (OWN, True),
        (f"{OWN}0", False),
        (f"{OWN}\n", False),
        ("jaula-default-0123456789aB", False),
        ("jaula-default-own", False),
        (f"{OWN}//child", False),
        (f"{OWN}//&jaula-engine", False),
        ("", False),
    ],
)
def test_the_names_of_default_profiles_are_known(name: str, default: bool) -> None:
    assert is_default(name) == default


def test_a_confined_engine_may_signal_its_containers() -> None:
    text = apparmor_profile.text("other", engine="engine")
    assert "signal (receive) peer=engine," in text
    assert "signal (receive) peer=unconfined," in text
    assert "profile other flags" in text
    assert "ptrace (tracedby, readby) peer=engine," in text
    assert "ptrace (trace, read, tracedby, readby) peer=other," in text


@pytest.mark.parametrize(
    ("engine", "label"),
    [("engine", "engine//&other"), ("zone", "other//&zone"), ("z//&a", "a//&other//&z")],
)
def test_processes_under_a_stack_may_signal_and_trace_each_other(engine: str, label: str) -> None:
    lines = apparmor_profile.text("other", engine=engine).splitlines()
    assert f"  signal (send, receive) peer={label}," in lines
    assert f"  ptrace (trace, read, tracedby, readby) peer={label}," in lines


@pytest.mark.parametrize("engine", ["unconfined", "jaula-engine"])
@pytest.mark.skipif(not shutil.which("apparmor_parser"), reason="no apparmor_parser here")
def test_apparmor_parser_accepts_the_profile(engine: str) -> None:
    words = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", "--quiet"]
    text = apparmor_profile.text(engine=engine)
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def matches(pattern: str, path: str) -> bool:
    """As apparmor.d(5): ``*`` stops at a slash, ``**`` does not; one {,/**} at the end."""
    plain, _, tail = pattern.partition("{,/**}")
    expression = re.escape(plain).replace(r"\*", "[^/]*").replace(r"\[\^", "[^").replace(r"\]", "]")
    return (
        re.fullmatch(expression + ("(/.*)?" if "{,/**}" in pattern and not tail else ""), path)
        is not None
    )


@pytest.mark.parametrize(
    ("path", "covered"),
    [
        ("/sys/kernel", True),
        ("/sys/kernel/uevent_helper", True),
        ("/sys/f", True),
        ("/sys/fs2/x", True),
        ("/sys/firmware/efi", True),
        ("/sys/fs/selinux/load", True),
        ("/sys/fs/c/x", True),
        ("/sys/fs/cgroups/x", True),
        ("/sys/fs/cgro", True),
        ("/sys/fs/bpf/x", True),
        ("/sys/fs/cgroup", False),
        ("/sys/fs/cgroup/memory.max", False),
        ("/sys/fs", False),
        ("/sys", False),
    ],
)
def test_all_but_one_tree_is_covered(path: str, covered: bool) -> None:
    patterns = apparmor_profile.all_but("/sys", ("fs", "cgroup"))
    assert any(matches(pattern, path) for pattern in patterns) == covered


def choose(*options: str, **more: object) -> str | None:
    settings: dict[str, object] = {"loaded": LOADED, "privileged": False, "active": True}
    settings["default"] = OWN
    return apparmor_choice.choose(options, **(settings | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "more", "profile"),
    [
        ((), {}, OWN),
        (("default",), {}, OWN),
        (("docker-default",), {}, OWN),
        (("jaula-default",), {}, OWN),
        (("jaula-default",), {"loaded": None}, OWN),
        (("jaula-default",), {"privileged": True}, OWN),
        ((), {"loaded": {"jaula-default": "enforce"}}, None),
        (("mine",), {}, "mine"),
        (("mine", "weak"), {}, "weak"),
        (("mine",), {"privileged": True}, "mine"),
        (("unconfined",), {}, "unconfined"),
        ((), {"privileged": True}, "unconfined"),
        ((), {"active": False}, None),
        (("unconfined",), {"active": False}, None),
        ((), {"loaded": {}}, None),
        ((), {"loaded": None}, None),
        (("mine",), {"loaded": None}, "mine"),
        (("docker-default",), {"loaded": {"docker-default": "enforce"}}, "docker-default"),
    ],
)
def test_the_requested_profile_is_chosen(
    options: tuple[str, ...], more: dict[str, object], profile: str | None
) -> None:
    assert choose(*options, **more) == profile


@pytest.mark.parametrize("name", ["nosuch", "a\nb", "x" * 300, "\x00", "mine//&unconfined"])
def test_a_profile_that_is_not_loaded_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        choose(name)


def test_a_request_for_the_default_profile_is_refused_if_it_is_not_loaded() -> None:
    with pytest.raises(InvalidRequest, match="not loaded"):
        choose("jaula-default", loaded={})
    with pytest.raises(InvalidRequest, match="not loaded"):
        choose("jaula-default", loaded={"jaula-default": "enforce"})  # another engine's
    with pytest.raises(InvalidRequest, match="not enabled"):
        choose("mine", active=False)


def test_a_spec_gets_the_profile() -> None:
    module = AppArmor(active=True, loaded=LOADED, default=OWN)
    done = module.confine(Spec(process=Process(cwd="/")), LabelRequest())
    assert module.requested(done) == OWN
    assert module.security_option() == "name=apparmor,profile=jaula-default"
    without = AppArmor(active=True, loaded={}, default=OWN)
    assert without.security_option() == "name=apparmor,profile=unconfined"


def test_the_list_of_profiles_is_parsed() -> None:
    text = "mine (enforce)\n/usr/bin/a (b) c (complain)\nbroken\n:ns://x (unconfined)\n"
    assert parse_profiles(text) == {
        "mine": "enforce",
        "/usr/bin/a (b) c": "complain",
        ":ns://x": "unconfined",
    }


@given(st.text(max_size=60))
def test_any_text_of_the_kernel_is_parsed(text: str) -> None:
    parse_profiles(text)
    name, _ = parse_current(text)
    assert len(name) <= len(text)


@pytest.mark.parametrize(
    ("requested", "current", "same"),
    [
        ("mine", "mine (enforce)\n", True),
        ("mine", "mine//child (enforce)", True),
        ("mine", "engine//&mine (enforce)", True),
        ("unconfined", "unconfined\0", True),
        ("mine", "unconfined", False),
        ("mine", "mine2 (enforce)", False),
        ("mine", "", False),
        ("unconfined", "mine (enforce)", False),
    ],
)
def test_the_current_profile_is_compared_with_the_requested_one(
    requested: str, current: str, same: bool
) -> None:
    assert runs_under(requested, current) == same
