"""Profile ``jaula``: the project's own rules (docs/security.md, "Statements").

Evidence: the rows of ``jaula verify`` on each container and on the host, the seals and the audit
log, the state of the engine's process. A row that a request relaxed does not hold here: the rules
are those of a container without flags. An exception accepts a relaxation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jaula.features.audit.benchmark import containers, engine
from jaula.features.audit.benchmark.container_state import ContainerState
from jaula.features.audit.benchmark.control import (
    Control,
    Judge,
    Judgement,
    Kind,
    Profile,
    Scope,
    fails,
    judged,
    not_applicable,
    passes,
    unknown,
)
from jaula.features.audit.benchmark.engine import EngineState
from jaula.features.audit.benchmark.host import HostState
from jaula.features.verify import host as host_checks
from jaula.features.verify.checks import TABLE
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, Verdict, quantity

SHOWN = 3  # rows of a finding
SECTIONS = {
    "host": "host",
    "engine": "engine",
    "images": "images",
    "isolation": "isolation in effect",
    "limits": "limits and privileges",
}


def judge_rows(rows: Sequence[Result], info: CheckInfo) -> Judgement:
    """Return the judgement of the rows of one check of ``jaula verify``. Pure."""
    own = [row for row in rows if row.check == info.id]
    if not own:
        return not_applicable(f"{info.id} has no row here")
    by_verdict = {v: [row for row in own if row.verdict is v] for v in Verdict}
    if failing := by_verdict[Verdict.FAILS]:
        return fails(_describe(failing), info.advice)
    if unreadable := by_verdict[Verdict.UNKNOWN]:
        return unknown(_describe(unreadable))
    if relaxed := by_verdict[Verdict.RELAXED]:
        return fails(f"relaxed by its request: {_describe(relaxed)}",
                     "create it without the flag, or add an exception")  # fmt: skip
    return passes(f"{quantity(len(own), 'row')}; {_describe(own)}")


def _describe(rows: Sequence[Result]) -> str:
    shown = "; ".join(f"{row.id}: {row.effective}" for row in rows[:SHOWN])
    return shown + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")


def _of_container(info: CheckInfo) -> Judge:
    def judge(state: ContainerState) -> Judgement:
        return judge_rows(state.rows, info)

    return judge


def _of_host(info: CheckInfo) -> Judge:
    def judge(state: HostState) -> Judgement:
        judgement = judge_rows(state.rows, info)
        # A host has no request: what is weaker than recommended is not relaxed by a flag.
        evidence = judgement.evidence.removeprefix("relaxed by its request: ")
        return Judgement(judgement.state, evidence, info.advice if judgement.remediation else "")

    return judge


def _audit_log(state: EngineState) -> Judgement:
    if state.audit_log is None:
        return unknown("the audit log cannot be read")
    return judged(
        not state.audit_log,
        "; ".join(state.audit_log[:SHOWN]) or "its chain is intact",
        "jaula system audit-log --verify; compare it with a head stored elsewhere",
    )


def _image_policy(state: EngineState) -> Judgement:
    if not state.image_policy:
        return unknown(f"the image policy {state.image_policy_path} cannot be read")
    return judged(
        state.image_policy != "accept",
        f"the general rule of {state.image_policy_path} is {state.image_policy}",
        "require signatures: set the rule * of [images] in the policy (docs/trust.md)",
    )


def _default_profile(state: EngineState) -> Judgement:
    if state.settings is None:
        return unknown("the engine's settings cannot be read")
    profile = state.settings.default_profile
    return judged(profile in ("default", "strict"), f"default profile {profile}",
                  "run the engine with --default-profile default or strict")  # fmt: skip


def _policy(state: EngineState) -> Judgement:
    if state.settings is None:
        return unknown("the engine's settings cannot be read")
    rules = state.settings.policy if state.policy_exists else "the built-in rules"
    return passes(f"each request is authorized by {rules}")


def _controls() -> Iterable[Control]:
    for info, _ in host_checks.TABLE:
        yield Control(info.id, 1, (Scope.HOST,), info.title, {Kind.HOST: _of_host(info)}, "host")
    engine_rules: tuple[tuple[str, int, str, Judge], ...] = (
        ("authorization", 1, "Each request is authorized", _policy),
        ("tcp-sockets", 1, "TCP sockets require client certificates", engine.tls_required),
        ("audit-log", 1, "The audit log is intact", _audit_log),
        ("default-profile", 1, "Containers without flags have the default isolation",
         _default_profile),
        ("default-limits", 1, "Containers without flags have limits", engine.default_limits),
        ("default-user-namespace", 1, "Containers without flags have user namespaces",
         engine.user_namespaces),
        ("default-seccomp", 1, "Containers without flags have a seccomp filter",
         engine.seccomp_in_force),
        ("packet-filter", 1, "The packet filter of the default bridge is loaded",
         engine.firewall_loaded),
    )  # fmt: skip
    for id, level, title, judge in engine_rules:
        yield Control(id, level, (Scope.ENGINE,), title, {Kind.ENGINE: judge}, "engine")
    yield Control("image-signatures", 2, (Scope.IMAGES,), "Images without a signature are refused",
                  {Kind.ENGINE: _image_policy}, "images")  # fmt: skip
    for info, _ in TABLE:
        yield Control(info.id, 1, (Scope.CONTAINERS,), info.title,
                      {Kind.CONTAINER: _of_container(info)}, "isolation")  # fmt: skip
    limits: tuple[tuple[str, int, str, Judge], ...] = (
        ("process-limit", 1, "The number of processes is limited", containers.limited_pids),
        ("engine-socket", 1, "No engine's socket is mounted", containers.no_engine_socket),
        ("memory-limit", 2, "Memory is limited", containers.limited_memory),
        ("cpu-limit", 2, "Processor time is limited", containers.limited_cpu),
        ("read-only-root", 2, "The root file system is read-only", containers.read_only_root),
    )
    for id, level, title, judge in limits:
        yield Control(id, level, (Scope.CONTAINERS,), title, {Kind.CONTAINER: judge}, "limits")


PROFILE = Profile("jaula", "jaula's statements of isolation", SECTIONS, tuple(_controls()))
