"""An engine that kills itself, or one of its processes, at a chosen step of its work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from harness.engine import PrivateEngine


class FaultyEngine(PrivateEngine):
    """An engine that a script of this directory runs; ``fault`` is the file that names a step."""

    script: ClassVar[str] = ""

    @property
    def fault(self) -> Path:
        return self.root / "fault"

    def command(self) -> list[str]:
        words = super().command()
        script = str(Path(__file__).with_name(self.script))
        return [sys.executable, script, str(self.fault), *words[words.index("daemon") :]]
