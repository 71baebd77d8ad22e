"""Profile ``nsa-k8s``: the pods of the CRI.

Source of the subjects: NSA and CISA, Kubernetes Hardening Guidance 1.2, "Kubernetes Pod security",
"Resource policies" and "Protecting Pod service account tokens". Titles and ids are this project's
own. Items about the API server, etcd, RBAC and network policies are not a node's and are left out.

Evidence: :mod:`jaula.features.audit.benchmark.container_state`, of each container of a pod. A
namespace without a pod security standard, or a webhook that changed the pod, makes no difference
here.
"""

from __future__ import annotations

import msgspec

from jaula.features.audit.benchmark import containers
from jaula.features.audit.benchmark.container_state import ContainerState, names_of
from jaula.features.audit.benchmark.control import (
    Control,
    Judge,
    Judgement,
    Kind,
    Profile,
    Scope,
    fails,
    judged,
    manual,
    not_applicable,
    passes,
)
from jaula.features.audit.benchmark.engine import EngineState
from jaula.features.audit.image import secrets
from jaula.kernel.capabilities import NAMES

NET_BIND_SERVICE = 1 << NAMES.index("CAP_NET_BIND_SERVICE")
SECTIONS = {
    "pods": "pod security",
    "tokens": "service account tokens and secrets",
    "resources": "resource policies",
    "images": "images",
}


def _with_field(judge: Judge, field: str) -> Judge:
    """Return a judge whose remediation is the field of a pod, not a flag."""

    def judge_pod(state: ContainerState) -> Judgement:
        judgement = judge(state)
        return msgspec.structs.replace(
            judgement, remediation=field if judgement.remediation else ""
        )

    return judge_pod


def _non_root(state: ContainerState) -> Judgement:
    root = [p.name for p in (state.init, *state.others) if p.uid == 0]
    mapped = "the host's root" if "user" in state.host_namespaces else "unprivileged outside"
    return judged(not root, f"processes of root ({mapped}): {', '.join(root[:5])}"
                  if root else f"first process has uid {state.init.uid}",
                  "securityContext: runAsNonRoot: true, runAsUser")  # fmt: skip


def _groups(state: ContainerState) -> Judgement:
    ids = ", ".join(map(str, sorted(state.groups)))
    return judged(0 not in state.groups, f"groups of the first process: {ids or 'none'}",
                  "securityContext: runAsGroup, supplementalGroups other than 0")  # fmt: skip


def _capabilities(state: ContainerState) -> Judgement:
    extra = state.init.capabilities & ~NET_BIND_SERVICE
    return judged(not extra, f"capabilities: {names_of(state.init.capabilities) or 'none'}",
                  "securityContext: capabilities: drop: [ALL]")  # fmt: skip


def _host_paths(state: ContainerState) -> Judgement:
    paths = [f"{path} at {target}" for path, target in state.host_paths[:5]]
    more = f" and {len(state.host_paths) - 5} more" if len(state.host_paths) > 5 else ""
    return judged(not paths, f"paths of the host: {', '.join(paths) or 'none'}{more}",
                  "use a volume of another kind than hostPath")  # fmt: skip


def _tokens(state: ContainerState) -> Judgement:
    return judged(not state.tokens, f"service account tokens: {', '.join(state.tokens) or 'none'}",
                  "automountServiceAccountToken: false, unless it uses the API")  # fmt: skip


def _environment(state: ContainerState) -> Judgement:
    if state.environment is None:
        return not_applicable("its environment cannot be read: the first process has changed it")
    names = secrets.of_variables(state.environment)
    return judged(not names, f"variables with a secret: {', '.join(names[:10]) or 'none'}",
                  "mount the Secret as a volume")  # fmt: skip


def _host_ports(state: ContainerState) -> Judgement:
    if not state.ports:
        return passes("no port of the host leads to it")
    return manual(f"ports of the host: {', '.join(map(str, state.ports))}",
                  "confirm each hostPort; use a Service")  # fmt: skip


def _image_policy(state: EngineState) -> Judgement:
    evidence = f"the general rule of {state.image_policy_path} is {state.image_policy or 'unread'}"
    if state.image_policy == "accept":
        return fails(evidence, "accept images of trusted registries or with signatures only")
    return passes(evidence)


def _pod(
    id: str, title: str, judge: Judge, field: str = "", section: str = "pods", level: int = 1
) -> Control:
    """Return a control of pods; ``field`` is the remediation of a judge that names a flag."""
    judge = _with_field(judge, field) if field else judge
    return Control(id, level, (Scope.CONTAINERS,), title, {Kind.CONTAINER: judge}, section)


_own = containers.own_namespace

PROFILE = Profile(
    "nsa-k8s",
    "NSA/CISA Kubernetes Hardening Guidance 1.2",
    SECTIONS,
    (
        _pod("non-root", "Programs do not run as root", _non_root),
        _pod("root-group", "Programs are not in the root group", _groups),
        _pod("immutable-root", "The root file system is read-only", containers.read_only_root,
             "securityContext: readOnlyRootFilesystem: true"),
        _pod("not-privileged", "The container is not privileged", containers.not_privileged,
             "securityContext: privileged: false"),
        _pod("privilege-escalation", "Processes gain no privileges",
             containers.no_new_privileges, "securityContext: allowPrivilegeEscalation: false"),
        _pod("dropped-capabilities", "Capabilities are dropped", _capabilities),
        _pod("host-pid", "Own pid namespace", _own("pid", ""), "hostPID: false"),
        _pod("host-ipc", "Own ipc namespace", _own("ipc", ""), "hostIPC: false"),
        _pod("host-network", "Own network namespace", _own("net", ""), "hostNetwork: false"),
        _pod("user-namespace", "Own user namespace", _own("user", ""), "hostUsers: false",
             level=2),
        _pod("host-paths", "No path of the host is mounted", _host_paths),
        _pod("host-ports", "Ports of the host are needed", _host_ports),
        _pod("runtime-socket", "No engine's socket is mounted", containers.no_engine_socket,
             "remove the hostPath volume of the socket"),
        _pod("host-devices", "No device of the host inside", containers.no_devices,
             "securityContext: privileged: false; use a device plugin"),
        _pod("pod-seccomp", "A seccomp filter is in force", containers.seccomp_in_force,
             "securityContext: seccompProfile: type: RuntimeDefault"),
        _pod("apparmor", "An AppArmor profile is in force", containers.apparmor_in_force,
             "securityContext: appArmorProfile: type: RuntimeDefault"),
        _pod("selinux", "An SELinux label confines the container",
             containers.selinux_in_force, "securityContext: seLinuxOptions: type"),
        _pod("token-mount", "No service account token is mounted", _tokens, section="tokens"),
        _pod("secret-variables", "No variable has a secret", _environment, section="tokens"),
        _pod("pod-memory", "Memory is limited", containers.limited_memory,
             "resources: limits: memory, or a LimitRange of the namespace", "resources"),
        _pod("pod-cpu", "Processor time is limited", containers.limited_cpu,
             "resources: limits: cpu, or a LimitRange of the namespace", "resources"),
        _pod("pod-processes", "The number of processes is limited", containers.limited_pids,
             "podPidsLimit of the kubelet", "resources"),
        Control("admitted-images", 1, (Scope.IMAGES,), "Only trusted images are admitted",
                {Kind.ENGINE: _image_policy}, "images"),
    ),
    pods_only=True,
)  # fmt: skip
