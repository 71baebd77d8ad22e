"""The proof of a profile judges loaded filters call by call, and tries what the profile lacks."""

from __future__ import annotations

import errno

from jaula.features.harden.tally import words
from jaula.features.verify.escape import profile as escape
from jaula.features.verify.escape.attempts import Attempt
from jaula.features.verify.escape.program import CALL32, Answer
from jaula.features.verify.escape.results import AttemptResult, evaluate_attempt
from jaula.features.verify.model.result import Result, Verdict
from jaula.security.seccomp.seccomp_filter import ALWAYS_ALLOWED, build
from jaula.spec.confinement_profile import Files, Profile, Seccomp
from jaula.spec.runtime_spec import Seccomp as Rules
from jaula.spec.runtime_spec import Syscall

CALLS = words("close openat read write")
WEB = Profile(
    name="web",
    capabilities=("CHOWN",),
    seccomp=Seccomp(syscalls={"x86_64": CALLS}, unavailable={"x86_64": ("clone3",)}),
    files=Files(write=("/var/lib/web/", "/tmp/")),
)


def loaded(*calls: str) -> list[bytes]:
    """Return the filter that allows these calls on x86-64."""
    rules = Rules(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=errno.EPERM,
        architectures=("SCMP_ARCH_X86_64",),
        syscalls=(Syscall((*calls, *ALWAYS_ALLOWED), "SCMP_ACT_ALLOW"),),
    )
    return [build(rules)]


def row(*calls: str) -> Result:
    return next(each for each in escape.filter_rows(WEB, loaded(*calls)) if "x86_64" in each.id)


def attempt(group: str, name: str) -> Attempt:
    return next(
        each for each in escape.attempts(WEB) if each.group.endswith(group) and each.name == name
    )


def refused(made: Attempt, value: int) -> bool | None:
    answers = [Answer(value, reached=True, count=0)] * len(made.steps)
    return evaluate_attempt(made, Answer(0, reached=True, count=0), answers).refused


def test_the_filter_of_the_profile_holds() -> None:
    assert row(*CALLS).verdict is Verdict.HOLDS
    assert row(*CALLS).effective.endswith("9 of 9 allowed")  # with those that are always allowed


def test_a_wider_filter_fails_by_name() -> None:
    wider = row(*CALLS, "mincore", "ptrace")
    assert wider.verdict is Verdict.FAILS
    assert "also allowed: mincore, ptrace" in wider.effective


def test_a_narrower_filter_fails_by_name() -> None:
    narrower = row(*CALLS[1:])
    assert narrower.verdict is Verdict.FAILS
    assert narrower.effective.endswith("refused: close")


def test_no_filter_allows_everything() -> None:
    rows = list(escape.filter_rows(WEB, []))
    assert {each.verdict for each in rows} == {Verdict.FAILS}


def test_calls_of_an_abi_without_a_list_are_a_hole() -> None:
    rules = Rules(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=errno.EPERM,
        architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
        syscalls=(Syscall((*CALLS, *ALWAYS_ALLOWED), "SCMP_ACT_ALLOW"),),
    )
    found = {each.id: each for each in escape.filter_rows(WEB, [build(rules)])}
    assert found["profile: calls i386"].verdict is Verdict.FAILS
    assert found["profile: calls x86_64"].verdict is Verdict.HOLDS


def test_a_profile_without_a_list_of_calls_takes_none_away() -> None:
    assert not list(escape.filter_rows(Profile(name="web"), loaded(*CALLS)))
    assert not [each for each in escape.attempts(Profile(name="web")) if "calls" in each.group]


def test_calls_of_the_profile_and_harmful_ones_are_not_attempted() -> None:
    names = {each.name for each in escape.attempts(WEB) if each.group == "profile: calls not in it"}
    assert {"mincore", "ptrace", "bpf", "clone3"} <= names
    assert not {*CALLS, "exit_group", "reboot", "pause", "fork"} & names
    assert "CAP_CHOWN" not in {each.name for each in escape.attempts(WEB)}


def test_calls_of_other_abis_are_made_by_their_own_entry() -> None:
    made = {each.name: each for each in escape.attempts(WEB) if "i386" in each.group}
    assert made["read"].steps[0].operation == CALL32
    assert made["read"].steps[0].number == 3
    assert "sigsuspend" not in made and "reboot" not in made
    x32 = {each.name: each for each in escape.attempts(WEB) if "x32" in each.group}
    assert x32["read"].steps[0].number == 1 << 30


def test_the_result_of_a_call_decides() -> None:
    call = attempt("calls not in it", "mincore")
    assert refused(call, -errno.EPERM)
    assert refused(call, -errno.EINVAL) is False
    absent = attempt("calls not in it", "clone3")
    assert refused(absent, -errno.ENOSYS)
    assert refused(absent, -errno.EPERM) is False


def test_a_capability_in_the_bounding_set_is_a_hole() -> None:
    made = attempt("capabilities not in it", "CAP_SETUID")
    assert refused(made, 0)
    assert refused(made, 1) is False


def test_directories_outside_of_the_profile_are_tried() -> None:
    names = {each.name for each in escape.attempts(WEB) if "writes" in each.group}
    assert {"/", "/etc", "/var", "/var/lib"} <= names
    assert "/tmp" not in names
    made = attempt("writes outside of it", "/etc")
    assert refused(made, -errno.EROFS)
    assert refused(made, -errno.EACCES)
    assert refused(made, 3) is False


def test_the_tmpfs_of_the_engine_is_relaxed_without_a_list_of_writing() -> None:
    open_ended = {each.name: each for each in escape.attempts(Profile(name="web"))}
    assert open_ended["/dev"].relaxed_by and open_ended["/dev/shm"].relaxed_by
    assert open_ended["/etc"].relaxed_by is None
    assert attempt("writes outside of it", "/dev").relaxed_by is None


def test_files_outside_of_the_profile_are_tried_if_it_lists_any() -> None:
    assert not any("reads" in each.group for each in escape.attempts(WEB))
    listed = Profile(name="web", files=Files(read=("/etc/group", "/usr/lib/"), execute=("/web",)))
    names = {each.name for each in escape.attempts(listed) if "reads" in each.group}
    assert {"/etc/passwd", "/usr", "/root"} <= names
    assert "/etc/group" not in names


def test_files_of_the_profile_must_work() -> None:
    listed = Profile(
        name="web",
        files=Files(read=("/etc/group",), tmpfs={"/tmp": "", "/run": ""}, write=("/tmp/",)),
    )
    made = escape.permitted(listed)
    assert [each.name for each in made] == ["/etc/group", "/tmp"]
    works = [
        AttemptResult(made[0], refused=False, answer=""),
        AttemptResult(made[1], refused=True, answer="EROFS"),
    ]
    (row,) = escape.permitted_rows(works)
    assert row.verdict is Verdict.FAILS
    assert row.effective == "1 of 2 work; refused: /tmp"
    assert refused(made[0], -errno.ENOENT) is False
    assert refused(made[0], -errno.EACCES)


def test_the_twin_may_execute_the_probe() -> None:
    own = escape.of_probe(WEB, "/.probe")
    assert {*CALLS, *escape.PROBE} == set(own.seccomp.syscalls["x86_64"])
    assert own.files == WEB.files  # without a list every program may be executed
    restricted = Profile(name="web", files=Files(execute=("/web",)))
    assert escape.of_probe(restricted, "/.probe").files.execute == ("/web", "/.probe")
    assert escape.of_probe(restricted, "/.probe").seccomp == Seccomp()


def test_the_summary_names_the_rows_that_fail() -> None:
    rows = [row(*CALLS), row(*CALLS, "ptrace")]
    made = attempt("calls not in it", "mincore")
    stopped = [AttemptResult(made, refused=True, answer=""), AttemptResult(made, None, "")]
    worked = [AttemptResult(made, refused=False, answer="")]
    summed = escape.summary(rows, stopped, worked)
    assert summed.verdict is Verdict.FAILS
    assert summed.effective == ("1 of 2 refused, 1 of 1 allowed work; fail: profile: calls x86_64")
    assert escape.summary(rows[:1], stopped[:1], worked).verdict is Verdict.HOLDS
