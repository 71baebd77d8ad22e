"""From a spec's process and its container's filter to a process that can be become.

The one place that compiles the seccomp program and reaches the seccomp agent: for init and for
exec, in the engine and out of it.
"""

from __future__ import annotations

from jaula.errors import RuntimeFailure
from jaula.runtime import become, notify
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
) -> become.Prepared:
    """Encode, compile and check. Raises ``RuntimeFailure`` or ``InvalidRequest``."""
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
        )
    except become.Failure as failure:
        raise RuntimeFailure(str(failure), exit_code=failure.exit_code) from None
