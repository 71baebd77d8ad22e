"""The ``rdma`` controller, with the same file in both versions.

Source: OCI config-linux.md "RDMA"; kernel ``admin-guide/cgroup-v1/rdma.rst``: a line is ``DEVICE
hca_handle=N hca_object=N``; keys that are absent stay unchanged.
"""

from __future__ import annotations

from jaula.cgroups.cgroup_files import FileWrite, Reader, Step
from jaula.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources


class Rdma:
    """The ``rdma`` controller."""

    name = "rdma"
    section = "rdma"
    limits = ("rdma.max",)

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        steps: list[Step] = []
        for device, limit in resources.rdma.items():
            if not device or not device.isascii() or not device.isprintable() or " " in device:
                raise InvalidRequest(f"bad rdma device {device!r}", hint="for example mlx5_0")
            pairs = (("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects))
            line = " ".join(f"{key}={value}" for key, value in pairs if value is not None)
            if line:
                steps.append(FileWrite("rdma.max", f"{device} {line}"))
        return tuple(steps)
