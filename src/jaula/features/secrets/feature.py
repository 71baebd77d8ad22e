"""The feature ``secrets``: secrets and configs."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.api_documents import HostConfig


def _asks(host: HostConfig) -> bool:
    return bool(host.secrets or host.configs)


FEATURE = Feature(
    "secrets",
    commands={
        "config create": "cli.secret:CONFIG_CREATE",
        "config inspect": "cli.secret:CONFIG_INSPECT",
        "config ls": "cli.secret:CONFIG_LS",
        "config rm": "cli.secret:CONFIG_RM",
        "secret create": "cli.secret:SECRET_CREATE",
        "secret inspect": "cli.secret:SECRET_INSPECT",
        "secret ls": "cli.secret:SECRET_LS",
        "secret rm": "cli.secret:SECRET_RM",
    },
    aliases={
        "config list": "config ls",
        "config remove": "config rm",
        "secret list": "secret ls",
        "secret remove": "secret rm",
    },
    groups={
        "config": "Manage configs (read-only files for containers)",
        "secret": "Manage secrets (files on a tmpfs, readable by the container only)",
    },
    idle=("secret_store", "encryption"),
    hooks=(
        Hook("request_authorized", "authz:authorize", _asks),
        Hook("request_completed", "secret_mounts:resolve_references", _asks),
        Hook("mounts_added", "secret_mounts:mount_secrets", _asks),
        Hook("run_dir_removed", "secret_mounts:remove", _asks),
        Hook("restoring", "secret_store:load"),
        Hook("owned", "secret_store:owned"),
    ),
    routes={
        "configs": ("routes",),
        "secrets": ("routes",),
    },
)
