"""The feature ``kubernetes``: CRI, pods and YAML."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.config import EngineConfig


def _serves_cri(config: EngineConfig) -> bool:
    return config.cri


FEATURE = Feature(
    "kubernetes",
    idle=("hooks",),
    run_flags={"pod": "cli.pods.pods"},
    hooks=(
        Hook("listen", "cri.listen:listen", _serves_cri),
        Hook("network_opened", "hooks:open_network", _serves_cri),
        Hook("engine_stopping", "hooks:close"),
        Hook("engine_started", "cri.listen:start", _serves_cri),
    ),
    commands={
        "cri cni-install": "cli.cri_cni_install",
        "cri setup": "cli.cri_setup",
        "kube down": "cli.kube_down",
        "kube generate": "cli.kube_generate",
        "kube play": "cli.kube_play",
        "pod create": "cli.pod_create",
        "pod exists": "cli.pod_exists",
        "pod inspect": "cli.pod_inspect",
        "pod kill": "cli.pod_kill",
        "pod logs": "cli.pod_logs",
        "pod ls": "cli.pod_ls",
        "pod pause": "cli.pod_pause",
        "pod prune": "cli.pod_prune",
        "pod restart": "cli.pod_restart",
        "pod rm": "cli.pod_rm",
        "pod start": "cli.pod_start",
        "pod stats": "cli.pod_stats",
        "pod stop": "cli.pod_stop",
        "pod top": "cli.pod_top",
        "pod unpause": "cli.pod_unpause",
    },
    aliases={
        "pod list": "pod ls",
        "pod ps": "pod ls",
        "pod remove": "pod rm",
    },
    groups={
        "cri": "Prepare this host for Kubernetes' pods",
        "kube": "Run Kubernetes' YAML on this host, and write it",
        "pod": "Manage pods",
    },
)
