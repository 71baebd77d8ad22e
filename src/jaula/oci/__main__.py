"""``python -m jaula.oci`` and the file that the launcher ``jaula-runtime`` runs.

Kept tiny: run as a script it is compiled anew each time, unlike every module that it imports. The
launcher starts the interpreter without ``site``, which would take a third of a ``state``'s time; so
the place of the packages is named here. msgspec does without typing_extensions where it is not
found, and saves its 12 ms.

The interpreter is put out of the containers' reach first of all, since that starts it anew. Then
the modules are found in an archive, and msgspec is loaded as far as it is used.
"""

import gc
import sys

if not __package__:
    source = __file__.rpartition("/jaula/oci/")[0] or "."
    packages = f"/.venv/lib/python3.{sys.version_info[1]}/site-packages"
    sys.path[:0] = (source, source.removesuffix("/src") + packages)
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]

from jaula.oci import cloned_binary

if __name__ == "__main__":
    cloned_binary.pin(sys.argv[1:])
    gc.disable()  # it would look through all that is imported, again and again, and find nothing
    from jaula.oci import pyc_archive

    pyc_archive.install()
    from jaula.oci import fast_import

    sys.meta_path.insert(0, fast_import.Finder())
    from jaula.oci.main import main

    main()
