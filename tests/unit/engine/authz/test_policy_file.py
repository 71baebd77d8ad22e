"""The policy file: valid ones, and invalid ones that are rejected."""

from __future__ import annotations

import contextlib
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.engine.authz import policy_file
from jaula.engine.authz.authorization_policy import (
    AccessLevel,
    Caller,
    ContainerAccess,
    Policy,
    default_policy,
    entry_title,
)
from jaula.engine.authz.request_ceilings import DEFAULT_SHARES, UNLIMITED, Ceilings, Share
from jaula.engine.relaxations import Privilege, Relaxation
from jaula.errors import InvalidRequest

USERS = {"root": 0, "alice": 1000, "bob": 1001}
GROUPS = {"developers": 5000, "staff": 50}


def parse(text: str | bytes) -> Policy:
    data = text.encode() if isinstance(text, str) else text
    return policy_file.parse(data, user=USERS.get, group=GROUPS.get)


def caller(uid: int, *groups: int) -> Caller:
    return Caller(uid=uid, gid=groups[0] if groups else uid, groups=frozenset(groups))


FULL = """
[default]
access = "read"

[user.alice]
access = "run"
others = "control"
images = false
volumes = false
privileged = true
oom-score-adj = true
host-mounts = ["/srv/a", "/srv/b:ro", "/srv/c:rw"]
host-namespaces = ["network", "pid"]
devices = ["/dev/fuse", "c 10:229 rwm"]
capabilities = ["net_admin", "CAP_SYS_PTRACE"]
security-options = ["seccomp=unconfined"]
cgroup-parents = ["/tenants"]
annotations = ["run.oci.x"]

[user.1001]
access = "all"

[group.developers]
access = "run"
capabilities = ["ALL"]

[certificate.ci]
access = "run"
"""


def test_every_key_is_parsed() -> None:
    rule = parse(FULL).rule_of(caller(1000))
    assert rule.name == "[user.alice]"
    assert rule.access is AccessLevel.RUN
    assert rule.container_access is ContainerAccess.CONTROL
    assert not rule.images
    assert not rule.volumes
    assert rule.privileged
    assert rule.oom_score
    assert [str(mount) for mount in rule.host_mounts] == ["/srv/a", "/srv/b:ro", "/srv/c"]
    assert rule.host_namespaces == {"network", "pid"}
    assert rule.devices == {"/dev/fuse", "c 10:229 rwm"}
    assert rule.capabilities == {"NET_ADMIN", "SYS_PTRACE"}
    assert rule.cgroup_parents == {"/tenants"}
    assert rule.annotations == {"run.oci.x"}


def test_a_users_rule_wins_over_groups_and_groups_over_the_default() -> None:
    policy = parse(FULL)
    assert policy.rule_of(caller(1000, 5000)).name == "[user.alice]"
    assert policy.rule_of(caller(2000, 5000)).name == "[group.developers]"
    assert policy.rule_of(caller(2000, 50)).name == "[default]"
    assert policy.rule_of(Caller(certificate="ci")).name == "[certificate.ci]"
    assert policy.rule_of(Caller(certificate="other")).name == "[default]"
    assert policy.rule_of(Caller()).name == "[anonymous]"
    assert policy.rule_of(Caller()).access is AccessLevel.NONE
    assert policy.rule_of(caller(0)).access is AccessLevel.ALL
    assert policy.rule_of(caller(1001)).access is AccessLevel.ALL


def test_a_fingerprint_wins_over_a_name_and_a_name_over_any() -> None:
    digest = "sha256:" + "ab" * 32
    text = (
        f'[certificate."{digest}"]\naccess = "all"\n'
        '[certificate.ci]\naccess = "run"\n'
        '[certificate."*"]\naccess = "read"\n'
        '[anonymous]\naccess = "run"'
    )
    policy = parse(text)

    def rule(name: str, fingerprint: str) -> str:
        return policy.rule_of(Caller(certificate=name, fingerprint=fingerprint)).access.name

    other = "sha256:" + "00" * 32
    assert rule("ci", digest) == "ALL"
    assert rule("ci", other) == "RUN"
    assert rule("x", other) == "READ"
    assert rule("*", other) == "READ"
    assert policy.rule_of(Caller()).access is AccessLevel.RUN


@pytest.mark.parametrize("name", ["sha256:", "sha256:AB", "sha256:" + "g" * 64])
def test_a_malformed_fingerprint_is_an_error(name: str) -> None:
    with pytest.raises(InvalidRequest, match="a fingerprint must be sha256"):
        parse(f'[certificate."{name}"]\naccess = "all"')


def test_without_a_file_a_certificate_grants_no_power_over_the_host() -> None:
    caller_of = Caller(certificate="x", fingerprint="sha256:y")
    assert default_policy(None, None).rule_of(caller_of).access is AccessLevel.NONE
    rule = default_policy(None, None, certificates=True).rule_of(caller_of)
    assert rule.access is AccessLevel.RUN
    assert not rule.allows(Privilege(Relaxation.HOST_MOUNT, "/etc"))
    assert (
        default_policy(None, None, certificates=True).rule_of(Caller()).access is AccessLevel.NONE
    )


def test_root_obeys_a_rule_of_its_own() -> None:
    assert parse('[user.root]\naccess = "read"').rule_of(caller(0)).access is AccessLevel.READ


def test_the_rules_of_several_groups_are_united() -> None:
    text = (
        '[group.developers]\naccess = "run"\ndevices = ["/dev/fuse"]\nimages = false\n'
        '[group.staff]\naccess = "read"\nothers = "read"\nhost-mounts = ["/srv"]'
    )
    rule = parse(text).rule_of(caller(7, 50, 5000))
    assert rule.access is AccessLevel.RUN
    assert rule.container_access is ContainerAccess.READ
    assert rule.devices == {"/dev/fuse"}
    assert rule.allows(Privilege(Relaxation.HOST_MOUNT, "/srv/x"))
    assert "developers" in rule.name
    assert "staff" in rule.name


def test_what_is_not_granted_is_denied() -> None:
    rule = parse('[user.alice]\naccess = "run"').rule_of(caller(1000))
    for kind in Relaxation:
        assert not rule.allows(Privilege(kind, "anything")), kind


def test_all_grants_every_capability() -> None:
    rule = parse(FULL).rule_of(caller(2000, 5000))
    assert rule.allows(Privilege(Relaxation.CAPABILITY, "ALL"))
    assert rule.allows(Privilege(Relaxation.CAPABILITY, "SYS_ADMIN"))


@pytest.mark.parametrize(
    ("path", "writable", "allowed"),
    [
        ("/srv/a", True, True),
        ("/srv/a/below", True, True),
        ("/srv/ab", True, False),
        ("/srv", False, False),
        ("/", False, False),
        ("/srv/b/x", False, True),
        ("/srv/b/x", True, False),
    ],
)
def test_a_mount_prefix_matches_whole_path_components(
    path: str, writable: bool, allowed: bool
) -> None:
    rule = parse(FULL).rule_of(caller(1000))
    assert rule.allows(Privilege(Relaxation.HOST_MOUNT, path, writable=writable)) is allowed
    assert not rule.allows(Privilege(Relaxation.HOST_MOUNT, path, writable=writable, foreign=True))


@pytest.mark.parametrize(
    "text",
    [
        "[user.carol]\naccess = 'run'",
        "[user]\nalice = 'run'",
        "[user.alice]\naccess = 'root'",
        "[user.alice]\naccess = 3",
        "[user.alice]\nprivileged = 'yes'",
        "[user.alice]\nprivileged = 1",
        "[user.alice]\nhost-mounts = '/srv'",
        "[user.alice]\nhost-mounts = ['srv']",
        "[user.alice]\nhost-mounts = ['/srv/../etc']",
        "[user.alice]\nhost-mounts = ['/srv//x']",
        "[user.alice]\nhost-mounts = ['/srv:shared']",
        "[user.alice]\nhost-mounts = ['']",
        "[user.alice]\nhost-mounts = [1]",
        '[user.alice]\nhost-mounts = ["/a\\u0000b"]',
        '[user.alice]\nhost-mounts = ["/a\\nb"]',
        "[user.alice]\ncapabilities = ['NET_ADMINISTRATOR']",
        "[user.alice]\nhost-namespaces = ['net']",
        "[user.alice]\nhost_mounts = ['/srv']",
        "[user.alice]\naccess = 'run'\n[user.1000]\naccess = 'all'",
        "[user.99999999999]\naccess = 'run'",
        "[user.4294967295]\naccess = 'run'",
        "[users.alice]\naccess = 'run'",
        "default = 'all'",
        "[user.alice]\naccess = 'run'\naccess = 'all'",
        "[user.alice",
        "{}",
        b"\xff\xfe",
        b"[user.alice]\naccess = 'run'\n" + b"#" * (1 << 20),
        b"x = " + b"[" * 100_000,
    ],
)
def test_an_invalid_policy_is_rejected(text: str | bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


@given(st.text(max_size=300))
def test_any_text_is_a_policy_or_an_invalid_request(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert parse(text).rule_of(caller(2000)).access is AccessLevel.NONE


def test_a_file_that_other_users_can_write_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("")
    path.chmod(0o620)
    with pytest.raises(InvalidRequest, match="writable by other users"):
        policy_file.load(str(path), required=True, user=USERS.get, group=GROUPS.get)
    path.chmod(0o640)
    found = policy_file.load(str(path), required=True, user=USERS.get, group=GROUPS.get)
    assert found == Policy(source=f"{path} sha256:{sha256(b'').hexdigest()}")


def test_a_missing_file_is_an_error_only_if_it_is_required(tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    assert policy_file.load(path, required=False, user=USERS.get, group=GROUPS.get) is None
    with pytest.raises(InvalidRequest, match="No such file"):
        policy_file.load(path, required=True, user=USERS.get, group=GROUPS.get)
    with pytest.raises(InvalidRequest, match="not a regular file"):
        policy_file.load("/dev/null", required=True, user=USERS.get, group=GROUPS.get)


def test_without_a_file_only_the_sockets_group_runs_containers() -> None:
    policy = default_policy("jaula", 700)
    assert policy.rule_of(caller(1000, 700)).access is AccessLevel.RUN
    assert policy.rule_of(caller(1000, 701)).access is AccessLevel.NONE
    assert policy.rule_of(caller(0)).access is AccessLevel.ALL
    assert default_policy(None, None).rule_of(caller(1000, 0)).access is AccessLevel.NONE


def test_a_file_with_an_image_policy_only_is_no_authorization_policy(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[images]\n"*" = "reject"\n')
    assert policy_file.load(str(file), required=True, user=USERS.get, group=GROUPS.get) is None
    file.write_text('[images]\n"*" = "reject"\n[default]\naccess = "none"\n')
    found = policy_file.load(str(file), required=True, user=USERS.get, group=GROUPS.get)
    assert found is not None
    assert found.rule_of(caller(2000)).access is AccessLevel.NONE


def test_ceilings_are_read_and_united() -> None:
    text = """
[group.developers]
access = "run"
max-memory = "1g"
max-pids = 100
ulimits = ["nofile=1000", "RTPRIO"]
host-ports = ["443", "8000-8010"]

[group.staff]
access = "run"
max-memory = "512m"
max-shm-size = "unlimited"
oom-kill-disable = true
ulimits = ["nofile=5000"]
host-ports = []
"""
    policy = parse(text)
    one = policy.rule_of(caller(1, 5000)).ceilings
    assert (one.memory, one.pids, one.shm_size) == (1 << 30, 100, UNLIMITED)
    assert (one.ulimits["nofile"], one.ulimits["rtprio"], one.ulimits["nice"]) == (
        *(1000, UNLIMITED),
        0,
    )
    assert one.host_ports == ((443, 443), (8000, 8010))
    assert not one.oom_kill_disable
    both = policy.rule_of(caller(1, 5000, 50)).ceilings
    assert (both.memory, both.pids, both.oom_kill_disable) == (1 << 30, UNLIMITED, True)
    assert both.ulimits["nofile"] == 5000
    assert both.host_ports == one.host_ports
    assert policy.rule_of(caller(0)).ceilings == Ceilings()


@pytest.mark.parametrize(
    "line",
    [
        'max-memory = "lots"',
        "max-memory = 5",
        'max-memory = "-1"',
        "max-pids = -1",
        "max-pids = true",
        'max-pids = "5"',
        "max-networks = -1",
        'ulimits = ["files=1"]',
        'ulimits = ["nofile=x"]',
        'ulimits = ["nofile="]',
        'host-ports = ["0"]',
        'host-ports = ["9-8"]',
        'host-ports = ["65536"]',
        'host-ports = ["a-b"]',
        'host-ports = ["1-"]',
        'log-addresses = ["/dev/log"]',
        'max-images = "many"',
        'max-images = "5g"',
        "max-image-size = 5",
        "max-secrets = -1",
        "max-record-size = 5",
        'max-record-size = "big"',
        "max-image-documents = 5",
        'max-image-size = "big"',
    ],
)
def test_an_invalid_ceiling_is_rejected(line: str) -> None:
    with pytest.raises(InvalidRequest, match=line.partition(" ")[0]):
        parse(f'[user.alice]\naccess = "run"\n{line}\n')


def test_shares_are_read_and_united() -> None:
    policy = parse(
        """
[group.developers]
max-networks = 5
max-volumes = "unlimited"
max-images = 6
max-secrets = 3
max-image-size = "20g"
max-image-names = 60

[group.staff]
max-networks = 7
max-containers = 0
"""
    )
    shares = policy.rule_of(caller(1, 5000)).shares
    assert shares == {
        Share.CONTAINERS: 1000,
        Share.NETWORKS: 5,
        Share.VOLUMES: UNLIMITED,
        Share.SECRETS: 3,
        Share.IMAGES: 6,
        Share.IMAGE_SIZE: 20 << 30,
        Share.IMAGE_NAMES: 60,
    }
    both = policy.rule_of(caller(1, 5000, 50)).shares
    assert both == {
        **DEFAULT_SHARES,
        Share.NETWORKS: 7,
        Share.VOLUMES: UNLIMITED,
        Share.IMAGES: 1000,
        Share.IMAGE_SIZE: UNLIMITED,
        Share.IMAGE_NAMES: 4000,
    }


def test_images_have_default_shares() -> None:
    assert (DEFAULT_SHARES[Share.IMAGES], DEFAULT_SHARES[Share.IMAGE_SIZE]) == (1000, UNLIMITED)


CONTAINERS = """
[group.developers]
access = "run"

[container.web]
access = "read"

[container."label=tier"]
access = "run"
users = ["alice", "1001"]
groups = ["staff"]

[container."label=tier=front"]
access = "all"

[container."label=org.x=a=b"]
access = "read"
others = "read"
remove = ["label=org.x", "label=org.y=1"]
"""


def test_the_entry_of_a_container_is_that_of_its_name_or_of_its_first_label() -> None:
    policy = parse(CONTAINERS)
    assert policy.container_entry("web", {"tier": "front"}) == "web"
    assert policy.container_entry("other", {"tier": "front"}) == "label=tier"
    assert policy.container_entry("", {"org.x": "a=b"}) == "label=org.x=a=b"
    assert policy.container_entry("other", {"org.x": "a"}) == ""
    assert policy.container_entry("label=tier", {}) == "label=tier"  # not a valid name
    rule = policy.rule_of(Caller(container="3f", entry="label=org.x=a=b"))
    assert (rule.access, rule.container_access) == (AccessLevel.READ, ContainerAccess.READ)
    assert rule.remove == {"org.x", "org.y=1"}


def test_a_container_without_an_entry_has_no_right() -> None:
    policy = parse(CONTAINERS + '[default]\naccess = "all"\n[anonymous]\naccess = "all"')
    for entry in ("", "gone"):
        rule = policy.rule_of(Caller(container="3f", entry=entry))
        assert rule.access is AccessLevel.NONE, entry
        assert "not in the policy" in rule.name


def test_an_entry_is_used_by_its_users_and_by_callers_with_at_least_its_right() -> None:
    policy = parse(CONTAINERS)
    root, alice, bob = caller(0), caller(1000), caller(1001)
    developer, staff = caller(7, 5000), caller(8, 50, 5000)

    def usable(who: Caller) -> set[str]:
        rule = policy.rule_of(who)
        return {key for key in policy.containers if policy.may_use(who, rule, key)}

    assert usable(root) == set(policy.containers)
    assert usable(developer) == {"web", "label=tier"}
    assert usable(staff) == {"web", "label=tier"}
    assert usable(alice) == usable(bob) == set()  # they may not create a container at all
    boss = Caller(container="3f", entry="label=tier=front")
    helper = Caller(container="3f", entry="label=tier")
    assert usable(boss) == set(policy.containers)
    assert usable(helper) == {"web", "label=tier"}
    text = CONTAINERS.replace("[group.developers]\naccess", "[group.developers]\nvolumes")
    policy = parse(text.replace('volumes = "run"', 'access = "run"\nvolumes = false'))
    assert usable(developer) == set()  # an entry may use volumes by default
    assert usable(staff) == {"label=tier"}


def test_a_right_is_compared_with_all_of_its_grants() -> None:
    more = (
        'access = "all"',
        'access = "run"\nothers = "read"',
        'access = "run"\nprivileged = true',
        'access = "run"\ndevices = ["/dev/fuse"]',
        'access = "run"\nremove = ["label=a"]',
        'access = "run"\nhost-mounts = ["/srv"]',
        'access = "run"\nhost-mounts = ["/srv/a/b"]',
    )
    own = '[user.alice]\naccess = "run"\nhost-mounts = ["/srv/a:ro"]\n'
    for text in more:
        policy = parse(f"{own}[container.box]\n{text}")
        rule = policy.rule_of(caller(1000))
        assert not rule.covers(policy.containers["box"].rule), text
        assert rule.covers(rule)
    policy = parse(f'{own}[container.box]\naccess = "run"\nhost-mounts = ["/srv/a/b:ro"]')
    assert policy.rule_of(caller(1000)).covers(policy.containers["box"].rule)


def test_labels_permit_to_remove_and_to_prune() -> None:
    rule = parse(CONTAINERS).containers["label=org.x=a=b"].rule
    assert rule.may_remove({"org.x": "anything"})
    assert rule.may_remove({"org.y": "1"})
    assert not rule.may_remove({"org.y": "2"})
    assert not rule.may_remove({})
    assert rule.may_prune(["org.x=3", "other"])
    assert rule.may_prune(["org.y=1"])
    assert not rule.may_prune(["org.y"])
    assert not rule.may_prune([])
    assert (
        not parse('[container.box]\nremove = ["label=a"]')
        .containers["box"]
        .rule.may_remove({"a": ""})
    )


@pytest.mark.parametrize(
    "text",
    [
        '[container."a b"]',
        '[container."label="]',
        '[container."label==x"]',
        "[container]\nx = 1",
        '[container.box]\nusers = ["carol"]',
        '[container.box]\nusers = "alice"',
        '[container.box]\ngroups = ["carol"]',
        '[container.box]\nremove = ["a=b"]',
        '[container.box]\nremove = ["label="]',
        "[container.box]\ncolour = 1",
        '[user.alice]\nusers = ["bob"]',
    ],
)
def test_an_invalid_entry_for_containers_is_rejected(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


def test_a_file_with_entries_for_containers_only_keeps_the_built_in_rules(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[container.web]\naccess = "read"\n[images]\n')
    built_in = default_policy("developers", 5000)

    def load() -> Policy:
        policy = policy_file.load(
            str(path), required=True, user=USERS.get, group=GROUPS.get, built_in=built_in
        )
        assert policy is not None
        return policy

    assert load().rule_of(caller(7, 5000)).access is AccessLevel.RUN
    assert load().container_entry("web", {}) == "web"
    path.write_text('[container.web]\naccess = "read"\n[default]\naccess = "none"')
    assert load().rule_of(caller(7, 5000)).access is AccessLevel.NONE


def test_an_error_proposes_an_entry_that_the_file_can_hold() -> None:
    policy = parse(CONTAINERS)
    assert policy.proposed_entry("new", {"a": "b"}) == "new"
    assert policy.proposed_entry("", {"a\n": "x", "b": "c" * 500, "d": 'e"'}) == 'label=d=e"'
    assert policy.proposed_entry("", {}) == ""
    title = entry_title('label=d=e"')
    assert parse(f'{title}\naccess = "read"').container_entry("", {"d": 'e"'}) == 'label=d=e"'
