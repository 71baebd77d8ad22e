"""The policy that this engine follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.rootless import paths

if TYPE_CHECKING:
    from jaula.config import EngineConfig
    from jaula.engine.authz.policy import Policy


def path_of(config: EngineConfig) -> str:
    """The policy's file, which need not be there unless the configuration names it.

    Empty for an ordinary user's own engine: the machine's policy is not about it.
    """
    from jaula.engine.authz import policy_file

    own = paths.user() is not None
    return config.policy or ("" if own else policy_file.DEFAULT_PATH)


def policy(config: EngineConfig) -> Policy:
    """Who may ask for what: a file's word, or root and the socket's group.

    :raises InvalidRequest: the file cannot be read; nothing is served then.
    """
    import grp
    import pwd

    from jaula.engine.authz import policy_file
    from jaula.engine.authz.policy import Policy, default_policy

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

    path = path_of(config)
    if not path:
        return Policy()
    found = policy_file.load(path, required=bool(config.policy), user=user, group=group)
    if found is not None:
        return found
    name = config.socket_group
    return default_policy(name, group(name) if name else None, certificates=config.tls is not None)
