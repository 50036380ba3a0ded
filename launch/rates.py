"""Learning rates of students, chosen where no test image is seen.

For the search a share of the *training* images is held out, and everything is made
again from the rest: teacher, statistics, distilled sets, students. Every arm searches
the same rates and is scored on what was held out; the best mean wins. Then the config
runs as it is, each arm with its own rate.
"""

import copy
from collections.abc import Callable

from absl import logging

from ddjax import metrics

KEY = ("arm", "ipc", "labels", "recipe", "model")


def search(config, workdir, train: Callable) -> dict[tuple, float]:
    """The rate of every arm, ipc, kind of labels, recipe and model.

    Args:
      config: of the experiment; `evaluate.learning_rates` are the candidates.
      workdir: where artifacts are; those of the search have folders of their own.
      train: `(config, workdir) -> records of students`, with one rate for all.

    Returns:
      By the fields of `KEY`; empty where nothing is searched.

    Raises:
      ValueError: the config scores on held-out training images itself.
    """
    section = config.evaluate
    if not section.learning_rates:
        return {}
    if config.data.holdout:
        raise ValueError(
            "evaluate.learning_rates searches on held-out training images, and so does "
            f"data.holdout = {config.data.holdout}; set one of them."
        )
    scores: dict[tuple, dict[float, float]] = {}
    for rate in section.learning_rates:
        records = train(held_out(config, rate), workdir)
        for key in dict.fromkeys(tuple(row[f] for f in KEY) for row in records):
            found = [r["top1"] for r in records if tuple(r[f] for f in KEY) == key]
            scores.setdefault(key, {})[rate] = metrics.mean_and_std(found)[0]
    chosen = {key: max(found, key=found.get) for key, found in scores.items()}
    for key, rate in chosen.items():
        told = ", ".join(f"{r:g}: {100 * s:.1f} %" for r, s in scores[key].items())
        logging.info(
            "rate %g for %s (%s, held out)", rate, " ".join(map(str, key)), told
        )
    return chosen


def held_out(config, rate: float):
    """The config with one rate for all recipes, scored on training images held out."""
    changed = copy.deepcopy(config)
    with changed.unlocked():
        changed.data.holdout = changed.evaluate.search_holdout
        changed.evaluate.learning_rates = ()
        changed.evaluate.attacks = ()  # for which students would be kept
        for recipe in changed.evaluate.recipes:
            changed.recipes[recipe.partition("+")[0]].learning_rate = rate
    return changed
