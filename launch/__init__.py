"""Commands: `python -m launch.recover` and its like."""

import os
import sys

from launch import pages, xla

if sys.argv[0] == "-m":  # Python looks for the command that it is to run
    os.environ.update(xla.environment())
    pages.begin_anew()
