"""``jaula check``: what this kernel can do for containers."""

from __future__ import annotations

from jaula.cli.command import Command, Options


def run(options: Options) -> int:
    """Print the report; 1 where something is missing that containers cannot do without."""
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.audit.kernel import check_config

    rows = check_config.check()
    print(check_config.render(rows))
    return 1 if any(row.fatal for row in rows) else 0


COMMAND = Command(
    "",
    "Report the kernel's support for containers, feature by feature",
    run,
    max_args=0,
    description=(
        "Namespaces, cgroup controllers, overlay, seccomp, LSMs, veth, bridge and nftables, from "
        "/proc/config.gz or /boot/config and by trying. Each missing feature is named with what is "
        "lost without it."
    ),
    examples=(("The report", "jaula check"),),
    exit_status=(("0", "containers work here"), ("1", "something needed is missing")),
    see_also=("info", "verify"),
)
