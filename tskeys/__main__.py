"""`python -m tskeys`."""

import sys

from tskeys.cli import main

sys.exit(main())
