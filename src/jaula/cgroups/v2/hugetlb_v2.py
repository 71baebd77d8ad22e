"""The v2 ``hugetlb`` controller: a limit per huge page size, including reservations.

Source: OCI config-linux.md "Huge page limits"; kernel ``admin-guide/cgroup-v2.rst`` "HugeTLB".
"""

from __future__ import annotations

from jaula.cgroups import hugetlb_page_size
from jaula.cgroups.cgroup_driver import HugetlbStats
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step, flat_keyed, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources

_NO_RESERVATION = "this kernel does not limit reserved huge pages"


class Hugetlb:
    """The v2 ``hugetlb`` controller."""

    name = "hugetlb"
    section = "hugepage_limits"
    limits = ("hugetlb.2MB.max", "hugetlb.1GB.max")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        steps: list[Step] = []
        for limit in resources.hugepage_limits:
            prefix = f"hugetlb.{hugetlb_page_size.validate(limit.page_size)}"
            steps.append(FileWrite(f"{prefix}.max", str(limit.limit)))
            steps.append(FileWrite(f"{prefix}.rsvd.max", str(limit.limit), missing=_NO_RESERVATION))
        return tuple(steps)


def stats(read: Reader) -> dict[str, HugetlbStats]:
    """Return statistics by page size: of reservations if the kernel counts them, else of usage.

    v2 records no peak.
    """
    result: dict[str, HugetlbStats] = {}
    for size in hugetlb_page_size.host_sizes():
        for prefix in (f"hugetlb.{size}.rsvd", f"hugetlb.{size}"):
            if (usage := read(f"{prefix}.current")) is not None:
                failures = flat_keyed(read(f"hugetlb.{size}.events")).get("max", 0)
                result[size] = HugetlbStats(number(usage), 0, failures)
                break
    return result
