"""The flags of ``run`` and ``create``: the table of :mod:`jaula.spec.run_options`."""

from __future__ import annotations

from jaula.spec.run_options import OPTIONS as FLAGS

__all__ = ["FLAGS"]
