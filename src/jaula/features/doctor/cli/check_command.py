"""``jaula check``: the kernel's support for containers."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Options


def run(options: Options) -> int:
    """Print the report; 1 if a required feature is missing."""
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.features.doctor.kernel import check_config
    from jaula.kernel.cpuinfo import cpu_features

    rows = check_config.check()
    print(check_config.render(rows))
    print(check_config.render_processor(cpu_features()))
    return 1 if any(row.fatal for row in rows) else 0


COMMAND = Command(
    "",
    "Report the kernel's support for containers, feature by feature",
    run,
    max_args=0,
    description=(
        "Checks namespaces, cgroup controllers, overlay, seccomp, LSMs, veth, bridge and "
        "nftables, in /proc/config.gz or /boot/config and by trying. For each missing feature "
        "it prints what does not work without it. At the end are the features of the processor: "
        "a host that receives running containers from this one must have them all."
    ),
    examples=(("Print the report", "jaula check"),),
    exit_status=(("0", "containers work"), ("1", "a required feature is missing")),
    see_also=("doctor", "info", "verify"),
)
