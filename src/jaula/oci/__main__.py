"""``python -m jaula.oci``, and the file that the launcher ``jaula-runtime`` runs.

Kept tiny: a script is compiled anew each time, unlike every module that it imports. The launcher
starts the interpreter without ``site``, which would take a third of the time of ``state``; so this
file sets the path of the packages. msgspec works without typing_extensions, and skipping it saves
12 ms.

The first step protects the interpreter's file from containers, since that starts the interpreter
again. Then modules are loaded from an archive, and only the used part of msgspec is loaded.
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
    cloned_binary.ensure(sys.argv[1:])
    gc.disable()  # imported objects are never garbage, so a collection would free nothing
    from jaula.oci import pyc_archive

    pyc_archive.install()
    from jaula.oci import fast_import

    sys.meta_path.insert(0, fast_import.Finder())
    from jaula.oci.main import main

    main()
