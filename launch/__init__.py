"""Commands: `python -m launch.recover` and its like."""

from launch import pages

pages.begin_anew()
