"""Tables and scores of a run, from its records alone.

A student's record says, of a student: "arm", "ipc" (0 for the whole data), "labels",
"recipe", "model", "set", "student", "top1" in [0, 1], and the bytes of its images, its
labels and what else it needs. Where records of several runs are joined, "run" tells
them apart. Scores of different recipes or models are never put into one table.
"""

from ddjax.tables.forms import csv_table, latex_table, markdown_table
from ddjax.tables.groups import LABELS, series, split, summarise
from ddjax.tables.labels import label_counts, sureness
from ddjax.tables.results import long, quality, results, scores_table, settings
from ddjax.tables.robust import (
    KIND,
    NORMS,
    WORST,
    attack_names,
    attack_title,
    landscapes,
    radius,
    radius_order,
    robust,
    robust_long,
    robust_series,
    robustness,
    strengths,
)
from ddjax.tables.scores import RANDOM, WHOLE, difference, scores

__all__ = [
    "KIND",
    "LABELS",
    "NORMS",
    "RANDOM",
    "WHOLE",
    "WORST",
    "attack_names",
    "attack_title",
    "csv_table",
    "difference",
    "label_counts",
    "landscapes",
    "latex_table",
    "long",
    "markdown_table",
    "quality",
    "radius",
    "radius_order",
    "results",
    "robust",
    "robust_long",
    "robust_series",
    "robustness",
    "scores",
    "scores_table",
    "series",
    "settings",
    "split",
    "strengths",
    "summarise",
    "sureness",
]
