"""Security contexts of CRI as security options of the engine. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from jaula import trusted_file
from jaula.errors import InvalidRequest, Unsupported
from jaula.features.kubernetes.cri.enums import enum_name
from jaula.features.kubernetes.cri.proto import api_pb2

_PROFILE_LIMIT = 1 << 20  # bytes
_LOCALHOST = "localhost/"


def container_options(context: api_pb2.LinuxContainerSecurityContext) -> Iterator[str]:
    """Yield the security options of a container.

    CRI defines that an absent seccomp profile is ``Unconfined``. The kubelet always sends one.

    :raises InvalidRequest: when a profile has no name, or cannot be read.
    """
    seccomp = _seccomp(context)
    match seccomp.profile_type:
        case api_pb2.SecurityProfile.Unconfined:
            yield "seccomp=unconfined"
        case api_pb2.SecurityProfile.Localhost:
            yield f"seccomp={_read_profile(seccomp.localhost_ref)}"
    yield from sandbox_options(context)
    if context.no_new_privs:
        yield "no-new-privileges"


def profile_path(context: api_pb2.LinuxContainerSecurityContext) -> str:
    """Return the seccomp profile of the host that a container has, '' if it has none.

    :raises InvalidRequest: when the profile is of an unknown type.
    """
    seccomp = _seccomp(context)
    if seccomp.profile_type != api_pb2.SecurityProfile.Localhost:
        return ""
    return seccomp.localhost_ref.removeprefix(_LOCALHOST)


def _seccomp(context: api_pb2.LinuxContainerSecurityContext) -> api_pb2.SecurityProfile:
    profile = _profile(context, "seccomp", "seccomp_profile_path")
    if context.privileged or profile is None:
        return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Unconfined)
    return profile


def sandbox_options(
    context: api_pb2.LinuxContainerSecurityContext | api_pb2.LinuxSandboxSecurityContext,
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
    context: api_pb2.LinuxContainerSecurityContext | api_pb2.LinuxSandboxSecurityContext,
) -> Iterator[str]:
    apparmor = _profile(context, "apparmor", "apparmor_profile")
    if context.privileged or apparmor is None:
        return
    match apparmor.profile_type:
        case api_pb2.SecurityProfile.Unconfined:
            yield "apparmor=unconfined"
        case api_pb2.SecurityProfile.Localhost:
            name = apparmor.localhost_ref.removeprefix(_LOCALHOST)
            if not name:
                raise InvalidRequest("an AppArmor profile of type Localhost needs a name")
            yield f"apparmor={name}"


def _profile(
    context: api_pb2.LinuxContainerSecurityContext | api_pb2.LinuxSandboxSecurityContext,
    field: str,
    deprecated: str,
) -> api_pb2.SecurityProfile | None:
    """Return a profile, of the deprecated field if the other is absent; None for no profile.

    :raises InvalidRequest: when its type, or the text of the deprecated field, is unknown.
    """
    if context.HasField(field):
        profile: api_pb2.SecurityProfile = getattr(context, field)
        enum_name(
            api_pb2.SecurityProfile.ProfileType, profile.profile_type, "the type of a profile"
        )
        return profile
    text = getattr(context, deprecated, "")  # a sandbox has no deprecated field for AppArmor
    match text:
        case "":
            return None
        case "runtime/default" | "docker/default":
            return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault)
        case "unconfined":
            return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.Unconfined)
    if not text.startswith(_LOCALHOST):
        raise InvalidRequest(
            f"{deprecated} {text[:80]!r} must be one of runtime/default, unconfined and"
            " localhost/NAME"
        )
    return api_pb2.SecurityProfile(
        profile_type=api_pb2.SecurityProfile.Localhost, localhost_ref=text.removeprefix(_LOCALHOST)
    )


def capability_changes(
    requested: api_pb2.Capability,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the capabilities to add and to drop, as Docker's lists.

    Kubernetes' runtimes add first and drop then, ALL before names. Docker prefers what is added.
    So a name to drop, and ALL if all are dropped, is not added.

    :raises Unsupported: when ambient capabilities are requested.
    """
    if requested.add_ambient_capabilities:
        raise Unsupported(
            "ambient capabilities are not supported: add_ambient_capabilities must be empty",
            hint="give the program file capabilities, or run it as root",
        )
    drop = tuple(requested.drop_capabilities)
    dropped = {_plain(name) for name in drop}
    add = tuple(name for name in requested.add_capabilities if _plain(name) not in dropped)
    return add, drop


def _plain(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _read_profile(path: str) -> str:
    """Return the seccomp profile in a file of the host.

    :raises InvalidRequest: when it cannot be read, or other users may write it.
    """
    name = path.removeprefix(_LOCALHOST)
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
