"""The createRuntime hook of a honeypot: ``python -m jaula.honeypot DIRECTORY``."""

import sys

from jaula.honeypot.supervisor import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
