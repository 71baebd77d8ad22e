"""``python -m jaula``, and the file that the launcher runs.

Kept tiny: as a script it is compiled at every start, unlike the modules that it imports.
"""

import sys

if not __package__:
    sys.path.insert(0, __file__.rpartition("/jaula/")[0] or ".")

from jaula.cli.main import run_and_exit

if __name__ == "__main__":
    run_and_exit()
