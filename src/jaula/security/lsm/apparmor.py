"""AppArmor for containers: which profile a container's processes run under. Decisions only.

Follows apparmor(7) and Docker's ``--security-opt apparmor=``. Without an option a container gets
the engine's own profile (:mod:`jaula.security.lsm.apparmor_profile`), ``--privileged`` none.

Facts about changing a profile: it is written to attr/apparmor/exec and takes effect at the next
execve. From a confined process with no_new_privs only a change to a subset is possible; a stack of
the present profile and the new one always is a subset. From an unconfined one both are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from jaula.errors import InvalidRequest
from jaula.kernel.apparmor import parse_current
from jaula.security.lsm.apparmor_profile import NAME
from jaula.security.lsm.interface import LabelRequest
from jaula.spec.runtime import Process, Spec

UNCONFINED = "unconfined"
DEFAULT_NAMES = ("", "default", "runtime/default", "docker-default", NAME)
_LIMIT = 256


def choose(
    options: tuple[str, ...],
    loaded: Mapping[str, str] | None,
    *,
    privileged: bool,
    active: bool,
) -> str | None:
    """The profile for a container; None where there is none to set.

    ``loaded`` is None where the kernel does not tell which profiles it has. Raises
    ``InvalidRequest`` for a profile that it does not have.
    """
    asked = options[-1] if options else ""
    if not active:
        if asked in ("", UNCONFINED):
            return None
        raise InvalidRequest(
            f"AppArmor is not enabled on this host, so the profile {asked} cannot confine"
        )
    if asked == UNCONFINED or (privileged and not asked):
        return UNCONFINED
    if not asked.isprintable() or len(asked) > _LIMIT:
        raise InvalidRequest(f"invalid --security-opt apparmor={asked!r}")
    if not asked and NAME not in (loaded or ()):
        return None  # it could not be loaded, which info says; the other layers hold
    if loaded is not None and asked in loaded:
        return asked
    if asked in DEFAULT_NAMES and (loaded is None or NAME in loaded):
        return NAME
    if loaded is None:
        return asked
    raise InvalidRequest(
        f"the AppArmor profile {asked} is not loaded",
        hint="apparmor_parser -r FILE loads one; aa-status lists what is there",
    )


class AppArmor:
    """A :class:`~jaula.security.lsm.interface.MandatoryAccess` of a host with these profiles."""

    name = "apparmor"
    option = "apparmor"

    def __init__(self, *, active: bool, loaded: Mapping[str, str] | None = None) -> None:
        self.active = active
        self.loaded = loaded

    def enabled(self) -> bool:
        return self.active

    def shown(self) -> str:
        has = self.loaded is None or NAME in self.loaded
        return f"name=apparmor,profile={NAME if has else UNCONFINED}"

    def confine(self, spec: Spec, request: LabelRequest) -> Spec:
        """The profile in the spec's process section."""
        profile = choose(
            request.options, self.loaded, privileged=request.privileged, active=self.active
        )
        process = spec.process or Process(cwd="/")
        return structs.replace(spec, process=structs.replace(process, apparmor_profile=profile))

    def requested(self, spec: Spec) -> str:
        return (spec.process.apparmor_profile if spec.process else None) or ""

    def in_effect(self, pid: int) -> str | None:
        with open(f"/proc/{pid}/attr/apparmor/current", encoding="utf-8") as file:
            return parse_current(file.read())[0]
