"""Security contexts of CRI as security options of the engine. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from jaula import trusted_file
from jaula.cri.proto import api_pb2 as api
from jaula.errors import InvalidRequest

_PROFILE_LIMIT = 1 << 20  # bytes


def container_options(context: api.LinuxContainerSecurityContext) -> Iterator[str]:
    """Yield the security options of a container.

    Without a seccomp profile it has the default one. The kubelet always sends one.

    :raises InvalidRequest: when a profile has no name, or cannot be read.
    """
    if context.privileged:
        yield "seccomp=unconfined"
    elif context.HasField("seccomp"):
        match context.seccomp.profile_type:
            case api.SecurityProfile.Unconfined:
                yield "seccomp=unconfined"
            case api.SecurityProfile.Localhost:
                yield f"seccomp={_read_profile(context.seccomp.localhost_ref)}"
    yield from sandbox_options(context)
    if context.no_new_privs:
        yield "no-new-privileges"


def sandbox_options(
    context: api.LinuxContainerSecurityContext | api.LinuxSandboxSecurityContext,
) -> Iterator[str]:
    """Yield the options of AppArmor and SELinux, which a sandbox has as well.

    :raises InvalidRequest: when a profile has no name.
    """
    yield from _apparmor(context)
    selinux = context.selinux_options
    for field in ("user", "role", "type", "level"):
        if value := getattr(selinux, field):
            yield f"label={field}:{value}"


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


def _read_profile(path: str) -> str:
    """Return the seccomp profile in a file of the host.

    :raises InvalidRequest: when it cannot be read, or other users may write it.
    """
    name = path.removeprefix("localhost/")
    if not name.startswith("/"):
        raise InvalidRequest(
            f"the seccomp profile {path[:200]!r} of type Localhost must be an absolute path"
        )
    data = trusted_file.read(name, _PROFILE_LIMIT, "the seccomp profile", required=True)
    assert data is not None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the seccomp profile {name} is not UTF-8: {error}") from None
