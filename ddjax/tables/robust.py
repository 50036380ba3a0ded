"""Tables of students under attack, and of loss surfaces.

An attack's record names a student as its own record does ("arm", "ipc", "labels",
"recipe", "model", "set", "student"; "run" where several are joined), and says "attack",
"norm" ("linf" or "l2"), "eps" in 1/255 (None for an attack without a radius), and the
accuracies "clean" and "robust" in [0, 1] on the same "num_images" images. The attack
"worst" is, image by image, the worst of all attacks on that student at that radius.
"""

import math
import re

from ddjax import metrics
from ddjax.tables.forms import named, percent
from ddjax.tables.groups import at, places, split, summarise

__all__ = [
    "KIND",
    "NORMS",
    "WORST",
    "attack_names",
    "attack_title",
    "landscapes",
    "radius",
    "radius_order",
    "robust",
    "robust_long",
    "robust_series",
    "robustness",
    "strengths",
]

NORMS, WORST = ("linf", "l2"), "worst"
KIND = ("recipe", "model", "labels")  # of students in one table
_NAMES = {
    "apgd_ce": "APGD-CE",
    "apgd_dlr": "APGD-DLR",
    "apgd_dlr_targeted": "APGD-T",
    "apgd_t": "APGD-T",
    "autoattack": "AutoAttack",
    "autoattack_plus": "AutoAttack+",
    "autoattack_rand": "AutoAttack, rand",
    "cw": "CW-PGD",
    "cw_torchattacks": "CW of torchattacks",
    "fab": "FAB",
    "fab_t": "FAB-T",
    "fgsm": "FGSM",
    "mi_fgsm": "MI-FGSM",
    "mim": "MIM",
    "pgd": "PGD",
    "square": "Square",
    "torchattacks10": "AutoAttack of torchattacks",
    "vmi_fgsm": "VMI-FGSM",
}
_VARIANTS = {"l2": "L2", "margin": "margin"}
_MEDIANS = {
    "gradient_norm": "gradient norm",
    "rayleigh": "curvature along the gradient",
    "top_eigenvalue": "largest curvature",
    "cosine": "cosine of both directions",
}


def attack_title(name: str) -> str:
    """An attack's name in papers, the number of its steps, and how it differs.

    >>> attack_title("pgd100"), attack_title("apgd_ce_l2"), attack_title("mine")
    ('PGD-100', 'APGD-CE, L2', 'mine')
    """
    words, behind = name.lower().replace("-", "_").split("_"), []
    while len(words) > 1 and words[-1] in _VARIANTS:
        behind.insert(0, _VARIANTS[words.pop()])
    known = "_".join(words)
    kind, steps = re.fullmatch(r"(.*?)_?(\d*)", known).groups()
    if known in _NAMES:
        shown = _NAMES[known]
    elif kind in _NAMES:
        shown = f"{_NAMES[kind]}-{steps}"
    else:
        return name
    return ", ".join([shown, *behind])


def radius(norm: str, eps: float | None) -> str:
    """How far an attack may go, for people: "2/255", "128/255 in L2", "any in L2"."""
    size = "any" if eps is None else f"{eps:g}/255"
    return size if norm == "linf" else f"{size} in L2"


def robustness(attacks: list[dict]) -> list[dict]:
    """What attacks have left of each arm at each radius.

    Args:
      attacks: of one recipe, model and kind of labels.

    Returns:
      One dict for each run, ipc, arm, norm and eps, in the order of a table: these,
      the groups ("mean", "std", "n" over students) "clean" and "ratio" (of the worst
      case to clean; None without one), "attacks", a group for each of them, "n"
      students, and "num_images", the fewest and the most images of an attack.
    """
    found = []
    for place in places(attacks):
        radii = split(at(attacks, place), ("norm", "eps"))
        for norm, eps in sorted(radii, key=lambda place: radius_order(*place)):
            where = (*place, norm, eps)
            cell = dict(zip(("run", "ipc", "arm", "norm", "eps"), where))
            found.append(cell | _cell(radii[norm, eps]))
    return found


def radius_order(norm: str, eps: float | None) -> tuple:
    """What radii are sorted by: L-inf first, and those without one last."""
    return NORMS.index(norm), math.inf if eps is None else eps


def _cell(rows) -> dict:
    """Groups of one arm at one radius."""
    students = _one_each(rows)
    shares = [
        {"ratio": row["robust"] / row["clean"]}
        for row in students
        if row["attack"] == WORST and row["clean"]
    ]
    counts = [row["num_images"] for row in rows]
    return {
        "clean": _group(students, "clean"),
        "ratio": _group(shares, "ratio"),
        "attacks": {
            group["attack"]: group for group in summarise(rows, ("attack",), "robust")
        },
        "n": len(students),
        "num_images": (min(counts), max(counts)),
    }


def _one_each(rows) -> list[dict]:
    """A row of each student: of its worst case, where there is one."""
    return [
        next((row for row in mine if row["attack"] == WORST), mine[0])
        for mine in split(rows, ("set", "student")).values()
    ]


def _group(rows, value) -> dict | None:
    if not rows:
        return None
    numbers = metrics.mean_and_std([row[value] for row in rows])
    return dict(zip(("mean", "std", "n"), numbers))


def attack_names(attacks: list[dict]) -> list[str]:
    """The attacks there are, in order of appearance; the worst case is the last."""
    names = dict.fromkeys(row["attack"] for row in attacks)
    return sorted(names, key=lambda name: name == WORST)


def robust(attacks: list[dict], title=str) -> tuple[list[str], list[list[str]]]:
    """One row an ipc, arm and radius, one column an attack: percent, mean ± std.

    Args:
      attacks: of one recipe, model and kind of labels.
      title: `(arm) -> str`, its name for people.

    Returns:
      (header, rows); the first column is the run where the records name one.
    """
    names = attack_names(attacks)
    header = ["IPC", "images", "eps", "clean", *map(attack_title, names)]
    header += ["robust / clean", "n", "images attacked"]
    rows = []
    for cell in robustness(attacks):
        few, many = cell["num_images"]
        rows.append(
            [
                *([cell["run"]] if cell["run"] else []),
                str(cell["ipc"] or "all"),
                title(cell["arm"]),
                radius(cell["norm"], cell["eps"]),
                percent(cell["clean"]),
                *(percent(cell["attacks"].get(name)) for name in names),
                percent(cell["ratio"]),
                str(cell["n"]),
                f"{few:,}" if few == many else f"{few:,} to {many:,}",
            ]
        )
    return named(attacks, header), rows


def robust_long(attacks: list[dict]) -> tuple[list[str], list[list]]:
    """Numbers for other programs: a row an arm, attack and radius, in [0, 1]."""
    by = ("run",) if any("run" in row for row in attacks) else ()
    by += ("recipe", "model", "ipc", "arm", "labels", "attack", "norm", "eps")
    clean = summarise(attacks, by, "clean")
    rows = [
        [
            *(group[field] for field in by),
            *(group["mean"], group["std"]),
            *(left["mean"], left["std"], left["n"], mine[0]["num_images"]),
        ]
        for group, left, mine in zip(
            clean, summarise(attacks, by, "robust"), split(attacks, by).values()
        )
    ]
    numbers = ["clean", "clean_std", "robust", "robust_std", "n", "num_images"]
    return [*by, *numbers], rows


def robust_series(attacks: list[dict]) -> dict[int, dict[str, list[tuple]]]:
    """What is drawn: the worst case over the radius in L-inf, by ipc and arm.

    Args:
      attacks: of one recipe, model and kind of labels.

    Returns:
      {ipc: {arm: [(eps, mean, std)]}}, by growing ipc (all images, 0, are the last)
      and eps in 1/255; the accuracy without an attack is that at 0.
    """
    worst = [
        row
        for row in attacks
        if row["attack"] == WORST and row["norm"] == "linf" and row["eps"]
    ]
    found: dict[int, dict] = {}
    for place in places(worst):
        _, ipc, arm = place
        mine = at(worst, place)
        clean = _group(_one_each(mine), "clean")
        groups = [{"eps": 0, **clean}, *summarise(mine, ("eps",), "robust")]
        found.setdefault(ipc, {})[arm] = sorted(
            (group["eps"], group["mean"], group["std"]) for group in groups
        )
    return found


def landscapes(networks: list[dict]) -> tuple[list[str], list[list[str]]]:
    """How steep and how curved the loss of each network is: medians over images."""
    rows = [
        [
            *([row["run"]] if row.get("run") else []),
            row["name"],
            *(f"{row[field]:.3g}" for field in _MEDIANS),
        ]
        for row in networks
    ]
    return named(networks, ["network", *_MEDIANS.values()]), rows


def strengths(tried: list[dict]) -> tuple[list[str], list[list[str]]]:
    """What each strength of a penalty gave on held-out images, and which was chosen.

    Args:
      tried: rows with "teacher", "ipc", "weight", "clean", "robust" (pairs of a radius
        and an accuracy), "score" (their mean) and "chosen".
    """
    radii = sorted({eps for row in tried for eps, _ in row["robust"]})
    header = ["teacher", "IPC", "strength", "clean"]
    header += [*(f"{eps:g}/255" for eps in radii), "mean", "chosen"]
    rows = []
    for row in sorted(tried, key=lambda r: (r["teacher"], r["ipc"], r["weight"])):
        left = dict(row["robust"])
        shares = [row["clean"], *(left.get(eps) for eps in radii), row["score"]]
        cells = ["" if x is None else f"{100 * x:.1f}" for x in shares]
        about = [row["teacher"], str(row["ipc"]), f"{row['weight']:g}"]
        run = [row["run"]] if row.get("run") else []
        rows.append([*run, *about, *cells, "yes" if row["chosen"] else ""])
    return named(tried, header), rows
