"""``python -m jaula.features.verify.observer SOCKET``."""

import sys

from jaula.features.verify.observer.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
