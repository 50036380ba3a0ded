"""Attacks beside PyTorch's, and what a robust teacher costs, as ratios of one run.

    python -m benchmarks.attacks --torch_python=PATH    # a Python with torch; see below
    python -m benchmarks.attacks                        # ours alone
    python -m benchmarks.attacks overhead               # or only some of the parts
    python -m benchmarks.attacks students
    python -m benchmarks.attacks speed --images=200 --eps=16 --queries=500

speed: PGD-100 and AutoAttack against torchattacks' and the authors' own, on the same
network, weights, images and threads, in turns; the other side is
`torch_reference/attacks.py`. Where other programs run, give --threads=1: PyTorch's
threads wait for each other, and one that is kept from its core stops all (two took
eight times as long as one, at a load of five). overhead: seconds, operations and memory
of a step of training a teacher with each form of curvature, or on adversarial images,
over a plain one. students: PGD-100 on several at once against one by one. Records go
to benchmarks/results/attacks/.

Found on one core of a machine with a load of eight, with 40 images and 100 queries:
PGD-100 and AutoAttack 1.7 times as fast as torchattacks' and the authors' own, with the
same number of points left after every stage. Compiling AutoAttack took 15 seconds, and
each radius is compiled anew.
"""

import argparse
import functools
import json
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

from benchmarks import beside, overhead, subjects
from ddjax import attacks, models, parallel

RESULTS = pathlib.Path(__file__).parent / "results" / "attacks"
PGD_STEPS = 100


# Beside torch -------------------------------------------------------------------------


def speed(options):
    """Images per second of both sides, attack by attack, and what was left."""
    network, variables, test = subjects.trained(options.epochs)
    images, labels = subjects.attacked(network, variables, test, options.images)
    eps = options.eps / 255
    *gradient_based, _ = attacks.autoattack(eps, num_classes=10)
    square = attacks.square(eps=eps, num_queries=options.queries)
    suites = {
        "pgd": (attacks.pgd(eps=eps, num_steps=PGD_STEPS),),
        "autoattack": (*gradient_based, square),
    }
    key = jax.random.key(2)

    def ours(word):
        (found,) = attacks.run(
            suites[word],
            network.apply,
            [variables],
            images,
            labels,
            key,
            batch_size=options.batch_size or len(images),
        )
        return found.stages

    with tempfile.TemporaryDirectory() as folder:
        theirs = None
        if options.torch_python:
            given = (network, variables, test.info, images, labels)
            theirs, about = _start_torch(options, folder, *given)
            yield about
        try:
            for word in suites:
                yield from _stages(word, ours, theirs, len(images), options)
        finally:
            if theirs:
                theirs.close()


def _start_torch(options, folder, network, variables, info, images, labels):
    """Torch with our network, once its logits are ours."""
    given = {"images": images, "labels": labels, **models.to_torch(variables)}
    np.savez(pathlib.Path(folder) / "given.npz", **given)
    numbers = {
        "eps": options.eps / 255,
        "steps": PGD_STEPS,
        "queries": options.queries,
        "threads": beside.threads(),
        "gpu": not parallel.is_cpu(),
        "mean": info.mean,
        "std": info.std,
    }
    (pathlib.Path(folder) / "given.json").write_text(json.dumps(numbers))
    theirs = beside.Torch(options.torch_python, "attacks.py", folder)
    answer = theirs.ask("logits")
    logits = subjects.logits_of(network, variables, images)
    apart = np.abs(answer.pop("logits") - logits).max() / np.abs(logits).max()
    if not apart < 1e-5:
        theirs.close()
        raise RuntimeError(f"the two networks' logits differ by {apart:.0e}.")
    return theirs, {"part": "speed", "apart": float(apart), **answer}


def _stages(word, ours, theirs, count, options):
    """A record for each stage, and one for all of them."""
    began = time.perf_counter()
    ours(word)
    first = time.perf_counter() - began
    here, there = [], []
    for _ in range(options.rounds):
        here.append(ours(word))
        if theirs:
            there.append(theirs.ask(word))
    whole = [sum(stage["seconds"] for stage in turn) for turn in here]
    for i, stage in enumerate(here[0]):
        yield _compared(word, stage["name"], here, there, slice(i, i + 1), count)
    if len(here[0]) > 1:
        yield _compared(word, "all", here, there, slice(None), count)
    compiling = first - statistics.median(whole)
    yield {"part": "speed", "attack": word, "stage": "compile", "seconds": compiling}


def _compared(word, stage, here, there, which, count):
    def total(turns):
        return [sum(found["seconds"] for found in turn[which]) for turn in turns]

    mine = total(here)
    record = {
        "part": "speed",
        "attack": word,
        "stage": stage,
        "images": count,
        "seconds": statistics.median(mine),
        "images_per_second": count / statistics.median(mine),
        "robust": [turn[which][-1]["robust"] for turn in here],
    }
    if there:
        other = total(there)
        record["torch_seconds"] = statistics.median(other)
        record["torch_images_per_second"] = count / statistics.median(other)
        record["torch_robust"] = [turn[which][-1]["robust"] for turn in there]
        record["ratio"] = statistics.median(t / o for t, o in zip(other, mine))
    return record


# Many students ------------------------------------------------------------------------


def students(options):
    """PGD-100 on copies of one student (all have the same work), together or not."""
    network, variables, test = subjects.trained(options.epochs)
    images, labels = subjects.attacked(network, variables, test, options.images)
    eps, number = options.eps / 255, options.students
    run = functools.partial(
        attacks.run,
        (attacks.pgd(eps=eps, num_steps=PGD_STEPS),),
        network.apply,
        images=images,
        labels=labels,
        key=jax.random.key(2),
        batch_size=len(images),
    )
    forms = {
        "together": lambda: run(variables=[variables] * number),
        "one by one": lambda: [run(variables=[variables])[0] for _ in range(number)],
    }
    seconds, left = {name: [] for name in forms}, {}
    for turn in range(options.rounds + 1):
        for name, form in forms.items():
            began = time.perf_counter()
            left[name] = [int(found.robust.sum()) for found in form()]
            if turn:  # the first compiles
                seconds[name].append(time.perf_counter() - began)
    pairs = zip(seconds["together"], seconds["one by one"])
    yield {
        "part": "students",
        "students": number,
        "images": len(images),
        **{name: statistics.median(values) for name, values in seconds.items()},
        "ratio": statistics.median(a / b for a, b in pairs),
        "robust": left["together"],
        "same": left["together"] == left["one by one"],
    }


# Records ------------------------------------------------------------------------------


def _line(record):
    if record["part"] == "students":
        return (
            f"{record['students']} students together {record['ratio']:.2f}x one by one, "
            f"{record['robust']} robust"
        )
    if record["part"] == "overhead":
        expected = " and ".join(
            str(record[f"expected_{x}"]) for x in ("operations", "memory")
        )
        return (
            f"{record['network']:<20} {record['form']:<28} "
            f"{record['seconds']:5.2f} x seconds, {record['operations']:5.2f} x operations, "
            f"{record['memory']:5.2f} x memory (expected {expected})"
        )
    if "apart" in record:
        return f"logits are {record['apart']:.0e} apart; torch's side: {record}"
    words = f"{record['attack']:<10} {record['stage']:<8} {record['seconds']:8.2f} s"
    if "images" not in record:
        return words
    words += f", {record['images_per_second']:7.2f} images/s, {record['robust']} robust"
    if "ratio" in record:
        words += (
            f"; torch {record['torch_seconds']:8.2f} s, {record['torch_robust']} robust: "
            f"{record['ratio']:.2f} x"
        )
    return words


def main():
    parts = {"speed": speed, "overhead": overhead.overhead, "students": students}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=", ".join(parts))
    parser.add_argument("--torch_python", metavar="PATH", help="a Python with torch")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=0, help="of ours; 0 for all")
    parser.add_argument("--eps", type=float, default=16, help="in levels of 255")
    parser.add_argument("--epochs", type=int, default=6, help="of the network attacked")
    parser.add_argument("--queries", type=int, default=500, help="of Square, of 5,000")
    parser.add_argument("--rounds", type=int, default=2, help="turns of both sides")
    parser.add_argument("--steps", type=int, default=15, help="pairs of `overhead`")
    parser.add_argument(
        "--networks", default=";".join(subjects.NETWORKS), help="of `overhead`"
    )
    parser.add_argument("--students", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of both sides; all by default")
    options = parser.parse_args()
    unknown = set(options.parts) - set(parts)
    if unknown:
        parser.error(f"unknown part {min(unknown)!r}; known: {', '.join(parts)}")
    beside.only(options.threads)
    RESULTS.mkdir(parents=True, exist_ok=True)
    asked = vars(options) | {"torch_python": bool(options.torch_python)}
    for name in options.parts or parts:
        if name == "speed" and not options.torch_python:
            print("no --torch_python: only ours is timed")
        machine, records = beside.machine(), []
        for record in parts[name](options):
            print(_line(record), flush=True)
            records.append(record)
            machine["load_after"] = beside.load()
            told = {"machine": machine, "options": asked, "records": records}
            _write(name, told)  # what follows may take long


def _write(name, told):
    kind = "cpu" if parallel.is_cpu() else "accelerator"
    (RESULTS / f"{name}-{kind}.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
