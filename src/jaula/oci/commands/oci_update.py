"""``update``: update the resource limits of a container."""

from __future__ import annotations

from msgspec import structs

from jaula.errors import Conflict, InvalidRequest
from jaula.oci import bundle_documents, runtime_services
from jaula.oci.args import VALUE, CommandArgs, Options
from jaula.oci.runtime_container import CONFIG, Container
from jaula.runtime import validation
from jaula.spec import runtime_spec

FLAGS = {
    "resources": VALUE,
    "r": "resources",
    "blkio-weight": VALUE,
    "cpu-period": VALUE,
    "cpu-quota": VALUE,
    "cpu-burst": VALUE,
    "cpu-share": VALUE,
    "cpu-rt-period": VALUE,
    "cpu-rt-runtime": VALUE,
    "cpuset-cpus": VALUE,
    "cpuset-mems": VALUE,
    "cpu-idle": VALUE,
    "memory": VALUE,
    "memory-reservation": VALUE,
    "memory-swap": VALUE,
    "pids-limit": VALUE,
}
USAGE = "[flags] CONTAINER-ID"
_SUFFIXES = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def run(args: CommandArgs) -> int:
    """Apply the limits, and store them in the container's spec."""
    source = args.options.get("resources")
    limits = bundle_documents.load_resources(source) if source else from_flags(args.options)
    validation.check_resources(limits)
    limits = structs.replace(
        limits, devices=()
    )  # device rules are set at creation and never change
    with Container.open(args.settings.root, args.container_id()) as container:
        container.lock(wait_for_create=False)
        record = container.record()
        status = container.status(record)
        if status in ("stopped", "creating"):
            raise Conflict(f"cannot update container {container.id}: it is {status}")
        if limits == runtime_spec.Resources():
            return 0  # as of docker update --restart
        args.log.step(f"set the limits of cgroup {record.cgroup}")
        with runtime_services.cgroup_of(record) as cgroup:
            for warning in cgroup.apply(limits):
                args.log.warning(warning)
        spec = runtime_spec.decode(container.read(CONFIG))
        linux = spec.linux or runtime_spec.Linux()
        merged = merge(linux.resources or runtime_spec.Resources(), limits)
        linux = structs.replace(linux, resources=merged)
        container.write(CONFIG, runtime_spec.encode(structs.replace(spec, linux=linux)))
    return 0


def from_flags(options: Options) -> runtime_spec.Resources:
    """Return the limits of the flags.

    :raises InvalidRequest: when a value is malformed.
    """
    cpu = runtime_spec.CPU(
        shares=_number(options, "cpu-share"),
        quota=_number(options, "cpu-quota"),
        period=_number(options, "cpu-period"),
        burst=_number(options, "cpu-burst"),
        realtime_period=_number(options, "cpu-rt-period"),
        realtime_runtime=_number(options, "cpu-rt-runtime"),
        cpus=options.get("cpuset-cpus") or None,
        mems=options.get("cpuset-mems") or None,
        idle=_number(options, "cpu-idle"),
    )
    memory = runtime_spec.Memory(
        limit=_bytes(options, "memory"),
        reservation=_bytes(options, "memory-reservation"),
        swap=_bytes(options, "memory-swap"),
    )
    pids, weight = _number(options, "pids-limit"), _number(options, "blkio-weight")
    return runtime_spec.Resources(
        cpu=cpu if cpu != runtime_spec.CPU() else None,
        memory=memory if memory != runtime_spec.Memory() else None,
        pids=runtime_spec.Pids(pids) if pids is not None else None,
        block_io=runtime_spec.BlockIO(weight=weight) if weight is not None else None,
    )


def merge(old: runtime_spec.Resources, new: runtime_spec.Resources) -> runtime_spec.Resources:
    """Return the limits after an update: the new values, else the old ones."""
    changes = {}
    for name in ("cpu", "memory", "block_io", "network"):
        old_value, new_value = getattr(old, name), getattr(new, name)
        if new_value is not None and old_value is not None:
            fields = {
                field: value
                for field in new_value.__struct_fields__
                if (value := getattr(new_value, field)) not in (None, ())
            }
            new_value = structs.replace(old_value, **fields)
        if new_value is not None:
            changes[name] = new_value
    for name in ("devices", "pids", "hugepage_limits"):
        if getattr(new, name):
            changes[name] = getattr(new, name)
    for name in ("rdma", "unified"):
        changes[name] = {**getattr(old, name), **getattr(new, name)}
    return structs.replace(old, **changes)


def _number(options: Options, name: str) -> int | None:
    return options.number(name) if options.has(name) else None


def _bytes(options: Options, name: str) -> int | None:
    """Return a size with a binary suffix, or -1, in bytes.

    :raises InvalidRequest: when the value is malformed.
    """
    if not options.has(name):
        return None
    text = options.get(name).lower().removesuffix("ib").removesuffix("b")
    factor = _SUFFIXES.get(text[-1:], 0)
    digits = text[:-1] if factor else text
    if not digits.removeprefix("-").isdecimal():
        raise InvalidRequest(f"--{name}: {options.get(name)!r} is not a size", hint="such as 64m")
    return int(digits) * (factor or 1)
