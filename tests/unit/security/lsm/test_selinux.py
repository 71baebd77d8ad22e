"""SELinux: contexts, options, labels, categories, and directories that are never relabelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest, Unavailable
from jaula.security.lsm import relabel_denylist, selinux_choice, selinux_mcs
from jaula.security.lsm.interface import LabelRequest
from jaula.security.lsm.selinux_choice import Context, Labels, SELinux, Types
from jaula.spec.runtime_spec import Linux, Namespace, Process, Spec

OWN = tuple(Namespace(kind) for kind in ("mount", "pid", "ipc", "user"))


def spec(namespaces: tuple[Namespace, ...] = OWN) -> Spec:
    return Spec(process=Process(cwd="/"), linux=Linux(namespaces=namespaces))


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("system_u:system_r:container_t:s0", "s0"),
        ("system_u:system_r:container_t:s0:c1,c2", "s0:c1,c2"),
        ("u:r:t:s0-s0:c0.c1023", "s0-s0:c0.c1023"),
    ],
)
def test_a_context_is_read_and_written(text: str, level: str) -> None:
    found = selinux_choice.parse_context(text)
    assert found.level == level
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:b:c",
        "a:b::d",
        ":::",
        "a:b:c:d\n",
        'a:b:c:"',
        "a:b:c:d e",
        "a:b:c:" + "d" * 300,
        "ä:b:c:d",
    ],
)
def test_an_invalid_context_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        selinux_choice.parse_context(text)


@given(st.text(max_size=80))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (
        selinux_choice.parse_context,
        lambda t: selinux_choice.parse((t,)),
        selinux_choice.read_types,
    ):
        try:
            parse(text)
        except InvalidRequest:
            continue


def test_the_policys_file_names_the_types() -> None:
    text = (
        '# a comment\nprocess = "system_u:system_r:svirt_t:s0"\n'
        'file = "system_u:object_r:svirt_file_t:s0"\nro_file="a:b:c:d"\nnonsense\n'
    )
    found = selinux_choice.read_types(text)
    assert found.process.type == "svirt_t"
    assert found.file.type == "svirt_file_t"
    assert found.privileged.type == "spc_t"
    assert selinux_choice.read_types("") == Types()
    chosen = selinux_choice.read_types(text, process="my_t", file="my_file_t")
    assert (chosen.process.type, chosen.file.type) == ("my_t", "my_file_t")
    with pytest.raises(InvalidRequest):
        selinux_choice.read_types(text, process="my t")


@pytest.mark.parametrize(
    "value",
    ["", "x", "type", "type:", "type:a:b", "type:a b", "kind:x", "level:", "level:s0\n", "Type:a"],
)
def test_an_invalid_label_option_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest):
        selinux_choice.parse((value,))


def decide(*options: str, unconfined: bool = False, spc: bool = True) -> Labels:
    return selinux_choice.decide(
        selinux_choice.parse(options), Types(), "s0:c1,c2", unconfined=unconfined, spc=spc
    )


def test_labels_follow_the_options() -> None:
    assert decide() == Labels(
        "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"
    )
    chosen = decide("user:a_u", "role:b_r", "type:c_t", "level:s0:c8,c9")
    assert chosen == Labels("a_u:b_r:c_t:s0:c8,c9", "system_u:object_r:container_file_t:s0:c8,c9")
    assert decide("type:a_t", "type:b_t").process.split(":")[2] == "b_t"


def test_an_unconfined_container_has_its_own_file_label() -> None:
    for labels in (decide("disable"), decide("type:x_t", "disable"), decide(unconfined=True)):
        assert labels.process == "system_u:system_r:spc_t:s0"
        assert labels.mount == "system_u:object_r:container_file_t:s0:c1,c2"
    assert decide("disable", spc=False).process == ""
    assert decide("type:x_t", unconfined=True).process == "system_u:system_r:x_t:s0:c1,c2"


def test_a_spec_gets_both_labels_and_only_with_a_policy() -> None:
    module = SELinux(active=True, level="s0:c1,c2")
    done = module.confine(spec(), LabelRequest())
    assert module.requested(done) == decide().process
    assert done.linux is not None
    assert done.linux.mount_label == decide().mount
    assert SELinux(active=False).confine(spec(), LabelRequest()) == spec()


@pytest.mark.parametrize(
    ("namespaces", "privileged", "kind"),
    [
        (OWN, False, "container_t"),
        (OWN, True, "spc_t"),
        (tuple(n for n in OWN if n.type != "pid"), False, "spc_t"),
        (tuple(n for n in OWN if n.type != "ipc"), False, "spc_t"),
        (tuple(n for n in OWN if n.type != "user"), False, "container_t"),
        ((*OWN[:1], Namespace("pid", "/p"), Namespace("ipc", "/i")), False, "container_t"),
    ],
)
def test_a_container_in_host_namespaces_is_not_confined(
    namespaces: tuple[Namespace, ...], privileged: bool, kind: str
) -> None:
    module = SELinux(active=True, level="s0:c1,c2")
    done = module.confine(spec(namespaces), LabelRequest((), privileged))
    assert f":{kind}:" in module.requested(done)


def test_a_context_is_parsed_back() -> None:
    assert Context("u", "r", "t", "s0").type == "t"


# -- categories ------------------------------------------------------------------------------


def test_a_pair_is_free_and_ordered() -> None:
    low, high = selinux_mcs.choose(set())
    assert 0 <= low < high < selinux_mcs.CATEGORIES
    assert selinux_mcs.pair(selinux_mcs.level(low, high)) == (low, high)


def test_every_pair_is_allocated_once_then_allocation_fails() -> None:
    used: set[tuple[int, int]] = set()
    for _ in range(10):  # 5 categories give 10 pairs
        found = selinux_mcs.choose(used, count=5)
        assert found not in used
        used.add(found)
    with pytest.raises(Unavailable, match="all 10 pairs"):
        selinux_mcs.choose(used, count=5)
    used.discard((1, 3))
    assert selinux_mcs.choose(used, count=5) == (1, 3)


def test_a_repeating_random_source_still_gives_a_free_pair() -> None:
    assert selinux_mcs.choose({(0, 1)}, count=4, random_below=lambda _: 0) == (0, 2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("s0:c1,c2", (1, 2)),
        ("s0:c2,c1", (1, 2)),
        ("s0", None),
        ("s0:c1", None),
        ("s0:c1,c1", None),
        ("s0:c1,c1024", None),
        ("s1:c1,c2", None),
        ("s0:c1.c2", None),
        ("s0:c1,c2,c3", None),
        ("s0:1,2", None),
        ("", None),
    ],
)
def test_a_level_is_parsed_as_a_pair_or_none(text: str, found: tuple[int, int] | None) -> None:
    assert selinux_mcs.pair(text) == found


# -- directories never relabelled --------------------------------------------------------------

ENGINE = ("/var/lib/jaula", "/run/jaula")


@pytest.mark.parametrize(
    "path",
    [
        "/", "//", "/etc", "/etc/", "/etc/ssl/certs", "/usr", "/usr/local", "/home", "/home/anna",
        "/root", "/var", "/var/lib", "/var/run", "/run", "/boot", "/boot/grub", "/dev", "/dev/shm",
        "/proc", "/proc/1", "/sys", "/sys/fs/cgroup", "/lib64", "/bin", "/sbin", "/tmp", "/opt",
        "/srv/../etc", "/srv/./../usr/lib", "/mnt", "/var/lib/jaula", "/run/jaula", "relative", "",
    ],
)  # fmt: skip
def test_the_system_is_never_relabelled(path: str) -> None:
    with pytest.raises(InvalidRequest, match="relabeling of"):
        relabel_denylist.check(path, own=ENGINE)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/data", "/home/anna/data", "/tmp/x", "/opt/app", "/var/lib/mysql", "/mnt/disk",
        "/data", "/etcetera", "/usr2", "/run/app", "/root/data", "/var/lib/jaula2",
        "/var/lib/jaula/volumes/v/_data",
    ],
)  # fmt: skip
def test_another_directory_may_be_relabelled(path: str) -> None:
    relabel_denylist.check(path, own=ENGINE)


def test_a_directory_with_files_of_the_engine_is_not_relabelled() -> None:
    with pytest.raises(InvalidRequest, match="the engine's own files"):
        relabel_denylist.check("/data", own=("/data/jaula/lib", "/run/jaula"))
