"""Images that were edited to give a container more than its spec are refused before CRIU runs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.runtime.check_images import Expected, check
from jaula.features.checkpoint.runtime.criu_images import Images
from jaula.features.checkpoint.runtime.proto import images_pb2
from jaula.kernel.mounts import MS

FILTER = b"\x06\x00\x00\x00\x00\x00\xff\x7f"
CAPABILITIES = 0xA80405FB  # without CAP_NET_RAW
EXPECTED = Expected(
    namespaces=frozenset({"pid", "network", "ipc", "uts", "mount", "user", "cgroup"}),
    ids=65536,
    bounding=CAPABILITIES,
    no_new_privileges=True,
    filter=FILTER,
    external=frozenset({"/dev", "/data"}),
    mounts={"/proc": int(MS.NOSUID | MS.NODEV), "/sys": int(MS.RDONLY), "/data": 0},
    mount_points=frozenset({"/proc", "/sys", "/dev", "/data"}),
    rlimits={7: 1024, 13: 0, 14: 0},
    oom_score_adj=0,
    apparmor="jaula-default",
)


def ids(first: int) -> images_pb2.Ids:
    names = ("pid", "net", "ipc", "uts", "mnt", "user", "cgroup")
    spaces = {f"{name}_ns_id": first + index for index, name in enumerate(names)}
    return images_pb2.Ids(vm_id=1, files_id=1, fs_id=1, sighand_id=1, time_ns_id=99, **spaces)


def mount(path: str, fstype: int, number: int, flags: int = 0, key: str = "") -> images_pb2.Mount:
    made = images_pb2.Mount(
        fstype=fstype, mnt_id=number, root_dev=1, parent_mnt_id=1, flags=flags, root="/",
        mountpoint=path, source="x", options="",
    )  # fmt: skip
    if key:
        made.ext_key = key
    return made


def core(*, leader: bool = True) -> images_pb2.Core:
    words = [CAPABILITIES, 0]
    creds = images_pb2.Credentials(
        uid=0, gid=0, euid=0, egid=0, suid=0, sgid=0, fsuid=0, fsgid=0, secbits=0, groups=[0],
        cap_prm=words, cap_eff=words, cap_bnd=words, no_new_privs=1,
    )  # fmt: skip
    thread = images_pb2.ThreadCore(creds=creds, seccomp_mode=2, seccomp_filter=0, cg_set=2)
    made = images_pb2.Core(mtype=1, thread_core=thread)
    if leader:
        limits = [images_pb2.Rlimit(cur=0, max=0) for _ in range(16)]
        made.tc.CopyFrom(
            images_pb2.TaskCore(task_state=1, rlimits=images_pb2.Rlimits(rlimits=limits))
        )
        made.tc.oom_score_adj = 0
    return made


def container() -> Images:
    regular = images_pb2.RegularFile(id=1, name=b"/bin/sh", mnt_id=1)
    return Images(
        inventory=images_pb2.Inventory(img_version=2, root_ids=ids(1), root_cg_set=1),
        tree=(images_pb2.PstreeEntry(pid=1, ppid=0, pgid=1, sid=1, threads=[1, 2]),),
        ids={1: ids(11)},
        cores={1: core(), 2: core(leader=False)},
        user_namespaces=("userns-16.img",),
        cgroups=images_pb2.Cgroup(sets=[images_pb2.CgroupSet(id=2)]),
        filters=(images_pb2.SeccompFilter(filter=FILTER, flags=1),),
        mounts=(
            mount("/", 17, 1),
            mount("/proc", 1, 2, int(MS.NOSUID | MS.NODEV)),
            mount("/sys", 2, 3, int(MS.RDONLY)),
            mount("/dev", 5, 4, key="/dev"),
            mount("/data", 16, 5, key="/data"),
        ),
        files=(images_pb2.File(type=1, id=1, reg=regular),),
    )


def test_the_images_of_a_container_are_accepted() -> None:
    check(container(), EXPECTED)


def test_a_thread_may_have_the_filter_of_the_first_one() -> None:
    made = container()
    made.cores[2].thread_core.ClearField("seccomp_mode")
    made.cores[2].thread_core.ClearField("seccomp_filter")
    check(made, EXPECTED)


@dataclasses.dataclass(frozen=True)
class Edit:
    name: str
    words: str
    apply: Callable[[Images], Any]


def credentials(made: Images) -> images_pb2.Credentials:
    return made.cores[1].thread_core.creds


def replaced(**members: Any) -> Callable[[Images], Images]:
    return lambda made: msgspec.structs.replace(made, **members)


def with_mount(**fields: Any) -> Callable[[Images], None]:
    def apply(made: Images) -> None:
        for name, value in fields.items():
            setattr(made.mounts[4], name, value)

    return apply


def inet(kind: int) -> images_pb2.File:
    return images_pb2.File(
        type=4, id=7, isk=images_pb2.InetSocket(id=7, family=2, type=kind, proto=1, state=7)
    )


def set_label(made: Images, label: str) -> None:
    credentials(made).lsm_profile = label


def with_thread(**fields: Any) -> Callable[[Images], None]:
    def apply(made: Images) -> None:
        for name, value in fields.items():
            setattr(made.cores[2].thread_core, name, value)

    return apply


EDITS = (
    Edit("all capabilities", "capabilities", lambda i: credentials(i).cap_prm.append(1)),
    Edit(
        "one more effective capability",
        "capabilities",
        lambda i: credentials(i).cap_eff.__setitem__(0, CAPABILITIES | 1 << 21),
    ),
    Edit(
        "bounding set of 96 bits", "capabilities", lambda i: credentials(i).cap_bnd.extend((0, 1))
    ),
    Edit("ambient capability", "capabilities", lambda i: credentials(i).cap_amb.extend((1 << 21,))),
    Edit("no no_new_privs", "no_new_privs", lambda i: setattr(credentials(i), "no_new_privs", 0)),
    Edit("id of the host", "id 65536", lambda i: setattr(credentials(i), "fsuid", 65536)),
    Edit("group of the host", "id 4000000000", lambda i: credentials(i).groups.append(4000000000)),
    Edit("LSM label", "gets 'jaula-default'", lambda i: set_label(i, "other")),
    Edit("no profile", "gets 'jaula-default'", lambda i: set_label(i, "unconfined")),
    Edit("child profile", "LSM label", lambda i: set_label(i, "jaula-default//child")),
    Edit("stack of profiles", "LSM label", lambda i: set_label(i, "jaula-default//&other")),
    Edit(
        "label of a thread",
        "process 2 has the LSM label",
        lambda i: setattr(i.cores[2].thread_core.creds, "lsm_profile", "other"),
    ),
    Edit(
        "label of sockets",
        "makes sockets with the LSM label",
        lambda i: setattr(credentials(i), "lsm_sockcreate", "jaula-default"),
    ),
    Edit("policy", "AppArmor", lambda i: setattr(credentials(i), "apparmor_data", b"x")),
    Edit("secure bits", "secure bits", lambda i: setattr(credentials(i), "secbits", 1 << 20)),
    Edit(
        "no filter",
        "no filter",
        lambda i: i.cores[1].thread_core.ClearField("seccomp_mode"),
    ),
    Edit(
        "disabled filter", "no filter", lambda i: setattr(i.cores[1].thread_core, "seccomp_mode", 0)
    ),
    Edit("old filter", "old format", lambda i: setattr(i.cores[1].tc, "old_seccomp_mode", 0)),
    Edit("other filter", "another filter", lambda i: setattr(i.filters[0], "filter", b"allowall")),
    Edit("filter loop", "unknown filter", lambda i: setattr(i.filters[0], "prev", 0)),
    Edit(
        "unknown filter",
        "unknown filter",
        lambda i: setattr(i.cores[1].thread_core, "seccomp_filter", 9),
    ),
    Edit(
        "thread without filter",
        "no filter",
        lambda i: (
            i.cores[2].thread_core.ClearField("seccomp_mode"),
            setattr(i.filters[0], "flags", 0),
        ),
    ),
    Edit("user namespace of the host", "host's user", lambda i: setattr(i.ids[1], "user_ns_id", 6)),
    Edit("all namespaces of the host", "host's", replaced(ids={1: ids(1)})),
    Edit("no mount namespace", "host's mount", lambda i: i.ids[1].ClearField("mnt_ns_id")),
    Edit("no user namespace", "0 user namespaces", replaced(user_namespaces=())),
    Edit("foreign cgroup", "unknown cgroup", lambda i: setattr(i.cores[1].tc, "cg_set", 7)),
    Edit(
        "plugins",
        "plugins",
        lambda i: i.inventory.plugins_entry.plugins.append("x"),
    ),
    Edit(
        "limit", "resource limit", lambda i: setattr(i.cores[1].tc.rlimits.rlimits[7], "max", 4096)
    ),
    Edit("OOM", "OOM", lambda i: setattr(i.cores[1].tc, "oom_score_adj", -1000)),
    Edit("mount", "not part", with_mount(mountpoint="/data/../etc")),
    Edit("external mount of the host", "directory of the host", with_mount(ext_key="/etc")),
    Edit("mount by device", "directory of the host", with_mount(ext_mount=True)),
    Edit("plugin mount", "plugin", with_mount(with_plugin=True)),
    Edit(
        "bind in place of proc", "unknown file system", lambda i: setattr(i.mounts[1], "fstype", 16)
    ),
    Edit("writable sys", "is not ro", lambda i: setattr(i.mounts[2], "flags", 0)),
    Edit(
        "no proc", "'/proc' is missing", lambda i: replaced(mounts=i.mounts[:1] + i.mounts[2:])(i)
    ),
    Edit("file of the host", "outside", lambda i: setattr(i.files[0].reg, "ext", True)),
    Edit("file on another mount", "unknown mount", lambda i: setattr(i.files[0].reg, "mnt_id", 77)),
    Edit("parent directory", r"'\.\.'", lambda i: setattr(i.files[0].reg, "name", b"/a/../../etc")),
    Edit("descriptor of a namespace", "refused", lambda i: setattr(i.files[0], "type", 14)),
    Edit("external descriptor", "refused", lambda i: setattr(i.files[0], "type", 16)),
    Edit("tun device", "refused", lambda i: setattr(i.files[0], "type", 15)),
    Edit("no tree", "no task", replaced(tree=())),
    Edit(
        "two trees",
        "2 first",
        lambda i: replaced(
            tree=(*i.tree, images_pb2.PstreeEntry(pid=9, ppid=0, pgid=9, sid=9)),
            cores={**i.cores, 9: core()},
            ids={**i.ids, 9: ids(11)},
        )(i),
    ),
    Edit(
        "stray thread",
        "belongs to no process",
        replaced(cores={1: core(), 2: core(leader=False), 3: core(leader=False)}),
    ),
    Edit("no core", "missing", replaced(cores={1: core()})),
    Edit("packet socket", "raw socket", replaced(files=(images_pb2.File(type=10, id=7),))),
    Edit("raw socket", "raw socket", replaced(files=(inet(3),))),
    Edit("socket without a type", "raw socket", replaced(files=(images_pb2.File(type=4, id=7),))),
    Edit("priority", "higher priority", with_thread(sched_nice=-5)),
    Edit("real-time", "real-time priority", with_thread(sched_policy=1, sched_prio=50)),
    Edit("deadline", "real-time priority", with_thread(sched_policy=6)),
    Edit("dead init", "process is dead", lambda i: setattr(i.cores[1].tc, "task_state", 2)),
    Edit("helper", "unknown state", lambda i: setattr(i.cores[1].tc, "task_state", 7)),
    Edit("no credentials", "no credentials", lambda i: i.cores[1].thread_core.ClearField("creds")),
)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_an_edited_checkpoint_is_refused(edit: Edit) -> None:
    made = copy.deepcopy(container())
    changed = edit.apply(made)
    with pytest.raises(InvalidRequest, match=edit.words):
        check(changed if isinstance(changed, Images) else made, EXPECTED)


JOINED = msgspec.structs.replace(
    EXPECTED,
    namespaces=frozenset({"pid", "mount", "cgroup"}),
    joined=frozenset({"network", "ipc", "uts", "user"}),
)


def member() -> Images:
    """Return the images of a container of a pod: CRIU was in the joined namespaces."""
    made = container()
    for kind in ("net", "ipc", "uts"):
        setattr(made.ids[1], f"{kind}_ns_id", getattr(made.inventory.root_ids, f"{kind}_ns_id"))
    return made


def test_joined_namespaces_are_those_that_criu_was_in() -> None:
    check(member(), JOINED)


@pytest.mark.parametrize("kind", ["net", "ipc", "uts", "time"])
def test_a_new_namespace_in_place_of_a_joined_one_is_refused(kind: str) -> None:
    made = member()
    setattr(made.ids[1], f"{kind}_ns_id", 70)
    with pytest.raises(InvalidRequest, match=r"another .* namespace than the spec says"):
        check(made, JOINED)


@pytest.mark.parametrize("kind", ["pid", "mnt", "user", "cgroup"])
def test_a_container_that_joins_namespaces_is_in_no_other_one_of_the_host(kind: str) -> None:
    made = member()
    number = getattr(made.inventory.root_ids, f"{kind}_ns_id")
    setattr(made.ids[1], f"{kind}_ns_id", number)
    with pytest.raises(InvalidRequest, match=r"is in the host's .* namespace"):
        check(made, JOINED)


@pytest.mark.parametrize("names", [(), ("userns-16.img", "userns-17.img")])
def test_a_joined_user_namespace_has_one_image(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match=f"it has {len(names)} user namespaces"):
        check(msgspec.structs.replace(member(), user_namespaces=names), JOINED)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"bounding": 1 << 23 | CAPABILITIES}, {"sched_nice": -20}),
        ({"rlimits": {7: 1024, 13: 30, 14: 0}}, {"sched_nice": -10}),
        ({"rlimits": {7: 1024, 13: 0, 14: 60}}, {"sched_policy": 2, "sched_prio": 60}),
        ({"nice": -7}, {"sched_nice": -7}),
        ({"realtime": 5}, {"sched_policy": 1, "sched_prio": 5}),
        ({}, {"sched_policy": 3, "sched_nice": 19}),
    ],
)
def test_a_priority_that_the_container_may_have_is_accepted(
    changes: dict[str, Any], fields: dict[str, int]
) -> None:
    made = container()
    with_thread(**fields)(made)
    check(made, msgspec.structs.replace(EXPECTED, **changes))


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_sockets_that_the_container_may_have_are_accepted(kind: int) -> None:
    made = msgspec.structs.replace(container(), files=(inet(kind),))
    raw = 1 << 13 if kind == 3 else 0
    check(made, msgspec.structs.replace(EXPECTED, bounding=CAPABILITIES | raw))


@pytest.mark.parametrize(
    ("profile", "label"),
    [
        ("jaula-default", "jaula-default"),
        ("jaula-default", ""),
        ("", "unconfined"),
        ("", ""),
        ("jaula-default-0123456789ab", "jaula-default-ba9876543210"),
        ("jaula-default-0123456789ab", "jaula-default"),
        ("jaula-default", "jaula-default-0123456789ab"),
    ],
)
def test_the_profile_of_the_spec_and_none_are_accepted(profile: str, label: str) -> None:
    made = container()
    set_label(made, label)
    check(made, msgspec.structs.replace(EXPECTED, apparmor=profile))


@pytest.mark.parametrize(
    ("profile", "label"),
    [
        ("", "jaula-default"),
        ("", "jaula-default-0123456789ab"),
        ("mine", "jaula-default-0123456789ab"),
        ("jaula-default-0123456789ab", "mine"),
        ("jaula-default-0123456789ab", "jaula-default-ba9876543210//child"),
        ("jaula-default-0123456789ab", "jaula-default-ba9876543210//&mine"),
        ("jaula-default-mine", "jaula-default-0123456789ab"),
    ],
)
def test_a_profile_that_the_spec_does_not_have_is_refused(profile: str, label: str) -> None:
    made = container()
    set_label(made, label)
    with pytest.raises(InvalidRequest, match=f"the container gets '{profile or 'unconfined'}'"):
        check(made, msgspec.structs.replace(EXPECTED, apparmor=profile))


CONTEXT = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.mark.parametrize(
    ("options", "context", "accepted"),
    [
        (f'context="{CONTEXT}",mode=755', CONTEXT, True),
        (f"context={CONTEXT[:-6]}", CONTEXT[:-6], True),
        (f'context="{CONTEXT}"', "", False),
        (f'context="{CONTEXT},c3"', CONTEXT, False),
        ('context="system_u:object_r:etc_t:s0:c1,c2"', CONTEXT, False),
    ],
)
def test_a_mount_has_the_label_of_the_spec(options: str, context: str, accepted: bool) -> None:
    made = container()
    made.mounts[2].options = options
    expected = msgspec.structs.replace(EXPECTED, context=context)
    if accepted:
        check(made, expected)
    else:
        with pytest.raises(InvalidRequest, match="has the option"):
            check(made, expected)
