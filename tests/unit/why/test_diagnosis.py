"""Events become one diagnosis for each distinct reason; reports hide what programs expect."""

from __future__ import annotations

import json

from jaula.features.why import oom
from jaula.features.why.confinement import Confinement, Usage
from jaula.features.why.diagnosis import LiveReasons, Report, Start, diagnoses, ended, start_failure
from jaula.features.why.exec_errors import ExecError
from jaula.features.why.explain import FileFacts, OpenedFile
from jaula.features.why.layers import Explanation, Layer
from jaula.features.why.refusal import Event, Exit, OutOfMemory, Refusal, Signal
from jaula.features.why.report import plain, to_json, to_summary, to_text
from jaula.features.why.session import Trace
from jaula.kernel import mountinfo
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.spec.annotations import PathRule, Ruleset


def trace(*events: Event, **fields: object) -> Trace:
    return Trace(
        events=events,
        facts=(),
        mounts=(),
        pids=Usage(),
        memory=Usage(**fields),  # type: ignore[arg-type]
    )


def execution(path: bytes, errno: str, program: str = "/bin/sh") -> Refusal:
    return Refusal(syscall="execve", errno=errno, text=path, name="sh", program=program)


def test_the_search_of_path_is_no_refusal_if_the_program_is_found() -> None:
    events = (
        execution(b"/usr/bin/cat", "ENOENT"),
        execution(b"", "", program="/bin/cat"),
    )
    assert diagnoses(trace(*events), Confinement()) == ()


def test_the_search_of_a_missing_program_is_one_diagnosis() -> None:
    events = [execution(b"/%d/cat" % n, "ENOENT") for n in range(6)]
    (found,) = diagnoses(trace(*events), Confinement())
    assert "cat is in no directory of PATH" in found.explanation.rule
    assert len(found.operations) == 6


def test_operations_of_one_reason_are_one_block() -> None:
    call = Refusal(syscall="keyctl", errno="EPERM", entered=False, name="a", count=3)
    (found,) = diagnoses(trace(call, call), Confinement())
    assert [each.count for each in found.operations] == [6]


def test_memory_names_victim_numbers_and_the_largest_process() -> None:
    events = (
        OutOfMemory(name="db", program="/db", pid=5),
        Signal(signal="SIGKILL", receiver="db", program="/db", pid=5, kernel=True, inside=False,
               sender="db", sender_pid=5, code=128),
        Exit(name="db", program="/db", pid=5, status=9, peak=30 << 20),
        Exit(name="sh", program="/sh", pid=4, status=0, peak=1 << 20),
    )  # fmt: skip
    (found,) = diagnoses(trace(*events, limit=32 << 20, peak=32 << 20, hits=1), Confinement())
    assert found.explanation.layer is Layer.MEMORY_LIMIT
    for text in ("limit 32 MiB", "peak 32 MiB", "victim db (5)", "largest process db (5)"):
        assert text in found.explanation.rule
    assert found.explanation.flag == "--memory 64m"


def test_signals_name_their_sender() -> None:
    sent = Signal(signal="SIGKILL", receiver="a", program="/a", pid=5, kernel=False, inside=False,
                  sender="bash", sender_pid=77, code=0)  # fmt: skip
    assert "bash (77), a process of the host" in oom.ended_by(sent).rule


def test_an_exited_container_is_explained_by_its_state() -> None:
    state = {"State": {"ExitCode": 137, "OOMKilled": True}, "Path": "db"}
    (found,) = ended(state, Confinement(memory=Usage(limit=64 << 20)))
    assert found.explanation.layer is Layer.MEMORY_LIMIT
    state["State"] = {"ExitCode": 139, "OOMKilled": False}
    (found,) = ended(state, None)
    assert found.explanation.layer is Layer.PROGRAM
    state["State"] = {"ExitCode": 1, "OOMKilled": False}
    assert ended(state, None) == ()


def test_exit_codes_in_words() -> None:
    assert oom.status_text(139) == "139: ended by SIGSEGV"
    assert oom.status_text(127) == "127: the program was not found"
    assert oom.status_text(3) == "3"
    assert oom.exit_signal(200) is None


def test_the_text_has_no_control_characters() -> None:
    start = Start(words=("\x1b[2J",), path="\x1b[2J", reason="exec: \x1b[2J no such file")
    (found,) = start_failure(start, ExecError("\x07", ""), None, None)
    report = Report(container="a", state="b\nc", diagnoses=(found,), notes=("\x9b",))
    text = to_text(report)
    assert all(each.isprintable() for line in text.split("\n") for each in line)
    assert json.loads(to_json(report))["diagnoses"][0]["explanation"]["layer"] == "program"
    assert plain("a\tb") == "a\\tb"


EXECUTE = int(FS.EXECUTE)
RULES = Ruleset(handled_access_fs=EXECUTE, paths=(PathRule("/usr/bin/sh", EXECUTE),))


def opened(path: str, target: str = "", **fields: object) -> OpenedFile:
    status = {"mode": 0o100755, "inode": "0:30 7", **fields}
    if status["inode"]:
        status.setdefault("rights", 0)
    return OpenedFile(path=path, target=target or path, **status)  # type: ignore[arg-type]


def start_of(*files: OpenedFile, uid: int = 0, **fields: object) -> Explanation:
    start = Start(
        words=("ls",), path=files[0].path, reason='exec: "ls": permission denied', uid=uid,
    )  # fmt: skip
    confinement = Confinement(host_users=True, landlock=RULES, **fields)  # type: ignore[arg-type]
    facts = FileFacts(mode=files[0].mode, uid=files[0].uid, opened=files)
    (found,) = start_failure(start, ExecError(), confinement, facts)
    assert found.operations[0].errno == "EACCES"
    return found.explanation


def test_a_start_that_landlock_refused_names_the_rules() -> None:
    found = start_of(opened("/bin/ls", "/usr/bin/ls"))
    assert found.layer is Layer.LANDLOCK
    assert "/bin/ls (it is /usr/bin/ls)" in found.rule
    assert found.flag == "--security-opt landlock=execute=/usr/bin/ls"
    assert found.proof.startswith('the runtime: exec: "ls": permission denied')
    assert "the rules to execute are for /usr/bin/sh" in found.proof
    assert "inode 0:30 7" in found.proof
    by_path = start_of(opened("/bin/sh", "/usr/bin/sh", inode=""))
    assert by_path.layer is not Layer.LANDLOCK, "a rule has the path"


def test_the_loader_of_a_listed_program_needs_a_rule() -> None:
    found = start_of(opened("/bin/ls", rights=EXECUTE), opened("/lib/ld.so"))
    assert "execute /lib/ld.so, which the kernel opens to execute /bin/ls" in found.rule


def test_a_start_is_refused_by_the_mode_before_landlock() -> None:
    found = start_of(opened("/bin/ls", mode=0o100700), uid=100)
    assert found.layer is Layer.PERMISSION
    assert "/bin/ls has mode 0700 and belongs to user 0; the process is user 100" in found.rule
    found = start_of(opened("/bin/ls", mode=0o100755), uid=100)
    assert found.layer is Layer.LANDLOCK, "mode 0755 does not refuse"
    override = frozenset({"CAP_DAC_OVERRIDE"})
    found = start_of(opened("/bin/ls", mode=0o100700), uid=100, effective=override)
    assert found.layer is Layer.LANDLOCK, "the runtime has the capability until execve"


def test_a_hard_link_of_an_image_is_not_the_file_of_the_rule() -> None:
    linked = opened("/bin/ls", hard_link="/usr/bin/sh")
    root = mountinfo.parse("1 0 0:30 / / rw - overlay overlay rw\n")
    assert "overlayfs gives each hard link" in start_of(linked, mounts=root).rule
    disk = mountinfo.parse("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
    assert start_of(linked, mounts=disk).layer is not Layer.LANDLOCK


def test_a_live_reason_is_new_once_and_when_it_lasts() -> None:
    reasons = LiveReasons()
    call = Refusal(syscall="keyctl", errno="EPERM", entered=False, name="a")
    search = (execution(b"/usr/bin/cat", "ENOENT"), execution(b"/sbin/cat", "ENOENT"))
    first = diagnoses(trace(call, *search), Confinement())
    assert reasons.new(first) == ()
    found = execution(b"", "", program="/bin/cat")
    second = diagnoses(trace(call, *search, found), Confinement())
    (new,) = reasons.new(second)
    assert new.operations[0].call == "keyctl"
    assert reasons.new(second) == ()
    grown = diagnoses(trace(call, call, found), Confinement())
    assert reasons.new(grown) == ()
    other = Refusal(syscall="swapoff", errno="EPERM", name="a")
    (last,) = reasons.new(diagnoses(trace(call, other), Confinement()), final=True)
    assert last.operations[0].call == "swapoff"


def test_the_summary_has_one_remedy_for_each_reason() -> None:
    call = Refusal(syscall="keyctl", errno="EPERM", entered=False, name="a\x1b", count=3)
    report = Report(
        container="web", state="running", diagnoses=diagnoses(trace(call), Confinement())
    )
    text = to_summary(report)
    assert "       3  seccomp: keyctl: EPERM (a\\x1b)" in text
    assert "nothing was refused" in to_summary(Report(container="a", state="", diagnoses=()))


def test_what_programs_expect_is_hidden_but_counted() -> None:
    call = Refusal(syscall="clone3", errno="ENOSYS", name="a", count=3)
    found = diagnoses(trace(call), Confinement())
    report = Report(container="a", state="running", diagnoses=(), harmless=found)
    assert "nothing was refused" in to_text(report)
    assert "3 refusals that programs expect" in to_text(report)
    assert "clone3" in to_text(report, with_harmless=True)


def test_numbers_from_before_an_oom_kill_are_not_its_proof() -> None:
    victim = OutOfMemory(name="db", program="/db", pid=5)
    (found,) = diagnoses(trace(victim, limit=32 << 20, peak=20 << 20, hits=0), Confinement())
    assert found.explanation.proof == "oom:mark_victim"
    assert found.explanation.rule == "limit 32 MiB; victim db (5)"
