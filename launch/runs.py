"""What a run leaves for tables, pictures and comparisons: one dict, one JSON file."""

import json
import pathlib

from ddjax import data
from launch import provenance

# Said once in a run's file, and in every student's own record.
SHARED = ("config", "commit", "versions", "device", "data")
_COSTS = ("seconds", "compile_seconds", "peak_bytes")


def shared(config, teacher) -> dict:
    """What the records of all students of a run have in common."""
    return {
        "config": json.loads(config.to_json_best_effort()),
        **provenance.environment(),
        "data": {
            "name": teacher.train.info.name,
            "hash": data.fingerprint(teacher.train),
            "test": data.fingerprint(teacher.test),
        },
    }


def assemble(config, workdir, teacher, students: list, sets: list) -> dict:
    """A run's file, as tables and reports read it.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      teacher: teachers.Teacher, of our arm.
      students: records of single students.
      sets: records of the stage `quality`.

    Returns:
      {"version", "name", "config", "environment", "data", "teacher", "students",
      "sets", "stages"}, plain values.
    """
    once = shared(config, teacher)
    used = {teacher.hash, *(row[k] for row in students for k in ("images", "teacher"))}
    for row in students:
        used |= set(row.get("labellers", {}).get("teachers", ()))
    return {
        "version": 2,
        "name": config.name,
        "config": once["config"],
        "environment": {k: once[k] for k in ("commit", "versions", "device")},
        "data": once["data"],
        "teacher": {"hash": teacher.hash, "accuracy": teacher.record["accuracy"]},
        "students": [
            {k: v for k, v in row.items() if k not in SHARED} for row in students
        ],
        "sets": sets,
        "stages": _stages(workdir, used),
    }


def _stages(workdir, used: set) -> list[dict]:
    """What each artifact behind the students has cost, in the order of the pipeline."""
    rows, order = [], ("squeeze", "stats", "pool")
    order += ("generator", "surrogates", "recover", "relabel", "students")
    order += ("quality", "attack", "landscape")
    used = used | _networks(workdir, used)
    for stage in order:
        for path in sorted((pathlib.Path(workdir) / stage).glob("*/manifest.json")):
            manifest = json.loads(path.read_text())
            name, _, own = path.parent.name.rpartition("-")
            behind = {own, *map(str, manifest["made_from"].values())}
            if stage == "students":  # whose costs are in their own records
                used = used | ({own} if behind & used else set())  # attacks name them
                continue
            record = manifest["record"]
            if behind & used and set(_COSTS) <= set(record):
                costs = {k: record[k] for k in _COSTS}
                rows.append({"stage": stage, "name": name, **costs})
    return rows


def _networks(workdir, used: set) -> set:
    """The networks that the sets among what is used were matched through or sampled
    from."""
    found = set()
    for path in (pathlib.Path(workdir) / "recover").glob("*/manifest.json"):
        if path.parent.name.rpartition("-")[2] in used:
            made_from = json.loads(path.read_text())["made_from"]
            found |= set(made_from.get("pool", ()))
            found |= {made_from.get(name) for name in ("generator", "surrogates")}
    return found
