"""Comparisons and timings, and the records of past runs."""
