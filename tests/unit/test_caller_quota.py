"""The shares of callers, and the reserve of root."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.caller_quota import CallerQuota, OwnedSizes


def fill(quota: CallerQuota, caller: str) -> int:
    """Take as much as possible, one by one."""
    count = 0
    while quota.take(caller, 1, root=False):
        count += 1
    return count


def test_a_caller_may_hold_as_much_as_is_free() -> None:
    quota = CallerQuota(120, 20)
    assert [fill(quota, name) for name in "abc"] == [50, 25, 12]


def test_only_root_uses_the_reserve_and_the_share_of_everybody() -> None:
    quota = CallerQuota(10, 4)
    assert not quota.take("a", 4, root=False)
    assert quota.take("0", 10, root=True)
    assert not quota.take("0", 1, root=True)
    assert not quota.take("a", 1, root=False)


def test_what_is_given_back_is_free_for_others() -> None:
    quota = CallerQuota(10, 0)
    assert quota.take("a", 5, root=False)
    assert not quota.take("b", 3, root=False)
    quota.give_back("a", 5)
    assert quota.take("b", 5, root=False)


@pytest.mark.parametrize("root", [True, False])
@given(steps=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 40))))
def test_never_more_than_the_total_is_held(root: bool, steps: list[tuple[str, int]]) -> None:
    quota = CallerQuota(100, 10)
    held: list[tuple[str, int]] = []
    for caller, amount in steps:
        if quota.take(caller, amount, root=root):
            held.append((caller, amount))
        assert sum(size for _, size in held) <= (100 if root else 90)
    for caller, amount in held:
        quota.give_back(caller, amount)
    assert quota.take("0", 100, root=True)


def test_what_is_available_can_be_taken_and_no_more() -> None:
    quota = CallerQuota(100, 10)
    for caller in ("a", "b", "a", "c"):
        amount = quota.available(caller)
        assert not quota.take(caller, amount + 1, root=False)
        assert not amount or quota.take(caller, amount, root=False)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from("klmn"), st.sampled_from("ab"), st.none() | st.integers(0, 1 << 40)
        )
    )
)
def test_sizes_are_those_of_the_objects_that_an_owner_has_now(
    steps: list[tuple[str, str, int | None]],
) -> None:
    sizes, objects = OwnedSizes(), dict[str, tuple[str, int]]()
    for key, owner, size in steps:
        if size is None:
            sizes.drop(key)
            objects.pop(key, None)
        else:
            sizes.set(key, owner, size)
            objects[key] = owner, size
        for each in "abc":
            own = [size for other, size in objects.values() if other == each]
            assert (sizes.count(each), sizes.size(each)) == (len(own), sum(own))
        assert sizes.total == sum(size for _, size in objects.values())
