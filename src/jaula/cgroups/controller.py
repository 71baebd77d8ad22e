"""What one controller's file holds: the names of its limits, and the decision what to write.

Every module here and below ``v1/`` and ``v2/`` that is named after a controller has one of these;
one that lies here serves both versions. Adding a controller is one such file and one line in the
table of ``v1/cgroup.py`` or ``v2/cgroup.py``.
"""

from __future__ import annotations

from typing import Protocol

from jaula.cgroups.files import Reader, Step
from jaula.spec.runtime import Resources


class Controller(Protocol):
    """Stateless; pure but for the reader that it is given."""

    @property
    def name(self) -> str:
        """The controller's name in this version's hierarchy."""
        ...

    @property
    def limits(self) -> tuple[str, ...]:
        """Interface files that hold a limit, shown as proof."""
        ...

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        """The writes that bring ``resources`` into force, in order; () where none is asked.

        ``current`` reads files of the cgroup itself. Raises ``InvalidRequest`` for contradictions.
        """
        ...
