"""The createRuntime hook of a honeypot: ``python -m jaula.features.honeypot DIRECTORY``."""

import sys

from jaula.features.honeypot.supervisor import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
