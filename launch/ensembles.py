"""Who labels: the teacher of an arm, or with "+lia" several that label as one.

"stored" labels are those of one teacher; "stored+lia" those of as many of
`config.relabel.teachers` as its schedule has for the images per class. All arms of a
comparison get the same; one with a teacher of its own, "random+guard", keeps that alone:
what such an arm is about is what it learns from this teacher.
"""

import json
import math
from collections.abc import Callable
from typing import NamedTuple

from ddjax import ensemble
from launch import sections, squeeze, teachers, variants

LIA = "+lia"  # behind a kind of labels


class Labeller(NamedTuple):
    """One teacher or several, as `relabel` and `student` take them."""

    teachers: tuple[teachers.Teacher, ...]
    average: str = "logits"
    standardise: bool = False
    temperature: float = 1.0  # that "probs" are averaged at

    @property
    def apply(self) -> Callable:
        if len(self.teachers) == 1:
            return self.teachers[0].network.apply
        functions = tuple(teacher.network.apply for teacher in self.teachers)
        return ensemble.create(
            functions, self.average, self.temperature, self.standardise
        )

    @property
    def variables(self):
        if len(self.teachers) == 1:
            return self.teachers[0].variables
        return tuple(teacher.variables for teacher in self.teachers)

    @property
    def identity(self) -> dict:
        """What labels are made from: of one teacher, what they always were."""
        if len(self.teachers) == 1:
            return {"teacher": self.teachers[0].hash}
        return {
            "teachers": [teacher.hash for teacher in self.teachers],
            "average": self.average,
            "standardise": self.standardise,
            **({"temperature": self.temperature} if self.average == "probs" else {}),
        }


def split(labels: str) -> tuple[str, bool]:
    """The kind of labels, and whether several teachers give them.

    >>> split("stored+lia"), split("hard")
    (('stored', True), ('hard', False))
    """
    return labels.removesuffix(LIA), labels.endswith(LIA)


def asked(config) -> bool:
    """Whether a config compares labels of several teachers."""
    return any(split(labels)[1] for labels in config.evaluate.labels)


def names(config, ipc: float) -> tuple[str, ...]:
    """The teachers that label sets of so many images per class; "" is the main one.

    Args:
      config: of the experiment.
      ipc: images per class; 0 is the whole data, for which the schedule's last counts.

    Raises:
      ValueError: the schedule has no number for it.
    """
    known, schedule = tuple(config.relabel.teachers), config.relabel.schedule
    count = sections.at(schedule, ipc or math.inf, "relabel.schedule")
    if not isinstance(count, int) or count < 1:
        raise ValueError(
            f"relabel.schedule is {schedule}; expected a number of teachers of at least "
            "1, or pairs (ipc, number) such as ((1, 1), (10, 2))."
        )
    return known[:count]


def config_of(config, name: str, ipc: int):
    """The config whose main teacher is one of those that label, by its name."""
    return variants.config_of(config, f"labels+{name}", ipc) if name else config


def others(config) -> list:
    """The configs of all teachers but the main one that label; each is there once."""
    found = {}
    for ipc in config.recover.ipc:
        for name in filter(None, names(config, ipc)):
            theirs = config_of(config, name, ipc)
            found.setdefault(theirs.squeeze.to_json_best_effort(), theirs)
    return list(found.values())


def check(config, sizes) -> None:
    """ValueError for teachers that are not there, or a schedule that is none.

    Args:
      config: of the experiment.
      sizes: images per class of the sets that will be labelled.
    """
    section = config.relabel
    if section.average not in ensemble.AVERAGES:
        raise ValueError(
            f"unknown relabel.average {section.average!r}; known: "
            f"{', '.join(ensemble.AVERAGES)}."
        )
    chosen, known = tuple(section.teachers), ("", *config.teachers)
    if not chosen or len(set(chosen)) < len(chosen) or set(chosen) - set(known):
        raise ValueError(
            f"relabel.teachers are {chosen}; expected names of config.teachers, each "
            'once, with "" for the main teacher; known: '
            f"{', '.join(map(repr, known))}."
        )
    for ipc in sizes:
        for name in names(config, ipc):
            config_of(config, name, ipc)


def finder(config, workdir, source: Callable) -> Callable[..., Labeller]:
    """`(labels, ipc, teacher, temperature) -> Labeller`; each teacher is made once.

    The labels are those asked for, the teacher that of the set; a set whose teacher is
    not the main one has an arm of its own.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      source: `sources.finder(config, workdir)`, which has the main teacher.
    """
    known, section = {}, config.relabel

    def teacher_of(name, ipc):
        if not name:
            return source().teacher
        theirs = config_of(config, name, ipc)
        about = json.dumps(theirs.squeeze.to_dict(), sort_keys=True)
        if about not in known:
            known[about] = squeeze.run(theirs, workdir)
        return known[about]

    def find(labels: str, ipc: int, teacher, temperature: float) -> Labeller:
        if not split(labels)[1] or teacher.hash != source().teacher.hash:
            return Labeller((teacher,))
        chosen = tuple(teacher_of(name, ipc) for name in names(config, ipc))
        return Labeller(chosen, section.average, section.standardise, temperature)

    return find
