"""Security contexts of CRI as security options of the engine. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.cri.proto import api_pb2 as api
from jaula.errors import InvalidRequest

RUNTIME_DEFAULT = api.SecurityProfile.RuntimeDefault
UNCONFINED = api.SecurityProfile.Unconfined
LOCALHOST = api.SecurityProfile.Localhost


def options(
    context: api.LinuxContainerSecurityContext | api.LinuxSandboxSecurityContext,
) -> Iterator[str]:
    """Yield the security options that a context asks for: seccomp, AppArmor, SELinux.

    :raises InvalidRequest: when a profile has no name.
    """
    yield from _seccomp(context)
    yield from _apparmor(context)
    selinux = context.selinux_options
    for field in ("user", "role", "type", "level"):
        if value := getattr(selinux, field):
            yield f"label={field}:{value}"


def _seccomp(
    context: api.LinuxContainerSecurityContext | api.LinuxSandboxSecurityContext,
) -> Iterator[str]:
    if context.privileged or not context.HasField("seccomp"):
        yield "seccomp=unconfined"
        return
    match context.seccomp.profile_type:
        case api.SecurityProfile.Unconfined:
            yield "seccomp=unconfined"
        case api.SecurityProfile.Localhost:
            yield f"seccomp={read_profile(context.seccomp.localhost_ref)}"


def _apparmor(
    context: api.LinuxContainerSecurityContext | api.LinuxSandboxSecurityContext,
) -> Iterator[str]:
    if context.privileged or not context.HasField("apparmor"):
        return
    match context.apparmor.profile_type:
        case api.SecurityProfile.Unconfined:
            yield "apparmor=unconfined"
        case api.SecurityProfile.Localhost:
            name = context.apparmor.localhost_ref.removeprefix("localhost/")
            if not name:
                raise InvalidRequest("an AppArmor profile of type Localhost needs a name")
            yield f"apparmor={name}"


def read_profile(path: str) -> str:
    """Return the seccomp profile in a file of the host.

    :raises InvalidRequest: when it cannot be read.
    """
    name = path.removeprefix("localhost/")
    if not name.startswith("/"):
        raise InvalidRequest(
            f"the seccomp profile {path[:200]!r} of type Localhost must be an absolute path"
        )
    try:
        with open(name, encoding="utf-8") as file:
            return file.read(_PROFILE_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the seccomp profile {name}: {error}") from None


_PROFILE_LIMIT = 1 << 20  # bytes
