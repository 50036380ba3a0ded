"""What each stage of a config costs: its programs, compiled and not run."""

from launch import (
    attack_costs,
    generator_costs,
    image_costs,
    progress,
    student_costs,
    teacher_costs,
)
from launch.shapes import Plan, Row

__all__ = ["COLUMNS", "Plan", "Row", "limit", "seconds", "total", "work"]

COLUMNS = ("input", "squeeze", "stats", "recover", "relabel")
COLUMNS += ("evaluate", "attack", "quality")
_SHARED = "for squeeze"  # decoded while the device is at work


def work(plan: Plan) -> list[Row]:
    """All that the config does, in the order in which it does it."""
    makers = (
        teacher_costs.teacher_rows,
        teacher_costs.atom_rows,
        generator_costs.rows,
        image_costs.recover_rows,
        student_costs.relabel_rows,
        student_costs.evaluate_rows,
        attack_costs.attack_rows,
        image_costs.quality_rows,
    )
    rows = []
    with progress.bar("plan", len(makers), unit="stage") as bar:
        for make in makers:
            rows += make(plan)
            bar.update()
    return rows


def searched(rows: list[Row], rates: int) -> list[Row]:
    """The rows of a search of learning rates, which makes all but students once.

    Args:
      rows: of the config on what is not held out.
      rates: how many there are to choose from.
    """
    many = {"evaluate": rates}
    return [
        row._replace(
            what=f"search of {rates} rates: {row.what}",
            calls=row.calls * many.get(row.stage, 1),
            seconds=row.seconds * many.get(row.stage, 1),
            least=row.least * many.get(row.stage, 1),
        )
        for row in rows
        if row.stage not in ("attack", "quality")
    ]


def tried(rows: list[Row], strengths: int) -> list[Row]:
    """The rows of a search of strengths, which makes all of it for each.

    Args:
      rows: of the config with one of them, on what is not held out.
      strengths: how many there are to choose from.
    """
    return [
        row._replace(
            what=f"search of {strengths} strengths: {row.what}",
            calls=row.calls * strengths,
            seconds=row.seconds * strengths,
            least=row.least * strengths,
            disk=row.disk * strengths,
        )
        for row in rows
        if row.stage != "quality"
    ]


def seconds(rows: list[Row], stage: str) -> float:
    """Of one stage: its rows, but no less than its longest part."""
    mine = [row for row in rows if row.stage == stage]
    return max(sum(r.seconds for r in mine), max((r.least for r in mine), default=0))


def total(rows: list[Row]) -> float:
    """Seconds of all stages; squeeze's images are decoded beside its arithmetic."""
    beside = sum(r.seconds for r in rows if r.what.endswith(_SHARED))
    alone = sum(seconds(rows, stage) for stage in COLUMNS)
    return alone - min(beside, seconds(rows, "squeeze"))


def limit(rows: list[Row], machine) -> str:
    """What comes first: memory that is not there, or else the slowest stage."""
    device, host = (max(rows, key=lambda r: r.memory), max(rows, key=lambda r: r.host))
    over = (device.memory / machine.memory, host.host / machine.host_memory)
    if max(over) > 1:
        where, row = ("device", device) if over[0] >= over[1] else ("host", host)
        return f"memory of a {where} ({row.stage})"
    spent = {stage: seconds(rows, stage) for stage in COLUMNS}
    slowest = max(spent, key=spent.get)
    return f"{slowest}, {spent[slowest] / max(sum(spent.values()), 1e-9):.0%}"
