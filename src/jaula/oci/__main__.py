"""``python -m jaula.oci``, and the script of the launcher if there is no compiled one.

The launcher starts the interpreter without ``site``, which would take a third of the time of
``state``; so this file sets the path of the packages.
"""

import sys

if not __package__:
    source = __file__.rpartition("/jaula/oci/")[0] or "."
    packages = f"/.venv/lib/python3.{sys.version_info[1]}/site-packages"
    sys.path[:0] = (source, source.removesuffix("/src") + packages)

if __name__ == "__main__":
    from jaula.oci import pyc_archive, runtime_entry

    archive = pyc_archive.install()
    runtime_entry.start(archive.load if archive is not None else None)
