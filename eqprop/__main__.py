"""``python -m eqprop`` is the command line."""

import sys

from eqprop.cli.main import main

sys.exit(main())
