"""The v1 ``hugetlb`` controller: a limit per huge page size, including reservations.

Source: OCI config-linux.md "Huge page limits"; kernel ``admin-guide/cgroup-v1/hugetlb.rst``.
"""

from __future__ import annotations

from jaula.cgroups import hugetlb_page_size
from jaula.cgroups.cgroup_driver import HugetlbStats
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources


class Hugetlb:
    """The v1 ``hugetlb`` controller."""

    name = "hugetlb"
    section = "hugepage_limits"
    limits = tuple(
        f"hugetlb.{size}.{kind}limit_in_bytes" for size in ("2MB", "1GB") for kind in ("", "rsvd.")
    )

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        steps: list[Step] = []
        for limit in resources.hugepage_limits:
            prefix = f"hugetlb.{hugetlb_page_size.validate(limit.page_size)}"
            steps.append(FileWrite(f"{prefix}.limit_in_bytes", str(limit.limit)))
            reserved = f"{prefix}.rsvd.limit_in_bytes"
            if current(reserved) is not None:  # since Linux 5.7; older kernels limit usage only
                steps.append(FileWrite(reserved, str(limit.limit)))
        return tuple(steps)


def stats(read: Reader) -> dict[str, HugetlbStats]:
    """Return statistics by page size: of reservations if the kernel counts them, else of usage."""
    result: dict[str, HugetlbStats] = {}
    for size in hugetlb_page_size.host_sizes():
        for prefix in (f"hugetlb.{size}.rsvd", f"hugetlb.{size}"):
            usage = read(f"{prefix}.usage_in_bytes")
            if usage is not None:
                peak, failures = read(f"{prefix}.max_usage_in_bytes"), read(f"{prefix}.failcnt")
                result[size] = HugetlbStats(number(usage), number(peak), number(failures))
                break
    return result
