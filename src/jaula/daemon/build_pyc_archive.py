"""Build the archive of an engine's modules, for ``scripts/setup`` and packages.

:mod:`jaula.daemon.engine_archive` reads it.
"""

from __future__ import annotations

import os

from jaula import feature
from jaula.daemon import engine_archive
from jaula.oci import build_pyc_archive

_SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROOTS = (
    "jaula.api.http.api_server",
    "jaula.cgroups.null_driver",
    "jaula.cgroups.v1.driver_v1",
    "jaula.cgroups.v2.driver_v2",
    "jaula.daemon.create_engine",
    "jaula.daemon.engine_main",
    "jaula.daemon.engine_archive",
    "jaula.daemon.reload",
    "jaula.daemon.serve",
    "jaula.engine.authz.gateway",
    "jaula.engine.engine",
    "jaula.engine.group_commit",
    "jaula.engine.hooks",
    "jaula.engine.model.event_log",
    "jaula.engine.model.services",
    "jaula.engine.networks.dns_server",
    "jaula.engine.networks.sandbox_pool",
    "jaula.engine.volumes.volume_references",
    "jaula.images.store.image_store",
    "jaula.logs.follower",
    "jaula.network.manager",
    "jaula.runtime.zygote",
    "jaula.runtime_interfaces",
    "jaula.state.audit_trail",
    "jaula.state.claims",
    "jaula.storage.drivers.overlay",
    "jaula.storage.drivers.driver_choice",
    "jaula.storage.volume_directories",
    "concurrent.futures.thread",
    "encodings.ascii",
    "tomllib",
    "urllib.parse",
    "uuid",
)
"""Modules of an engine; the archive has those that they import too."""
_PACKAGES = ("jaula.daemon.config", "jaula.engine.authz.api")
"""Packages whose modules are imported in functions."""
_RECORD = """
import sys
sys.path[:0] = sys.argv[1:3]
sys.modules["typing_extensions"] = None
from jaula.oci import fast_import
fast_import.install_msgspec()
from jaula import stdlib_import
stdlib_import.import_asyncio()
for name in sys.argv[3:]:
    __import__(name)
for name, module in sys.modules.items():
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name == name and (spec.origin or "").endswith(".py"):
        print(name, spec.origin)
"""


def main(staged: str = "") -> None:
    """Write the archive.

    ``staged`` is the directory that is ``/`` on the machine where a package is installed.

    :raises OSError: when a file cannot be written.
    """
    build_pyc_archive.install_below(staged)
    build_pyc_archive.write_files(engine_archive.archive_path(), engine_files(), {})


def engine_files() -> dict[str, str]:
    """Return the source files of an engine's modules by name."""
    names = [*ROOTS]
    for each in feature.features():
        names += [each.module("feature"), *map(each.module, each.idle)]
    for package in _PACKAGES:
        directory = f"{_SOURCE}/{package.replace('.', '/')}"
        names += [f"{package}.{file[:-3]}" for file in os.listdir(directory) if _is_module(file)]
    printed = build_pyc_archive.output(_RECORD, sorted(names))
    rows = (line.partition(" ") for line in printed.splitlines())
    return {name: file for name, _, file in rows}


def _is_module(file: str) -> bool:
    return file.endswith(".py") and file != "__init__.py"
