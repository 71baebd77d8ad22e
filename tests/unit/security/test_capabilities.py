"""Capability names, masks and the sets of a container."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.kernel.capabilities import NAMES, parse_status_masks
from jaula.security import capability_sets


def masks(**request: object) -> int:
    return capability_sets.mask(capability_sets.resolve(**request).bounding)  # type: ignore[arg-type]


def test_the_default_set_is_dockers_mask() -> None:
    assert masks() == 0xA80425FB


def test_dropping_net_raw_clears_one_bit() -> None:
    assert masks(drop=["net_raw"]) == 0xA80405FB


def test_dropping_all_and_adding_one_leaves_exactly_that_one() -> None:
    sets = capability_sets.resolve(["net_bind_service"], ["all"])
    assert sets.bounding == sets.effective == sets.permitted == ("CAP_NET_BIND_SERVICE",)


def test_inheritable_and_ambient_are_always_empty() -> None:
    for privileged in (False, True):
        sets = capability_sets.resolve(["ALL"], [], privileged=privileged)
        assert sets.inheritable == sets.ambient == ()


def test_privileged_has_every_capability_whatever_is_dropped() -> None:
    assert masks(drop=["all"], privileged=True) == (1 << len(NAMES)) - 1


def test_adding_all_and_dropping_one_leaves_the_others() -> None:
    full = (1 << len(NAMES)) - 1
    assert masks(add=["ALL"], drop=["CAP_SYS_ADMIN"]) == full & ~(1 << NAMES.index("CAP_SYS_ADMIN"))


def test_dropping_wins_over_adding_the_same() -> None:
    assert masks(add=["sys_time"], drop=["SYS_TIME"]) == 0xA80425FB


def test_an_unknown_capability_is_refused_with_similar_names() -> None:
    with pytest.raises(InvalidRequest, match="NET_RAW"):
        capability_sets.resolve(["net_row"])


@pytest.mark.parametrize("name", ["", "CAP_", "net raw", "x" * 100_000, "NET_RAW\0", "\u0130"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        capability_sets.resolve([name])


def test_a_capability_that_the_host_does_not_have_is_refused() -> None:
    known = (1 << len(NAMES)) - 1 & ~(1 << NAMES.index("CAP_SYS_RESOURCE"))
    with pytest.raises(InvalidRequest, match="CAP_SYS_RESOURCE"):
        capability_sets.resolve(["sys_resource"], known=known)
    assert masks(privileged=True, known=known) == known


def test_a_mask_decodes_to_its_names() -> None:
    assert capability_sets.decode(0xA80425FB) == capability_sets.DEFAULT
    assert capability_sets.decode(1 << 63) == ("63",)


def test_a_mask_is_read_as_the_kernel_prints_it() -> None:
    assert capability_sets.parse_mask("00000000a80425fb") == 0xA80425FB
    assert capability_sets.parse_mask("0xA80425FB") == 0xA80425FB


@pytest.mark.parametrize("text", ["", "0x", "-1", "g", "1" * 17, "1_0", "\u0661", "a8 04"])
def test_an_invalid_mask_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        capability_sets.parse_mask(text)


def test_a_process_status_without_a_set_is_an_error() -> None:
    with pytest.raises(ValueError, match="ambient"):
        parse_status_masks("CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t1ff\n")


@pytest.mark.parametrize(("uid", "effective"), [(0, True), (1000, False)])
def test_only_root_has_effective_capabilities(uid: int, effective: bool) -> None:
    sets = capability_sets.of_user(capability_sets.resolve(), uid)
    assert len(sets.bounding) == 14
    assert bool(sets.effective) == bool(sets.permitted) == effective
    assert capability_sets.of_user(sets, 0).effective == sets.bounding
