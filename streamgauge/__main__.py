"""`python -m streamgauge` is the command `streamgauge`."""

import sys

from streamgauge.cli import main

sys.exit(main())
