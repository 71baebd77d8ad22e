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
    run_flags={"pod": "cli.pods.api_pods"},
    hooks=(
        Hook("listen", "cri.cri_listen:listen", _serves_cri),
        Hook("network_opened", "hooks:open_network", _serves_cri),
        Hook("engine_stopping", "hooks:close"),
        Hook("engine_started", "cri.cri_listen:start", _serves_cri),
    ),
    commands={
        "cri cni-install": "cli.cri_cni_install",
        "cri setup": "cli.cri_setup",
        "kube down": "cli.kube_down",
        "kube generate": "cli.kube_generate",
        "kube play": "cli.kube_play",
        "pod create": "cli.pod:CREATE",
        "pod exists": "cli.pod:EXISTS",
        "pod inspect": "cli.pod:INSPECT",
        "pod kill": "cli.pod:KILL",
        "pod logs": "cli.pod:LOGS",
        "pod ls": "cli.pod:LS",
        "pod pause": "cli.pod:PAUSE",
        "pod prune": "cli.pod:PRUNE",
        "pod restart": "cli.pod:RESTART",
        "pod rm": "cli.pod:RM",
        "pod start": "cli.pod:START",
        "pod stats": "cli.pod:STATS",
        "pod stop": "cli.pod:STOP",
        "pod top": "cli.pod:TOP",
        "pod unpause": "cli.pod:UNPAUSE",
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
