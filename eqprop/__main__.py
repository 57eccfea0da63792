"""``python -m eqprop`` is the command line."""

import sys

from eqprop.cli import main

sys.exit(main())
