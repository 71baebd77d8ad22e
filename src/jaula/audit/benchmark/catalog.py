"""All controls, in the order of the benchmark."""

from __future__ import annotations

from jaula.audit.benchmark import (
    containers,
    engine,
    engine_files,
    host,
    images,
    operations,
)
from jaula.audit.benchmark.control import Control

CONTROLS: tuple[Control, ...] = tuple(
    sorted(
        (
            *host.CONTROLS,
            *engine.CONTROLS,
            *engine_files.CONTROLS,
            *images.CONTROLS,
            *containers.CONTROLS,
            *operations.CONTROLS,
        ),
        key=lambda control: [int(part) for part in control.id.split(".")],
    )
)
"""The 108 controls of sections 1 to 6."""

BY_ID = {control.id: control for control in CONTROLS}
