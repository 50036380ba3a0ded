"""Trains students on distilled sets, ours and others, and says what the sets are worth.

    python -m launch.evaluate
    python -m launch.evaluate --config.evaluate.students=3
    python -m launch.evaluate --config.evaluate.sets=path/of/an/imported/set
    python -m launch.evaluate --attacks=pgd100,autoattack

Every arm has the same ipc, recipes, networks, labels, and number of sets and students.
The score is that of the last epoch, and nothing is chosen by the test images: learning
rates and strengths, where searched, are chosen on training images held out. Makes
<workdir>/evaluate/, one record for each student, <workdir>/attack/, one for each
student, attack and radius, and <workdir>/report/.
"""

from absl import flags

from ddjax import parallel
from launch import (
    arms,
    cells,
    comparison,
    counts,
    landscapes,
    program,
    progress,
    quality,
    rates,
    report,
    robustness,
    runs,
    sources,
    strengths,
    sureness,
)

_ATTACKS = flags.DEFINE_list(
    "attacks", None, "Attack the students with these: config.evaluate.attacks."
)


def run(config, workdir) -> list[dict]:
    """The records of all students; trains those that are missing."""
    arms.check(config)
    comparison.check(config)
    robustness.check(config)
    config, tried = strengths.search(config, workdir, _attacked)
    config, counted = counts.search(config, workdir, _records)
    chosen = rates.search(config, workdir, _records)
    source = sources.finder(config, workdir)
    found = train(config, workdir, source, chosen)
    records = [row for cell in found for row in cell.records()]
    sets = _measured(config, workdir, source) if config.evaluate.quality else []
    attacked = robustness.measure(config, workdir, found)
    labels = sureness.measure(config, workdir, found)
    flatness = landscapes.measure(config, workdir, source)
    ours = source(arms.ours(config), config.recover.ipc[0]).teacher  # it is there
    if parallel.is_primary():
        made = runs.assemble(config, workdir, ours, records, sets)
        made |= {**attacked, "landscapes": flatness, "strengths": tried}
        made |= {"labels": labels} if labels else {}
        made |= {"label_counts": counted} if counted else {}
        report.write(workdir, made)
    return records


def train(config, workdir, source, chosen=None) -> list[cells.Cell]:
    """The students of a config, trained.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      source: `sources.finder(config, workdir)`.
      chosen: learning rates of `rates.search`, in the place of the recipes'.
    """
    found = cells.every(config, workdir, source, chosen or {})
    cells.train(config, workdir, found)
    return found


def _records(config, workdir) -> list[dict]:
    found = train(config, workdir, sources.finder(config, workdir))
    return [row for cell in found for row in cell.records()]


def _attacked(config, workdir) -> list[dict]:
    found = train(config, workdir, sources.finder(config, workdir))
    return robustness.measure(config, workdir, found)["attacks"]


def _measured(config, workdir, source) -> list[dict]:
    """What the images of every set are like, by the stage `quality`.

    All are looked at by the main teacher, whoever made them.
    """
    teacher, seen = source()
    sets = {
        entry.distilled.hash: entry.distilled
        for entry in comparison.entries(config, workdir, source)
        if entry.distilled.record["arm"] != comparison.WHOLE
    }
    quality.real(config, workdir, teacher, seen)
    own = parallel.share(sets.values())
    with parallel.alone(), progress.bar("quality", len(own), unit="set") as bar:
        for distilled in own:
            quality.measure(config, workdir, teacher, seen, distilled)
            bar.update()
    parallel.gather("quality")
    return [quality.record(workdir, teacher, seen, x) for x in sets.values()]


def enter(config) -> None:
    """Enters the attacks of the flag into a config."""
    if _ATTACKS.value is not None:
        config.evaluate.attacks = tuple(_ATTACKS.value)


if __name__ == "__main__":
    program.main(run, enter=enter)
