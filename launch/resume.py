"""What an interrupted recovery has left, and how it goes on, on any devices.

Chunks are cut by the config alone, so a finished one is good for any number of devices
and hosts. A state is of the chunks that run side by side, and of those that wait with
steps already made; it is taken apart, and each chunk goes on from where it was, beside
others that are as far.
"""

import itertools
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from ddjax import checkpoint, parallel, recover


class Plan(NamedTuple):
    """What this host has to do."""

    made: dict  # finished chunks of its own, by their numbers
    waves: list[recover.Wave]  # of the others
    start: int  # steps made, as the bar counts them
    total: int


def whose() -> str:
    """The name of this host's states."""
    return f"host{parallel.host_index()}"


def state(wave: recover.Wave, step: int, chunks, waiting: list[recover.Wave]) -> dict:
    """What is saved of a wave after so many of its steps, and of waves that wait.

    Args:
      wave: the one that runs.
      step: steps made of it.
      chunks: its state.
      waiting: later ones; those not begun are left out.
    """
    waves = [(wave, step, chunks), *((w, w.done, w.state) for w in waiting if w.done)]
    return {
        "hosts": np.array(parallel.host_count()),
        "waves": [
            {"rows": w.rows[:, 0], "steps": np.array(steps), "state": state}
            for w, steps, state in waves
        ],
    }


def plan(job, stage: checkpoint.Stage, names: list[str]) -> Plan:
    """What is finished and what is left of this host's chunks.

    Args:
      job: jobs.Job.
      stage: of the recovery.
      names: of the parts of all chunks.
    """
    own = parallel.share(range(len(job.cuts)))
    made = {i: part for i in own if (part := stage.load_part(names[i])) is not None}
    cuts = [job.cuts[i] for i in own]
    whole = recover.waves(cuts, job.num_steps, parallel.device_count())
    total = len(whole) * job.num_steps
    finished = {job.cuts[i][0] for i in made}
    begun, newest = _begun(job, stage)
    parts = [part for wave in whole for part in _left(wave, finished, begun)]
    if not parts:
        return Plan(made, [], total, total)
    # Orbax saves no step below one that it has; and the bar does not go back.
    start = max(parts[0].offset + parts[0].done, newest)
    first = start - parts[0].done
    waves = [
        part._replace(offset=first + i * job.num_steps) for i, part in enumerate(parts)
    ]
    if start:
        logging.info("recover goes on from step %d.", start)
    return Plan(made, waves, start, waves[-1].offset + job.num_steps)


def _left(wave, finished: set, begun: dict) -> list[recover.Wave]:
    """The unfinished chunks of a wave: as many waves as they are differently far."""
    groups: dict[int, list] = {}
    for rows in wave.rows:
        if rows[0] not in finished:
            steps, _ = begun.get(rows[0], (0, None))
            groups.setdefault(steps, []).append(rows)
    found = []
    for steps, chunks in groups.items():
        states = [begun[rows[0]][1] for rows in chunks if steps]
        stacked = jax.tree.map(lambda *x: np.stack(x), *states) if steps else None
        found.append(recover.Wave(np.stack(chunks), wave.offset, steps, stacked))
    return found


def _begun(job, stage) -> tuple[dict, int]:
    """(steps, state) of chunks by their first row, and this host's newest step.

    The states of other hosts are looked at only if there were not as many hosts.
    """
    newest, mine = stage.restore(name=whose()) or (0, {})
    found, about = _apart(job, mine), f"states of {stage.folder.name}"
    told = parallel.gather(about, int(mine["hosts"]) if found else None)
    if not found or any(count not in (None, parallel.host_count()) for count in told):
        for name in stage.states():
            if name in ("", whose()):  # those of earlier versions have no name
                continue
            _, others = stage.restore(name=name) or (0, {})
            for row, one in _apart(job, others).items():
                found[row] = max(found.get(row, one), one, key=lambda x: x[0])
    parallel.gather(about)  # the first that saves drops what another may need
    return found, newest


def _apart(job, saved: dict) -> dict:
    """The states of single chunks in what was saved."""
    likes, chunks, found = {}, {rows[0]: rows for rows in job.cuts}, {}
    for number in itertools.count():
        wave = f"waves/{number}/"
        if f"{wave}rows" not in saved:
            return found
        begin = f"{wave}state/"
        arrays = {
            k.removeprefix(begin): x for k, x in saved.items() if k.startswith(begin)
        }
        for i, row in enumerate(saved[f"{wave}rows"]):
            one, size = {k: x[i] for k, x in arrays.items()}, len(chunks[row])
            if size not in likes:
                likes[size] = _like(job, chunks[row])
            state = checkpoint.unflatten(one, likes[size])
            found[row] = int(saved[f"{wave}steps"]), state


def _like(job, rows):
    """The shapes of the state of a chunk."""
    return jax.eval_shape(job.method.init, job.key, job.context, job.goals(rows))
