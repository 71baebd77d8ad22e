"""The v1 ``hugetlb`` controller: a limit per huge page size, reservations included.

Source: OCI config-linux.md "Huge page limits"; kernel ``admin-guide/cgroup-v1/hugetlb.rst``.
"""

from __future__ import annotations

from jaula.cgroups import hugetlb_page_size
from jaula.cgroups.files import FileWrite, Reader, Step, number
from jaula.cgroups.protocol import HugetlbStats
from jaula.spec.runtime import Resources


class Hugetlb:
    name = "hugetlb"
    limits = tuple(
        f"hugetlb.{size}.{kind}limit_in_bytes" for size in ("2MB", "1GB") for kind in ("", "rsvd.")
    )

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        steps: list[Step] = []
        for limit in resources.hugepage_limits:
            prefix = f"hugetlb.{hugetlb_page_size.validate(limit.page_size)}"
            steps.append(FileWrite(f"{prefix}.limit_in_bytes", str(limit.limit)))
            reserved = f"{prefix}.rsvd.limit_in_bytes"
            if current(reserved) is not None:  # Linux 5.7; before, use alone is limited
                steps.append(FileWrite(reserved, str(limit.limit)))
        return tuple(steps)


def stats(read: Reader) -> dict[str, HugetlbStats]:
    """By page size; what is reserved where the kernel counts that, else what is used."""
    found: dict[str, HugetlbStats] = {}
    for size in hugetlb_page_size.host_sizes():
        for prefix in (f"hugetlb.{size}.rsvd", f"hugetlb.{size}"):
            usage = read(f"{prefix}.usage_in_bytes")
            if usage is not None:
                peak, failures = read(f"{prefix}.max_usage_in_bytes"), read(f"{prefix}.failcnt")
                found[size] = HugetlbStats(number(usage), number(peak), number(failures))
                break
    return found
