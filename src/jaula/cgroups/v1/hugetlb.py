"""The v1 ``hugetlb`` controller: a limit per huge page size.

Source: OCI config-linux.md "Huge page limits"; kernel ``admin-guide/cgroup-v1/hugetlb.rst``.
"""

from __future__ import annotations

from jaula.cgroups.files import Reader
from jaula.cgroups.pagesize import checked
from jaula.cgroups.writes import Step, Write
from jaula.spec.runtime import Resources


class Hugetlb:
    name = "hugetlb"
    limits = ("hugetlb.2MB.limit_in_bytes", "hugetlb.1GB.limit_in_bytes")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        return tuple(
            Write(f"hugetlb.{checked(limit.page_size)}.limit_in_bytes", str(limit.limit))
            for limit in resources.hugepage_limits
        )
