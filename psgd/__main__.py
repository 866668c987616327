"""``python -m psgd``: the command ``psgd`` where it is not on the PATH."""

import sys

from psgd.cli.entry import main

sys.exit(main())
