"""Load the authorisation policy that the configuration selects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.rootless import xdg_paths

if TYPE_CHECKING:
    from jaula.config import EngineConfig
    from jaula.engine.authz.authorization_policy import Policy


def policy_path(config: EngineConfig) -> str:
    """Return the path of the policy file, which must exist only if the configuration names it.

    It is '' for a rootless engine, since the machine's policy does not apply to it.
    """
    from jaula.engine.authz import policy_file

    is_rootless = xdg_paths.rootless_uid() is not None
    return config.policy or ("" if is_rootless else policy_file.DEFAULT_PATH)


def load_policy(config: EngineConfig) -> Policy:
    """Return the policy from the file, or the default policy: root and the socket's group.

    :raises InvalidRequest: when the file cannot be read; the engine then serves no request.
    """
    import grp
    import pwd

    from jaula.engine.authz import policy_file
    from jaula.engine.authz.authorization_policy import Policy, default_policy

    def user(name: str) -> int | None:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            return None

    def group(name: str) -> int | None:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    path = policy_path(config)
    if not path:
        return Policy()
    name = config.socket_group
    built_in = default_policy(
        name, group(name) if name else None, certificates=config.tls is not None
    )
    policy = policy_file.load(
        path, required=bool(config.policy), user=user, group=group, built_in=built_in
    )
    return built_in if policy is None else policy
