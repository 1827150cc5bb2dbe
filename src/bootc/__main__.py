"""``python -m bootc``."""

import sys

from bootc.cli.main import main

sys.exit(main())
