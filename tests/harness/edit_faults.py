"""An engine that is killed at a chosen step of ``jaula edit``; see :mod:`counted_steps`.

A step is the begin or the end of a function of an edit: requests to the shim, changes of networks,
ports, limits and files, writes of the record.
"""

from __future__ import annotations

from counted_steps import CountedSteps, main


def replace(steps: CountedSteps) -> None:
    from jaula.engine.networks.connect import NetworkConnector
    from jaula.features.edit import edit_container
    from jaula.network.port_mapper import PortMapper
    from jaula.runtime.runtime_client import Shim

    for owner, name in (
        (edit_container._Steps, "_save"),
        (edit_container, "_write"),
        (edit_container, "_apply"),
        (Shim, "change_mounts"),
        (NetworkConnector, "connect"),
        (NetworkConnector, "disconnect"),
        (NetworkConnector, "change_ports"),
        (PortMapper, "_add"),
        (PortMapper, "_withdraw"),
    ):
        steps.count(owner, name, ends=True)
    steps.during(edit_container.Edits, "edit")


if __name__ == "__main__":
    main(replace)
