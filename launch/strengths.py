"""Strengths of the curvature penalty, chosen for each number of images per class.

GUARD leaves open how strong its penalty should be: what helps at one image per class
costs accuracy at fifty. Here each candidate makes everything again from training images
of which a share is held out: a teacher, its distilled sets, their students, which are
attacked on the held-out images. The best mean accuracy, over no attack and all radii,
wins for each ipc, and the config then runs with that schedule.
"""

import copy
from collections.abc import Callable

import numpy as np
from absl import logging

from ddjax import attacks, tables
from launch import arms, robustness, variants


def search(config, workdir, attacked: Callable) -> tuple:
    """The config with a strength for each ipc, and what was found.

    Args:
      config: of the experiment; `evaluate.strengths` are the candidates.
      workdir: where artifacts are; those of the search have folders of their own.
      attacked: `(config, workdir) -> rows` of attacked students; see `robustness`.

    Returns:
      (config, rows): the same config and [] where nothing is searched. A row has
      "teacher", "ipc", "weight", "clean", "robust" (pairs of a radius and an
      accuracy), "score" and "chosen".

    Raises:
      ValueError: the config scores on held-out training images itself, no arm has a
        teacher with a penalty, a strength is not above 0, or the attack cannot be.
    """
    candidates, names = config.evaluate.strengths, penalised(config)
    if not candidates:
        return config, []
    if config.data.holdout:
        raise ValueError(
            "evaluate.strengths searches on held-out training images, and so does "
            f"data.holdout = {config.data.holdout}; set one of them."
        )
    if min(candidates) <= 0:
        raise ValueError(
            f"evaluate.strengths are {tuple(candidates)}; expected numbers above 0."
        )
    if not names:
        raise ValueError(
            "evaluate.strengths are searched for teachers with a curvature penalty, "
            "and no arm has one: name one, such as sre2l+guard/noise, with "
            "config.teachers.guard."
        )
    _check(held_out(config, names, candidates[0]))
    rows = []
    for weight in candidates:
        found = attacked(held_out(config, names, weight), workdir)
        for name in names:
            rows += _scored(name, weight, found)
    return _chosen(config, names, rows), rows


def _check(held) -> None:
    """ValueError for what a search would only meet when it has trained for a while."""
    (attack,) = held.evaluate.attacks
    if attack in attacks.UNBOUNDED or attack.endswith("_l2"):
        raise ValueError(
            f"evaluate.search_attack is {attack!r}; expected one in L-inf, such as "
            "pgd20: strengths are compared by the worst case at each radius."
        )
    arms.check(held)
    robustness.check(held)


def penalised(config) -> list[str]:
    """The teachers of the config's arms that have a curvature penalty."""
    found = dict.fromkeys(
        variants.name_of(arm) for arm in (arms.ours(config), *config.evaluate.against)
    )
    return [
        name
        for name in found
        if name
        and "curvature" in config.teachers.get(name, {})
        and not config.teachers[name].get("restore")  # trained already
    ]


def held_out(config, names, weight: float):
    """The config with one strength, scored without the test set.

    Of the arms that have a teacher the first stands for all: the config's own, or else a
    method, which inverts it, before a baseline, which is only labelled by it.
    """
    changed = copy.deepcopy(config)
    section = changed.evaluate
    with changed.unlocked(), changed.ignore_type():
        changed.data.holdout = section.search_holdout
        section.against = tuple(_first_arm(config, name) for name in names)
        section.attacks = (section.search_attack,)
        section.strengths, section.learning_rates = (), ()
        section.sets, section.whole_epochs = (), 0
        for name in names:
            changed.teachers[name].curvature.weight = weight
    return changed


def _first_arm(config, name) -> str:
    known = (arms.ours(config), *config.evaluate.against)
    mine = [arm for arm in known if variants.name_of(arm) == name]
    return next((arm for arm in mine if "/" in arm), mine[0])


def _scored(name, weight, rows) -> list[dict]:
    """What a strength gives at each ipc: means over the arms with this teacher."""
    mine = [row for row in rows if variants.name_of(row["arm"]) == name]
    found = []
    for ipc in dict.fromkeys(row["ipc"] for row in mine):
        here = [r for r in mine if r["ipc"] == ipc and r["attack"] == tables.WORST]
        robust = [
            (eps, float(np.mean([r["robust"] for r in here if r["eps"] == eps])))
            for eps in dict.fromkeys(row["eps"] for row in here)
        ]
        clean = float(np.mean([row["clean"] for row in here]))
        score = float(np.mean([clean, *(share for _, share in robust)]))
        about = {"teacher": name, "ipc": ipc, "weight": weight, "clean": clean}
        found.append({**about, "robust": robust, "score": score, "chosen": False})
    return found


def _chosen(config, names, rows):
    """The config with the best strengths; marks them among the rows."""
    changed = copy.deepcopy(config)
    for name in names:
        schedule = []
        for ipc in sorted({row["ipc"] for row in rows if row["teacher"] == name}):
            here = [r for r in rows if (r["teacher"], r["ipc"]) == (name, ipc)]
            best = max(here, key=lambda row: row["score"])
            best["chosen"] = True
            schedule.append((ipc, best["weight"]))
            told = ", ".join(f"{r['weight']:g}: {100 * r['score']:.1f} %" for r in here)
            logging.info(
                "strength %g for %s at ipc %d (%s, held out)",
                best["weight"],
                name,
                ipc,
                told,
            )
        with changed.unlocked(), changed.ignore_type():
            changed.teachers[name].curvature.weight = tuple(schedule)
    return changed
