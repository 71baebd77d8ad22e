"""Each file that is replaced by a rename is written by one function, or its loss is harmless."""

from __future__ import annotations

import ast
from pathlib import Path

import jaula

SOURCE = Path(jaula.__file__).parent
OTHERS = {
    # In a directory that no power failure survives.
    "engine/oci_runtimes.py": "the run directory",
    "oci/console.py": "the run directory",
    "oci/runtime_container.py": "the run directory",
    "runtime/external/identity.py": "the run directory",
    "runtime/shim/shim.py": "the run directory",
    "state/claims.py": "the run directory",
    # Written again when it cannot be read.
    "engine/containers/start_bundle.py": "each start writes it; inspect and check know it",
    "oci/build_pyc_archive.py": "a cache of bytecode",
    "security/seccomp/seccomp_filter.py": "a cache of filters, with their digest",
    # Output of a command, which has no state.
    "features/report/report_cli.py": "output",
    "features/kubernetes/cli/cri_files.py": "output",
    "cli/images/image_archive.py": "output",
    "images/bootstrap/__init__.py": "output",
    # Their content is on the disk already: by syncfs, fsync or the writer of another file.
    "features/build/builder/local_directories.py": "a cache; the owner is written durably",
    "features/build/builder/mounts/cache_dirs.py": "a cache of steps; the owner is written durably",
    "engine/containers/launchers.py": "fsync of each file",
    "features/lazy/lazy_server.py": "whole blobs are verified before they are used",
    "images/store/blobs.py": "one syncfs before an image gets its name",
    "images/store/image_catalog.py": "fdatasync, and fsync of the directory",
    "features/trust/signature_store.py": "fsync of both, unless durability is relaxed",
    "features/kubernetes/cni/cni_cache.py": "fsync of both",
    "features/checkpoint/checkpoint_store.py": "fsync of both, unless durability is relaxed",
    "storage/drivers/full_copy.py": "syncfs",
    "storage/drivers/overlay.py": "directories",
    "storage/layers/layer_store.py": "one syncfs before an image gets its name",
    "storage/volume_directories.py": "fsync of both, unless durability is relaxed",
    # Nothing is written.
    "features/honeypot/supervisor.py": "an index of files, which are read without it",
    "logs/rotation.py": "logs are written as the kernel decides",
    "storage/trees.py": "trees that are removed",
    # The function itself.
    "kernel/syncfs.py": "write_durable",
}


def renames(path: Path) -> bool:
    """Return whether a module calls rename(2) by ``os`` or ``posix``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("rename", "replace")
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in ("os", "posix")
        ):
            return True
    return False


def test_every_other_rename_has_a_reason() -> None:
    actual = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if renames(path)}
    assert actual - OTHERS.keys() == set(), "use jaula.kernel.syncfs.write_durable"
    paths = {"state/claims.py", "engine/containers/launchers.py"}  # by a method of Path
    assert OTHERS.keys() - actual - paths == set(), "the table has a module that renames nothing"
