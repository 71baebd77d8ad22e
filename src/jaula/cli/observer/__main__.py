"""``python -m jaula.cli.observer SOCKET``."""

import sys

from jaula.cli.observer.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
