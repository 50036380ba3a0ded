"""Attacks the students of a comparison: what is left of their accuracy.

Makes <workdir>/attack/<student>-<attack>-<radius>-<hash>/: which images the student
gets right, and which it still gets right under the attack. Each attack starts from all
images; the worst case counts an image as lost that any of them has changed.
"""

import functools

import numpy as np

from ddjax import attacks, checkpoint, parallel, tables
from launch import inputs, meter, program, progress, titles

_LOOKED_AT = 64  # images, before an attack
_IDENTITY = ("arm", "ipc", "labels", "recipe", "model", "set", "student")


def check(config) -> None:
    """Refuses attacks that cannot be made, before any time is spent.

    Raises:
      ValueError: an unknown attack, or one that needs more classes; bad radii or
        numbers of images.
    """
    section = config.evaluate
    if not section.attacks:
        return
    for name, most in (("radii", 255), ("radii_l2", float("inf"))):
        radii = section[name]
        if not radii or min(radii) <= 0 or max(radii) > most:
            raise ValueError(
                f"evaluate.{name} are {tuple(radii)}; expected numbers above 0, in "
                "1/255 of the range of pixels, such as (1, 2, 4)."
            )
    count, batch = section.attack_images, section.attack_batch
    if count < 0 or batch < 1:
        raise ValueError(
            f"evaluate.attack_images is {count} and attack_batch {batch}; expected a "
            "number of images, or 0 for all, and at least 1."
        )
    train, _ = inputs.load_data(config)
    for name, radius in asked(config):
        attacks.named(name, radius / 255, train.info.num_classes)


def asked(config) -> list[tuple[str, float]]:
    """(attack, radius in 1/255) of a config; what has no radius is there once, as 0."""
    found = []
    section = config.evaluate
    for name in section.attacks:
        radii = section.radii_l2 if name.endswith("_l2") else section.radii
        found += [
            (name, r) for r in (radii if name not in attacks.UNBOUNDED else (0.0,))
        ]
    return list(dict.fromkeys(found))  # what is named twice is attacked once


def measure(config, workdir, cells: list) -> dict:
    """Attacks all students; what was done is not done again.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      cells: cells.Cell, trained, with the students' variables kept.

    Returns:
      {"attacks", "alarms"}, as `report` reads them: a row for each student, attack and
      radius, and sentences on what looks wrong.
    """
    pairs = asked(config)
    if not pairs:
        return {}
    found = {
        (i, k): _stages(config, workdir, cell, *pair)
        for i, cell in enumerate(cells)
        for k, pair in enumerate(pairs)
    }
    missing = [
        key for key, stages in found.items() if not all(s.complete for s in stages)
    ]
    for i, _ in missing:
        _ = cells[i].complete  # which waits for what other hosts have written
    own = parallel.share(missing)
    with parallel.alone(), progress.bar("attacks", len(own), unit="attack") as bar:
        for i, k in own:
            bar.set_description(f"attacks: {found[i, k][0].folder.name[:-13]}")
            _attack(config, cells[i], found[i, k], *pairs[k])
            bar.update()
    parallel.gather("attacks")
    rows = []
    for i, cell in enumerate(cells):
        rows += _rows(cell, [found[i, k] for k in range(len(pairs))], pairs)
    return {"attacks": rows, "alarms": alarms(rows)}


def spread(test, count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many of the test images, spread evenly over the classes; 0 for all."""
    count = min(count or len(test.labels), len(test.labels))
    rows = np.linspace(0, len(test.labels) - 1, count).round().astype(int)
    return test.images[rows], np.asarray(test.labels)[rows]


def _stages(config, workdir, cell, name, radius) -> list[checkpoint.Stage]:
    """Where the masks of each student of a cell are kept."""
    found = []
    for weights in cell.weights:
        made_from = {
            "version": 1,
            "student": weights.hash,
            "attack": name,
            "radius": radius,
            "images": config.evaluate.attack_images,
            "seed": config.seed,
        }
        if name in attacks.COUPLED:
            made_from["batch"] = config.evaluate.attack_batch
        title = f"{weights.folder.name[:-13]}-{name}-{radius:g}"
        found.append(checkpoint.Stage(workdir, "attack", title, made_from))
    return found


def _attack(config, cell, stages, name, radius) -> None:
    """One attack on the students of a cell, side by side."""
    info = cell.teacher.train.info
    suite = attacks.named(name, radius / 255, info.num_classes)
    images, labels = spread(cell.teacher.test, config.evaluate.attack_images)
    students = cell.variables()
    few, _ = spread(cell.teacher.test, _LOOKED_AT)
    doubts = [_doubts(cell, student, few, suite) for student in students]
    with meter.watch() as cost:
        outcomes = attacks.run(
            suite,
            cell.network.apply,
            students,
            images,
            labels,
            program.key(config, "attack"),
            batch_size=config.evaluate.attack_batch,
            remember=functools.partial(_remembered, stages),
        )
    cost = cost.record()
    for field in ("seconds", "compile_seconds"):
        cost[field] /= len(students)
    for stage, outcome, words in zip(stages, outcomes, doubts):
        words = words + attacks.square_alarm(outcome.stages, len(labels))
        record = {"stages": list(outcome.stages), "doubts": words, **cost}
        stage.finish({"clean": outcome.clean, "robust": outcome.robust}, record)


def _doubts(cell, student, images, suite) -> list[str]:
    """What `attacks.check` tells; what it refuses, too.

    That is a student that has diverged, which must not keep the others from a report.
    """
    classes = cell.teacher.train.info.num_classes
    try:
        return attacks.check(cell.network.apply, student, images, classes, suite)
    except ValueError as error:
        return [str(error)]


def _remembered(stages, index, round, make) -> list[attacks.Found]:
    """What a round of a suite found; those of an interrupted attack are read."""
    name = f"attack{index}-round{round}"
    parts = [stage.load_part(name) for stage in stages]
    if None not in parts:
        return [attacks.Found(**part) for part in parts]
    found = make()
    for stage, part in zip(stages, found):
        stage.save_part(name, part._asdict())
    return found


def _rows(cell, stages, pairs) -> list[dict]:
    """What is left of each student, attack by attack and in the worst case."""
    rows = []
    for which, student in enumerate(cell.records()):
        masks: dict = {}
        for (name, radius), places in zip(pairs, stages):
            record, found = places[which].record(), places[which].load()
            row = {
                **{field: student[field] for field in _IDENTITY},
                "attack": name,
                "eps": radius or None,
                "norm": "l2" if name.endswith("_l2") or not radius else "linf",
                "clean": float(found["clean"].mean()),
                "robust": float(found["robust"].mean()),
                "num_images": len(found["clean"]),
                "doubts": record.get("doubts", []),
            }
            rows.append(row)
            if radius and row["norm"] == "linf":
                masks.setdefault(radius, []).append((row, found["robust"]))
        for radius, known in masks.items():
            left = functools.reduce(np.logical_and, (mask for _, mask in known))
            worst = {"attack": tables.WORST, "robust": float(left.mean()), "doubts": []}
            rows.append({**known[0][0], **worst})
    return rows


def alarms(rows: list[dict]) -> list[str]:
    """What looks wrong, in sentences: of single attacks, and of the means over students.

    Args:
      rows: of attacked students.
    """
    by = ("arm", "ipc", "labels", "recipe", "model")
    groups: dict = {}
    for row in rows:
        if row["attack"] != tables.WORST:
            groups.setdefault(tuple(row[field] for field in by), []).append(row)
    found = []
    for (arm, ipc, labels, recipe, model), mine in groups.items():
        where = f"{titles.title(arm)}, IPC {ipc}, {labels} labels, {recipe}, {model}"
        for row in mine:
            radius = f" at {row['eps']:g}/255" if row["eps"] else ""
            about = f"{where}, set {row['set']}, {row['attack']}{radius}"
            found += [f"{about}: {told}" for told in row["doubts"]]
        clean = float(np.mean([row["clean"] for row in mine]))
        results = _means([row for row in mine if row["eps"]])
        found += [f"{where}: {told}" for told in attacks.alarms(clean, results)]
    return found


def _means(rows) -> dict[str, dict[float, float]]:
    """Accuracies by attack and radius in [0, 1], means over the students."""
    results: dict = {}
    for row in rows:
        cell = results.setdefault(row["attack"], {})
        cell.setdefault(row["eps"] / 255, []).append(row["robust"])
    return {
        name: {eps: float(np.mean(x)) for eps, x in cell.items()}
        for name, cell in results.items()
    }
