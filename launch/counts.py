"""How many teachers should label, chosen for each number of images per class.

For the search a share of the *training* images is held out, and everything is made
again from the rest, as in launch/rates.py: short students of our own arm learn from the
labels of the first teacher, of the first two, and so on, and are scored on what was
held out. The best mean wins for each ipc, and the config then runs with that schedule.
"""

import copy
from collections.abc import Callable

from absl import logging

from ddjax import metrics
from launch import ensembles, inputs, students

_SHORT = 10  # a search's students have the recipe's epochs divided by this


def search(config, workdir, train: Callable) -> tuple:
    """The config with a number of teachers for each ipc, and what was found.

    Args:
      config: of the experiment; it is searched where `relabel.auto` is set.
      workdir: where artifacts are; those of the search have folders of their own.
      train: `(config, workdir) -> records of students`, with one number for all.

    Returns:
      (config, rows): the same config and [] where nothing is searched. A row has "ipc",
      "teachers", "score" (mean accuracy on the images held out) and "chosen".

    Raises:
      ValueError: the config scores on held-out training images itself.
    """
    if not config.relabel.auto or not ensembles.asked(config):
        return config, []
    if config.data.holdout:
        raise ValueError(
            "relabel.auto searches on held-out training images, and so does "
            f"data.holdout = {config.data.holdout}; set one of them."
        )
    rows = []
    for count in range(1, len(config.relabel.teachers) + 1):
        records = train(held_out(config, count), workdir)
        for ipc in config.recover.ipc:
            found = [r["top1"] for r in records if r["ipc"] == ipc]
            score = metrics.mean_and_std(found)[0]
            rows.append({"ipc": ipc, "teachers": count, "score": score})
    best = {}
    for row in rows:  # of equals the fewest
        if row["score"] > best.get(row["ipc"], {"score": -1.0})["score"]:
            best[row["ipc"]] = row
    for row in rows:
        row["chosen"] = best[row["ipc"]] is row
        told = "; chosen" if row["chosen"] else ""
        logging.info(
            "ipc %d, %d teachers: %.1f %% (held out)%s",
            *(row["ipc"], row["teachers"], 100 * row["score"], told),
        )
    return _with(config, best), rows


def _with(config, best):
    """The config with what was chosen in the place of its schedule."""
    changed = copy.deepcopy(config)
    with changed.unlocked(), changed.ignore_type():
        chosen = sorted((ipc, row["teachers"]) for ipc, row in best.items())
        chosen[0] = (1, chosen[0][1])  # imported sets may be smaller
        changed.relabel.schedule = tuple(chosen)
        changed.relabel.auto = False
    return changed


def held_out(config, count: int):
    """The config with so many teachers, short students and one kind of labels.

    It has our arm alone (one that has the main teacher: another keeps its own, and all
    numbers are the same), and the first of the recipes and of the networks.
    """
    changed = copy.deepcopy(config)
    section, kinds = changed.evaluate, changed.evaluate.labels
    with changed.unlocked(), changed.ignore_type():
        changed.data.holdout = section.search_holdout
        changed.relabel.schedule, changed.relabel.auto = count, False
        section.labels = tuple(x for x in kinds if ensembles.split(x)[1])[:1]
        section.recipes, section.models = section.recipes[:1], section.models[:1]
        section.against, section.sets, section.whole_epochs = (), (), 0
        section.attacks, section.learning_rates, section.strengths = (), (), ()
        name = section.recipes[0]
        info = inputs.load_data(changed)[0].info
        images = info.num_classes * config.recover.ipc[0]
        whole = students.recipe(config, name, section.models[0], images, info).epochs
        recipe = changed.recipes[name.partition("+")[0]]
        recipe.epochs = max(1, whole // _SHORT)
        recipe.ema = 0.0  # after so few steps an average is still what was drawn
    return changed
