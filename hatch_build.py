"""Build hook of the wheel: generate the man pages and install them below ``share/man``.

The pages come from the command tables in ``src``, which import nothing but msgspec.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManPages(BuildHookInterface[Any]):
    """Add the man pages to the wheel's data files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the pages in a temporary directory, which lives as long as the hook."""
        root = Path(self.root)
        self.pages = tempfile.TemporaryDirectory(prefix="jaula-man-")
        sys.path[:0] = [str(root / "packaging/man"), str(root / "src")]
        sys.dont_write_bytecode = True
        import generate

        for path in generate.write(Path(self.pages.name)):
            build_data["shared_data"][f"{self.pages.name}/{path}"] = f"share/man/{path}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary directory."""
        self.pages.cleanup()
