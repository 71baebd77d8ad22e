"""From a spec's process and its container's filter and rules to a process that can be become.

The one place that compiles the seccomp program and reaches the seccomp agent: for init and for
exec, in the engine and out of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaula.errors import RuntimeFailure
from jaula.runtime.create.fd_stack import FdStack
from jaula.runtime.init import exec as init_exec
from jaula.runtime.init import seccomp_notify
from jaula.runtime.init.personality import personality_value
from jaula.runtime.interfaces import Interfaces
from jaula.spec.annotations import LANDLOCK_ANNOTATION
from jaula.spec.runtime import Linux, Process, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.init import landlock


def prepare(
    wanted: Process,
    linux: Linux,
    state: State,
    parts: Interfaces,
    keep: FdStack,
    *,
    seccomp_cache: str | None = None,
    session_keyring: bool = True,
    annotations: Mapping[str, str],
    joining: bool = False,
) -> init_exec.ProcessConfig:
    """Encode, compile and check; ``annotations`` are the spec's.

    Raises ``RuntimeFailure`` or ``InvalidRequest``.
    """
    program = listener = None
    if linux.seccomp is not None:
        program = parts.seccomp_program(linux.seccomp, seccomp_cache)
        listener = seccomp_notify.connect(linux.seccomp, state)
        if listener is not None:
            keep.add(listener.socket)
    try:
        return init_exec.prepare(
            wanted,
            program,
            listener=listener,
            session_keyring=session_keyring,
            personality=personality_value(linux.personality) if linux.personality else None,
            rules=_rules(annotations, joining=joining),
        )
    except init_exec.ExecError as failure:
        raise RuntimeFailure(str(failure), exit_code=failure.exit_code) from None


def _rules(annotations: Mapping[str, str], *, joining: bool) -> landlock.CompiledLandlock | None:
    """What is loaded for them, 2 ms, is loaded only where a spec has some."""
    if LANDLOCK_ANNOTATION not in annotations:
        return None
    from jaula.runtime.init import landlock

    return landlock.prepare(annotations, joining=joining)
