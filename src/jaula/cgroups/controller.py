"""Interface of a cgroup controller: the names of its limit files, and the writes for a spec.

Every module here and below ``v1/`` and ``v2/`` that is named after a controller has a class with
this interface; one in this directory serves both versions. To add a controller, add such a module
and a line in the table of ``v1/cgroup.py`` or ``v2/cgroup.py``.
"""

from __future__ import annotations

from typing import Protocol

from jaula.cgroups.cgroup_files import Reader, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources


def requested(controller: Controller, resources: Resources) -> bool:
    """Return whether the spec sets a limit of this controller."""
    return bool(controller.section and getattr(resources, controller.section))


class Controller(Protocol):
    """A controller. Stateless; pure except for the reader it is passed."""

    @property
    def name(self) -> str:
        """Name of the controller in this version's hierarchy."""
        ...

    @property
    def section(self) -> str:
        """Field of ``Resources`` with the controller's limits; '' if it has none.

        :meth:`decide` is called only if the spec sets the field.
        """
        ...

    @property
    def limits(self) -> tuple[str, ...]:
        """Interface files that hold a limit, read as evidence."""
        ...

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        """Return the writes that apply ``resources``, in order; () if it sets no limit.

        ``current`` reads files of the cgroup itself.

        :raises InvalidRequest: when limits contradict each other.
        """
        ...
