"""Memory and operations of a step against its size, from the compiler alone.

    python -m benchmarks.scale

Compiles, and does not run, the step of WMDD's recovery against the images of a chunk,
their size and the number of classes, and the step of a teacher's training against its
batch, all with ResNet-18; fits closed forms to what the compiler tells, and prints them
with their largest error. On a CPU a step of recovery takes more memory an image from 64
images on, where the compiler chooses another form: each side has a fit of its own. Record: benchmarks/results/scale/<backend>.json; the README's
tables are made from it.
"""

import json
import pathlib

import jax
import numpy as np

from configs import wmdd_imagenet1k
from ddjax import parallel, tables
from ddjax.types import DataInfo
from launch import image_costs, inputs, pod, teacher_costs
from launch.shapes import Plan

RESULTS = pathlib.Path(__file__).parent / "results" / "scale"
STEMS = {"7x7": (64, 128, 224), "3x3": (32, 64)}  # the sizes that each is used at
IMAGES, IPC = (10, 30, 60, 70, 100, 150), 10
CLASSES = (10, 100, 10_450)
IPCS = (1, 50)
BATCHES = (4, 32, 128)
EDGE = 64  # images: from here on the compiler's other form, on a CPU


def planned(size: int, stem: str, classes: int = 1_000) -> Plan:
    """The plan of WMDD on streamed images of this size."""
    config = wmdd_imagenet1k.get_config()
    config.squeeze.model.stem = stem
    names = tuple(map(str, range(classes)))
    info = DataInfo("any", names, (size, size, 3), (0.5,) * 3, (0.25,) * 3)
    outline = inputs.Outline(info, np.full(classes, 1300), 50 * classes, True, "")
    teacher = inputs.build_network(config.squeeze.model, info)
    variables = jax.eval_shape(teacher.init, jax.random.key(0))
    machine = pod.here(1.0)
    return Plan(config, outline, teacher, {}, variables, 512, machine, 1.0, {})


def recover(size, stem, images, *, classes=1_000, ipc=IPC) -> dict:
    """The record of a step of a chunk."""
    plan = planned(size, stem, classes)
    cost = image_costs.chunk_cost(plan, "wmdd/real", np.arange(images), ipc)
    return _record("recover", size, stem, images, classes, ipc, cost)


def squeeze(size, stem, images) -> dict:
    """The record of a step of training on so many images of the batch."""
    plan = planned(size, stem)
    cost = teacher_costs.step_cost(plan, images)
    return _record("squeeze", size, stem, images, 1_000, 0, cost)


def _record(stage, size, stem, images, classes, ipc, cost):
    fields = {"stage": stage, "size": size, "stem": stem, "images": images}
    fields |= {"classes": classes, "ipc": ipc, "bytes": cost.memory}
    return {**fields, "flops": cost.flops}


def fitted(records: list[dict], field: str) -> dict:
    """The least squares, of relative errors, of a closed form of n images of side s.

        bytes = fixed + pixel * n * s^2,      flops = pixel * n * s^2 + side * n * s

    (The compiler counts no products with the zeros around an image: the longer its
    sides, the more of them.)

    Args:
      records: of one stage and stem.
      field: "bytes" or "flops".

    Returns:
      The two numbers, and the largest relative error of any record.
    """
    y = np.array([r[field] for r in records], float)
    n, s = (np.array([r[key] for r in records], float) for key in ("images", "size"))
    known = {"fixed": np.ones_like(y), "pixel": n * s**2, "side": n * s}
    names = {"bytes": ("fixed", "pixel"), "flops": ("pixel", "side")}[field]
    terms = np.stack([known[name] for name in names], 1)
    found = np.linalg.lstsq(terms / y[:, None], np.ones_like(y))[0]
    error = float(np.abs(terms @ found / y - 1).max())
    return {**dict(zip(names, found.tolist())), "error": error}


def fits(records: list[dict]) -> list[dict]:
    """Closed forms of every stage and stem, at 1,000 classes and 10 images each."""
    sides = {"recover": ((1, EDGE - 1), (EDGE, max(IMAGES)))}
    sides["squeeze"] = ((1, max(BATCHES)),)
    found = []
    for stage, stem in (("recover", "7x7"), ("recover", "3x3"), ("squeeze", "7x7")):
        mine = [r for r in records if (r["stage"], r["stem"]) == (stage, stem)]
        mine = [r for r in mine if r["classes"] == 1_000 and r["ipc"] in (0, IPC)]
        for least, most in sides[stage]:
            part = [r for r in mine if least <= r["images"] <= most]
            name = {"stage": stage, "stem": stem, "images": [least, most]}
            found += [{**name, "of": f, **fitted(part, f)} for f in ("bytes", "flops")]
    return found


def table(record: dict, stage: str) -> str:
    """What the README shows of a stage, in Markdown: memory, and GFLOP, of a step."""
    mine = [r for r in record["records"] if r["stage"] == stage]
    mine = [r for r in mine if r["classes"] == 1_000 and r["ipc"] in (0, IPC)]
    counts = sorted({r["images"] for r in mine})
    header = ["ResNet-18", "pixels", *(f"{n} images" for n in counts)]
    cells = {}
    for r in mine:
        told = f"{r['bytes'] / 1e9:.2f} GB, {r['flops'] / 1e9:,.0f}"
        cells.setdefault((r["stem"], r["size"]), {})[r["images"]] = told
    rows = [
        [f"{stem} stem", f"{size} x {size}", *(found.get(n, "") for n in counts)]
        for (stem, size), found in cells.items()
    ]
    return tables.markdown_table(header, rows)


def main():
    records = []
    cases = [(size, stem) for stem, sizes in STEMS.items() for size in sizes]
    for size, stem in cases:
        for images in IMAGES:
            records.append(recover(size, stem, images))
            print(records[-1], flush=True)
    for classes in CLASSES:
        records.append(recover(224, "7x7", 100, classes=classes))
        print(records[-1], flush=True)
    for ipc in IPCS:
        records.append(recover(224, "7x7", 100, ipc=ipc))
        print(records[-1], flush=True)
    for size in STEMS["7x7"]:
        for images in BATCHES:
            records.append(squeeze(size, "7x7", images))
            print(records[-1], flush=True)
    backend = jax.default_backend()
    machine = {"jax": jax.__version__, "devices": parallel.describe()}
    record = {"machine": machine, "records": records, "fits": fits(records)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{backend}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    for fit in record["fits"]:
        print(fit)


if __name__ == "__main__":
    main()
