"""Build hook: the version of the build, and in a wheel the man pages and files for monitoring.

The third-party files of the web view and their licences are added too, from the clone or by
``scripts/web-assets``. Without npm and without them a build goes on with a warning, and
``jaula web`` says what it lacks.

The pages come from the command tables in ``src``, which import nothing but msgspec. They are
installed below ``share/man``, and packaging/monitoring as ``share/jaula/monitoring``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VENDOR = "src/jaula/features/web/static/vendor"
TARGETS = {"wheel": "jaula/__init__.py", "sdist": "src/jaula/__init__.py"}
"""Path of the module with the version, in each kind of archive."""


class Build(BuildHookInterface[Any]):
    """Add generated files to a wheel or a source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the files in a temporary directory, which lives as long as the hook.

        ``version`` is the kind of build. An editable wheel has the files of the clone.
        """
        root = Path(self.root)
        self.files = tempfile.TemporaryDirectory(prefix="jaula-build-")
        if version == "editable":
            return
        sys.path[:0] = [str(root / "packaging"), str(root / "packaging/man"), str(root / "src")]
        sys.dont_write_bytecode = True
        import version as versions

        text = (root / versions.MODULE).read_text(encoding="utf-8")
        module = Path(self.files.name, "__init__.py")
        module.write_text(versions.with_version(text, self.metadata.version), encoding="utf-8")
        module.chmod(0o644)
        build_data["force_include"][str(module)] = TARGETS[self.target_name]
        self._add_web_assets(root, build_data)
        if self.target_name == "wheel":
            import generate

            for path in generate.write(Path(self.files.name)):
                build_data["shared_data"][f"{self.files.name}/{path}"] = f"share/man/{path}"
            for file in sorted((root / "packaging/monitoring").iterdir()):
                build_data["shared_data"][str(file)] = f"share/jaula/monitoring/{file.name}"

    def _add_web_assets(self, root: Path, build_data: dict[str, Any]) -> None:
        """Add the files of other projects that the web view has."""
        vendor = root / VENDOR
        script = [sys.executable, str(root / "scripts/web-assets"), "--into"]
        if not vendor.exists():
            vendor = Path(self.files.name, "vendor")
        if subprocess.run([*script, str(vendor)], stdin=subprocess.DEVNULL, check=False).returncode:
            self.app.display_warning("the web view is built without its third-party files")
            return
        target = VENDOR if self.target_name == "sdist" else VENDOR.removeprefix("src/")
        for path in sorted(vendor.iterdir()):
            build_data["force_include"][str(path)] = f"{target}/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary directory."""
        self.files.cleanup()
