"""Compares two arms of an evaluation.

    python -m benchmarks.compare wmdd/noise sre2l/noise
    python -m benchmarks.compare A B --records runs/default/report/records.json

For each ipc and kind of labels: the difference of the mean accuracies, and by how many
standard errors it differs from 0. Students of one distilled set are not independent,
so the error is that of the means of the sets (Welch).
"""

import argparse
import json
import pathlib

import numpy as np

RECORDS = pathlib.Path(__file__).parent / "results" / "default-6x3" / "records.json"


def compare(records: list[dict], first: str, second: str) -> list[dict]:
    """One row for each ipc and kind of labels.

    Args:
      records: of single students, as `launch.evaluate` leaves them.
      first: an arm.
      second: another.

    Returns:
      Dicts with ipc, labels, the two means, their difference and its standard error
      (all in percent), and the number of sets and students of `first`.

    Raises:
      ValueError: an arm that the records do not have.
    """
    known = sorted({row["arm"] for row in records})
    for arm in (first, second):
        if arm not in known:
            raise ValueError(f"no arm {arm!r}; the records have: {', '.join(known)}.")
    rows = []
    keys = {(r["ipc"], r["labels"]) for r in records if r["arm"] == first}
    for ipc, labels in sorted(keys):
        means = []
        for arm in (first, second):
            mine = [
                r
                for r in records
                if (r["arm"], r["ipc"], r["labels"]) == (arm, ipc, labels)
            ]
            sets = sorted({r["set"] for r in mine})
            scores = [[r["top1"] for r in mine if r["set"] == s] for s in sets]
            means.append([100 * np.mean(s) for s in scores])
        difference = np.mean(means[0]) - np.mean(means[1])
        error = np.sqrt(sum(np.var(m, ddof=1) / len(m) for m in means))
        row = {"ipc": ipc, "labels": labels, "first": np.mean(means[0])}
        row |= {"second": np.mean(means[1]), "difference": difference, "error": error}
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--records", type=pathlib.Path, default=RECORDS)
    options = parser.parse_args()
    records = json.loads(options.records.read_text())
    for row in compare(records, options.first, options.second):
        ratio = row["difference"] / row["error"]
        print(
            f"ipc {row['ipc']:>3} {row['labels']}: {row['first']:.1f} against "
            f"{row['second']:.1f}, {row['difference']:+.1f} ± {row['error']:.1f} "
            f"({ratio:+.1f} standard errors)"
        )


if __name__ == "__main__":
    main()
