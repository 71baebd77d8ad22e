"""Drawing of process trees with changed namespaces."""

from __future__ import annotations

import os

import pytest

from jaula.features.verify.pstree import ProcessEntry, build, draw, membership, processes, render

HOST = {"net": "net:[1]", "pid": "pid:[1]", "user": "user:[1]"}
OWN = {"net": "net:[2]", "pid": "pid:[2]", "user": "user:[2]"}


def entries(*rows: ProcessEntry) -> dict[int, ProcessEntry]:
    return {row.pid: row for row in rows}


TREE = entries(
    ProcessEntry(1, 0, "init", HOST),
    ProcessEntry(2, 0, "kthreadd", HOST),
    ProcessEntry(3, 2, "kworker", HOST),
    ProcessEntry(10, 1, "engine", HOST),
    ProcessEntry(11, 10, "shim", HOST),
    ProcessEntry(12, 11, "sh", OWN),
    ProcessEntry(13, 12, "sleep", OWN),
    ProcessEntry(14, 11, "sh", OWN | {"net": "net:[1]"}),
    ProcessEntry(20, 1, "sshd", HOST),
)


def drawn(*roots: int) -> list[str]:
    return [line for node in build(TREE, roots) for line in draw(node)]


def test_the_whole_tree_is_drawn_as_pstree_does() -> None:
    assert drawn() == [
        "init(1)-+-engine(10)---shim(11)-+-sh(12,net,pid,user)---sleep(13)",
        "        |                       `-sh(14,pid,user)",
        "        `-sshd(20)",
    ]


def test_a_root_is_drawn_with_its_ancestors_and_all_below() -> None:
    assert drawn(12) == ["init(1)---engine(10)---shim(11)---sh(12,net,pid,user)---sleep(13)"]


def test_a_root_that_does_not_exist_draws_nothing() -> None:
    assert drawn(999) == []


def test_unreadable_namespaces_are_a_question_mark() -> None:
    tree = entries(ProcessEntry(1, 0, "init", HOST), ProcessEntry(2, 1, "x", None))
    assert [line for node in build(tree) for line in draw(node)] == ["init(1)---x(2,?)"]


def test_an_unreadable_parent_shows_no_changes() -> None:
    tree = entries(ProcessEntry(1, 0, "init", None), ProcessEntry(2, 1, "x", OWN))
    assert [line for node in build(tree) for line in draw(node)] == ["init(1)---x(2)"]


def test_the_host_is_read_with_this_process_in_it() -> None:
    result = processes()
    assert result[os.getpid()].parent == os.getppid()
    assert f"({os.getpid()})" in render([os.getpid()])


def test_the_shims_of_a_pod_are_below_its_name() -> None:
    tree = entries(
        ProcessEntry(1, 0, "init", HOST),
        ProcessEntry(10, 1, "shim", HOST),
        ProcessEntry(11, 10, "pause", OWN),
        ProcessEntry(20, 1, "shim", HOST),
        ProcessEntry(21, 20, "sh", OWN),
        ProcessEntry(30, 1, "shim", HOST),
        ProcessEntry(31, 30, "other", OWN),
    )
    groups = {"pod default/web\x1b": (11, 21, 99)}
    assert [line for node in build(tree, (), groups) for line in draw(node)] == [
        "init(1)-+-shim(30)---other(31,net,pid,user)",
        "        `-pod default/web?-+-shim(10)---pause(11,net,pid,user)",
        "                           `-shim(20)---sh(21,net,pid,user)",
    ]
    drawn_pod = [line for node in build(tree, (11, 21), groups) for line in draw(node)]
    assert drawn_pod[0] == "init(1)---pod default/web?-+-shim(10)---pause(11,net,pid,user)"


MINE, THEIRS = "a" * 64, "b" * 64


def member(pid: int, parent: int, cgroups: str) -> ProcessEntry:
    return ProcessEntry(pid, parent, f"p{pid}", None, cgroups)


def of(*entries: ProcessEntry, **first: str) -> dict[int, str]:
    by_pid = {entry.pid: entry for entry in entries}
    return membership(by_pid, {int(pid[1:]): id for pid, id in first.items()})


@pytest.mark.parametrize(
    "path",
    [
        f"0::/jaula/{MINE}",
        f"0::/system.slice/jaula-{MINE}.scope/init.scope",
        f"0::/parent/{MINE}/{THEIRS}",  # a container names the cgroups below its own
        f"2:pids:/jaula/{MINE}\n0::/",
    ],
)
def test_the_outermost_cgroup_of_a_container_decides(path: str) -> None:
    entries = (member(1, 0, "0::/"), member(5, 1, path), member(7, 1, path))
    assert of(*entries, p5=MINE, p9=THEIRS) == {5: MINE, 7: MINE}


def test_an_adopted_process_stays_one_of_its_container() -> None:
    mine, theirs = f"0::/jaula/{MINE}", f"0::/jaula/{THEIRS}"
    entries = (member(5, 1, mine), member(6, 5, theirs), member(8, 1, theirs))
    assert of(*entries, p5=MINE, p8=THEIRS) == {5: MINE, 6: THEIRS, 8: THEIRS}


def test_an_id_that_no_container_has_is_none() -> None:
    assert of(member(5, 1, f"0::/{THEIRS}"), member(6, 1, f"0::/{MINE}0")) == {}


def test_without_cgroups_the_descendants_of_the_first_process_are_inside() -> None:
    entries = [member(1, 0, ""), member(5, 1, ""), member(6, 5, ""), member(7, 6, "")]
    entries += [member(8, 9, ""), member(9, 8, "")]  # a circle
    assert of(*entries, p5=MINE) == {5: MINE, 6: MINE, 7: MINE}
