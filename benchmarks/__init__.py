"""Comparisons and timings, and the records of past runs."""

import launch as launch  # begins the process as that of the commands that are measured
