"""What the images cost: those recovered, RDED's, and a look at all of them."""

import itertools
import time

import jax
import numpy as np

from ddjax import ot, parallel, patches, quality, recover
from ddjax.matching.frame import Frame, frame_of
from ddjax.types import Barycenter, ClassStats, Context, Moments, Real
from launch import arms, atoms, generator_costs, sections, shapes, teacher_costs
from launch.shapes import FLOAT, Row

_BLOCK = 1000  # of quality.nearest
_SCORED = 20  # real images whose crops patches.select scores together
_CANDIDATES = 300  # of a class, at least


def recover_rows(plan) -> list[Row]:
    """Chunks, one on each device, in waves; and RDED's crops, class by class."""
    config, info, rows = plan.config, plan.outline.info, []
    for ipc, arm in itertools.product(config.recover.ipc, teacher_costs.methods(plan)):
        section = sections.of(config, arm, ipc)
        cuts = recover.chunks(
            info.num_classes, ipc, config.recover.batch_size, section["layout"]
        )
        waves = recover.waves(cuts, 1, plan.machine.devices)
        cost = shapes.once(  # as many images, as much work
            plan,
            ("recover", arm.partition("/")[0], len(cuts[0])),
            lambda arm=arm, rows=cuts[0], ipc=ipc: chunk_cost(plan, arm, rows, ipc),
        )
        method = arms.build(config, arm, plan.teacher, info, ipc)
        length = method.length(section["num_steps"], ipc)
        steps = len(waves) * length * config.recover.sets
        made = info.num_classes * ipc * shapes.image_bytes(plan)
        what = f"{arm}, ipc {ipc}, {len(cuts[0])} images a chunk"
        rows.append(
            shapes.row(
                plan,
                "recover",
                f"{what}, {len(cuts):,} chunk{'s' if len(cuts) > 1 else ''}",
                steps,
                cost,
                made * config.recover.sets,
                _held(plan) + 2 * made,  # the waves' images, and all put together
            )
        )
    if "rded" in shapes.ours_and_others(plan):
        for ipc in config.recover.ipc:
            rows += _rded(plan, ipc)
    return rows


def _held(plan) -> int:
    """Bytes of features and statistics, which a host holds while images are made."""
    features = FLOAT * int(plan.outline.counts.sum()) * plan.features
    return features + teacher_costs.moment_bytes(plan)


def chunk_cost(plan, arm: str, rows, ipc: int) -> parallel.Cost:
    """Of a step of one chunk.

    Args:
      plan: of the config.
      arm: see `launch.arms`.
      rows: [n], the first ones of the distilled set.
      ipc: images per class.
    """
    info, every = plan.outline.info, int(rows.max()) // ipc + 1
    method = arms.build(plan.config, arm, plan.teacher, info, ipc)
    read = arms.reported(plan.teacher, info)["moments"]
    layers = tuple(
        Moments(*(np.zeros((every, m.mean.shape[-1]), np.float32),) * 2) for m in read
    )
    found = Barycenter(
        np.zeros((every, ipc, atoms.width(plan.config.stats, plan.features)), "f4"),
        np.zeros((every, ipc), np.float32),
        (),
        (),
    )
    seen = ClassStats(layers, np.zeros(every))
    goals = recover.targets(
        rows,
        np.zeros((len(rows), *info.shape), np.float32),
        ipc,
        barycenter=found if "barycenter" in method.requires else None,
        class_stats=seen if "class_stats" in method.requires else None,
        **_drawn(plan, method, rows, ipc),
    )
    stacked = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), goals
    )
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    context = Context(
        teacher=plan.variables if "teacher" in method.requires else (),
        real=_real(plan) if method.real_batch else (),
        pool=teacher_costs.pool_shapes(plan) if "pool" in method.requires else (),
        frame=_frame(plan) if "frame" in method.requires else (),
        **generator_costs.sampled_from(plan, method.requires),
    )
    state = jax.eval_shape(
        lambda c, t, k: recover.initial_state(method, c, t, k), context, stacked, keys
    )
    step, spread = recover.make_step(method), parallel.over_devices(1)
    return shapes.step_cost(step, state, context, (keys, stacked), spread)


def _drawn(plan, method, rows, ipc) -> dict:
    """The real images and the keys that some methods are given once."""
    info = plan.outline.info
    drawn = min(method.real_set, int(plan.outline.counts.min()))
    if not drawn:
        return {}
    classes = len(np.unique(rows // ipc))
    return {
        "real": np.zeros((classes, drawn, *info.shape), np.uint8),
        "keys": np.zeros((len(rows), 2), np.uint32),
    }


def _frame(plan) -> Frame:
    """How features are placed in a product space, of numbers that are 0."""
    one = np.zeros((1, plan.features), np.float32)
    return frame_of(atoms.space(plan.config.stats), one)


def _real(plan) -> Real:
    """The training images, as they lie on a device."""
    info, counts = plan.outline.info, plan.outline.counts
    rows = shapes.integers(info.num_classes, int(counts.max()))
    return Real(shapes.images(int(counts.sum()), info), rows)


def _rded(plan, ipc) -> list[Row]:
    """Crops of real images, scored by the teacher on one device."""
    info, sets = plan.outline.info, plan.config.recover.sets
    factor = patches.default_factor(info)
    chosen = np.minimum(plan.outline.counts, max(_CANDIDATES, ipc * factor**2))

    def compiled():
        program = patches.make_scorer(plan.teacher.apply, info, factor)
        fed = shapes.images(_SCORED, info), shapes.integers(_SCORED), shapes.integers()
        return parallel.cost(program, shapes.key(), plan.variables, *fed)

    cost = shapes.once(plan, "rded", compiled)
    calls = int(np.ceil(chosen / _SCORED).sum()) * sets
    made = info.num_classes * ipc * shapes.image_bytes(plan)
    what, count = f"rded, ipc {ipc}, on one device", int(chosen.sum()) * sets
    host = _held(plan) + 2 * FLOAT * made  # in [0, 1], before they are rounded
    return [
        shapes.row(plan, "recover", what, calls, cost, made * sets, host),
        *shapes.decoded(plan, f"for rded, ipc {ipc}", count, hosts=1),
    ]


def quality_rows(plan) -> list[Row]:
    """Every set against all real images, on one device; hosts share the sets."""
    if not plan.config.evaluate.quality:
        return []
    total, rows = int(plan.outline.counts.sum()), []
    classes = plan.outline.info.num_classes
    kinds = [("real images", 1, min(_BLOCK, total), None)]
    for ipc in plan.config.recover.ipc:
        for parts, mine in shapes.by_parts(plan, ipc).items():
            many, each = len(mine) * plan.config.recover.sets, ipc * parts
            kinds.append((shapes.told(ipc, parts), many, each * classes, each))
    for what, number, count, ipc in kinds:
        rows += _looked_at(plan, what, number, count, ipc)
    return rows


def _looked_at(plan, what, number, count, ipc) -> list[Row]:
    """So many sets of so many images: neighbours, W2 and PNG."""
    total, info = int(plan.outline.counts.sum()), plan.outline.info
    cost = shapes.once(plan, "nearest", lambda: _nearest_cost(plan))
    calls = number * -(-total // _BLOCK) * -(-count // _BLOCK)
    host = _held(plan) + count * (shapes.image_bytes(plan) + FLOAT * plan.features)
    told = f"{number} sets, {what}" if ipc else what
    row = shapes.row(plan, "quality", f"{told}, on one device", calls, cost, 0, host)
    each, hosts = row.seconds / number, min(number, plan.machine.hosts)
    if ipc:
        one = shapes.once(plan, ("w2", ipc), lambda: _transport_seconds(plan, ipc))
        each += info.num_classes * one
    row = row._replace(seconds=number * each / hosts, least=each)
    # The neighbours' pass; of real images also that for the digests, and the test's.
    read = number * total if ipc else 2 * total + plan.outline.test
    return [row, *shapes.decoded(plan, f"for quality, {what}", read, hosts)]


def _nearest_cost(plan) -> parallel.Cost:
    """Of the distances of a block of images to another, in pixels and features."""
    program, found = jax.jit(ot.squared_euclidean), []
    for width in (shapes.image_bytes(plan), plan.features):
        block = shapes.floats(_BLOCK, width)
        found.append(parallel.cost(program, block, block))
    flops = sum(cost.flops for cost in found)
    return parallel.Cost(flops, max(cost.memory for cost in found))


def _transport_seconds(plan, ipc) -> float:
    """Of one class: its W2, and its images as PNG; of random numbers, here."""
    random, largest = np.random.default_rng(0), int(plan.outline.counts.max())
    x = random.normal(size=(largest + ipc, plan.features)).astype(np.float32)
    labels = np.zeros(largest, int)
    image = random.integers(0, 256, (1, *plan.outline.info.shape), dtype=np.uint8)
    one, found = np.ones(ipc), []
    for _ in range(2):  # the first compiles
        began = time.monotonic()
        quality.wasserstein(x[:largest], labels, x[largest:], labels[:ipc], one)
        middle = time.monotonic()
        quality.png_bytes(image)
        found.append(middle - began + ipc * (time.monotonic() - middle))
    return min(found)
