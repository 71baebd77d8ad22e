"""Choose the AppArmor profile of a container.

Follows apparmor(7) and Docker's ``--security-opt apparmor=``. Without the option a container gets
the engine's own profile (:mod:`jaula.security.lsm.apparmor_profile`), and ``--privileged`` none.
Its names in requests are :data:`DEFAULT_NAMES`; the kernel has it by another one.

Facts about a change of profile: the name is written to attr/apparmor/exec and takes effect at the
next execve. A confined process with no_new_privs can only change to a subset. A stack of the
present and the new profile is always a subset. For an unconfined process both are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from jaula.errors import InvalidRequest
from jaula.kernel.apparmor_files import parse_current
from jaula.security.lsm.interface import LabelRequest
from jaula.spec.apparmor_name import NAME
from jaula.spec.runtime_spec import Process, Spec

UNCONFINED = "unconfined"
DEFAULT_NAMES = ("", "default", "runtime/default", "docker-default", NAME)
_LIMIT = 256


def choose(
    options: tuple[str, ...],
    loaded: Mapping[str, str] | None,
    default: str,
    *,
    privileged: bool,
    active: bool,
) -> str | None:
    """Return the kernel's name of a container's profile, None if no profile is to be set.

    ``loaded`` are the loaded profiles, None if the kernel does not list them. ``default`` is the
    kernel's name of the engine's own profile.

    :raises InvalidRequest: when the requested profile is not loaded or not valid.
    """
    requested = options[-1] if options else ""
    if not active:
        if requested in ("", UNCONFINED):
            return None
        raise InvalidRequest(
            f"AppArmor is not enabled on this host, so the profile {requested} cannot be used"
        )
    if requested == UNCONFINED or (privileged and not requested):
        return UNCONFINED
    if not requested.isprintable() or len(requested) > _LIMIT:
        raise InvalidRequest(f"invalid --security-opt apparmor={requested!r}")
    if not requested and default not in (loaded or ()):
        return None  # it could not be loaded, which `info` reports; the other layers confine
    # A profile of the host may have one of the names. NAME may be that of an older engine.
    taken = requested != NAME and requested in (loaded or ())
    name = default if requested in DEFAULT_NAMES and not taken else requested
    if loaded is None or name in loaded:
        return name
    raise InvalidRequest(
        f"the AppArmor profile {requested} is not loaded",
        hint="load it with apparmor_parser -r FILE; aa-status lists the loaded profiles",
    )


class AppArmor:
    """A :class:`~jaula.security.lsm.interface.MandatoryAccess` with the loaded profiles.

    ``loaded`` and ``default`` are those of :func:`choose`.
    """

    name = "apparmor"
    option = "apparmor"

    def __init__(self, *, active: bool, loaded: Mapping[str, str] | None, default: str) -> None:
        self.active = active
        self.loaded = loaded
        self.default = default

    def enabled(self) -> bool:
        return self.active

    def security_option(self) -> str:
        available = self.loaded is None or self.default in self.loaded
        return f"name=apparmor,profile={NAME if available else UNCONFINED}"

    def confine(self, spec: Spec, request: LabelRequest) -> Spec:
        """Set the profile in the process section of the spec."""
        profile = choose(
            request.options,
            self.loaded,
            self.default,
            privileged=request.privileged,
            active=self.active,
        )
        process = spec.process or Process(cwd="/")
        return structs.replace(spec, process=structs.replace(process, apparmor_profile=profile))

    def requested(self, spec: Spec) -> str:
        return (spec.process.apparmor_profile if spec.process else None) or ""

    def in_effect(self, pid: int) -> str | None:
        with open(f"/proc/{pid}/attr/apparmor/current", encoding="utf-8") as file:
            return parse_current(file.read())[0]
