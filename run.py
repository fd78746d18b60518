"""`python run.py [PATH] [--distributed --worker-count N --test-type T --coordinator ADDR] [-- PYTEST_ARGS]`.

For scripts of the original framework: what they know under these flags, done by `mesh run`.
"""

import sys

from mesh.cli.original import main

if __name__ == "__main__":
    sys.exit(main())
