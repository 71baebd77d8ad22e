"""From a spec's process and its container's filter and rules to a process that can be become.

The one place that compiles the seccomp program and reaches the seccomp agent: for init and for
exec, in the engine and out of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaula.errors import RuntimeFailure
from jaula.runtime import become, landlock, notify
from jaula.runtime.personality import personality_value
from jaula.runtime.ports import Parts
from jaula.runtime.preparation import Keep
from jaula.spec.runtime import Linux, Process, State


def prepare(
    wanted: Process,
    linux: Linux,
    state: State,
    parts: Parts,
    keep: Keep,
    *,
    seccomp_cache: str | None = None,
    session_keyring: bool = True,
    annotations: Mapping[str, str],
    joining: bool = False,
) -> become.Prepared:
    """Encode, compile and check; ``annotations`` are the spec's.

    Raises ``RuntimeFailure`` or ``InvalidRequest``.
    """
    program = listener = None
    if linux.seccomp is not None:
        program = parts.seccomp_program(linux.seccomp, seccomp_cache)
        listener = notify.connect(linux.seccomp, state)
        if listener is not None:
            keep.add(listener.socket)
    try:
        return become.prepare(
            wanted,
            program,
            listener=listener,
            session_keyring=session_keyring,
            personality=personality_value(linux.personality) if linux.personality else None,
            rules=landlock.prepare(annotations, joining=joining),
        )
    except become.Failure as failure:
        raise RuntimeFailure(str(failure), exit_code=failure.exit_code) from None
