"""``python -m celeriac``, and the console script ``celeriac``."""

import sys

from celeriac.cli import main

if __name__ == "__main__":
    sys.exit(main())
