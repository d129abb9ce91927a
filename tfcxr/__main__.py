"""`python -m tfcxr` is `tfcxr`."""

import sys

from tfcxr import cli

sys.exit(cli.main())
