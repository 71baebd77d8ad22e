"""The v2 ``hugetlb`` controller: a limit per huge page size, reservations included.

Source: OCI config-linux.md "Huge page limits"; kernel ``admin-guide/cgroup-v2.rst`` "HugeTLB".
"""

from __future__ import annotations

from jaula.cgroups.files import Reader
from jaula.cgroups.pagesize import checked
from jaula.cgroups.writes import Step, Write
from jaula.spec.runtime import Resources

_NO_RESERVATION = "this kernel does not limit reserved huge pages"


class Hugetlb:
    name = "hugetlb"
    limits = ("hugetlb.2MB.max", "hugetlb.1GB.max")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        steps: list[Step] = []
        for limit in resources.hugepage_limits:
            prefix = f"hugetlb.{checked(limit.page_size)}"
            steps.append(Write(f"{prefix}.max", str(limit.limit)))
            steps.append(Write(f"{prefix}.rsvd.max", str(limit.limit), missing=_NO_RESERVATION))
        return tuple(steps)
