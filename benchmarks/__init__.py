"""Comparisons and timings, and the records of past runs."""

from launch import pages

pages.begin_anew()  # as the commands do that are measured
