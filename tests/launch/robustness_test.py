"""Attacked students: what is kept, what is made again, and what is said."""

import shutil

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from configs import guard_digits
from ddjax import attacks, checkpoint
from launch import (
    cache,
    cells,
    command,
    evaluate,
    inputs,
    landscapes,
    plan,
    program,
    report,
    robustness,
    sources,
)


def quick(**changes):
    """Two arms, one attack that is fast and one that is stronger."""
    config = guard_digits.get_config("quick")
    with config.unlocked():
        config.squeeze.epochs = 3
        config.squeeze.batch_size = 64
        config.evaluate.update(
            against=("sre2l/noise",),
            attacks=("fgsm", "pgd10"),
            radii=(2.0, 16.0),
            attack_images=40,
            strengths=(),
            quality=False,
        )
        config.recipes.wmdd.epochs = 40
        config.evaluate.update(changes)
    return config


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    config = quick()
    evaluate.run(config, workdir)
    return config, workdir, report.records(workdir)


def test_every_student_meets_every_attack_at_every_radius(run):
    _, _, records = run
    found = {(r["arm"], r["attack"], r["eps"]) for r in records["attacks"]}
    assert found == {
        (arm, attack, eps)
        for arm in ("sre2l/noise", "sre2l+guard/noise")
        for attack in ("fgsm", "pgd10", "worst")
        for eps in (2.0, 16.0)
    }
    assert all(row["num_images"] == 40 for row in records["attacks"])


def test_the_worst_case_is_at_most_each_attack(run):
    _, _, records = run
    rows = {(r["arm"], r["attack"], r["eps"]): r for r in records["attacks"]}
    for (arm, attack, eps), row in rows.items():
        assert rows[arm, "worst", eps]["robust"] <= row["robust"] <= row["clean"]
        assert row["clean"] == rows[arm, "fgsm", 2.0]["clean"], attack


def test_accuracies_are_those_of_the_attack_by_itself(run):
    """Students are read back from disk, and attacked again without the programs."""
    config, workdir, records = run
    found = evaluate.train(config, workdir, sources.finder(config, workdir))
    cell = next(c for c in found if c.distilled.record["arm"] == "sre2l/noise")
    _, test = inputs.load_data(config)
    images, labels = robustness.spread(test, 40)
    shapes = cell.network.init(jax.random.key(0))
    student = checkpoint.unflatten(cell.weights[0].load(), shapes)
    logits = np.asarray(cell.network.apply(student, images / np.float32(255))[0])
    row = next(r for r in records["attacks"] if r["arm"] == "sre2l/noise")
    assert row["clean"] == np.mean(logits.argmax(1) == labels)
    fgsm = attacks.fgsm(eps=16 / 255)
    (outcome,) = attacks.run(
        (fgsm,),
        cell.network.apply,
        [student],
        images,
        labels,
        jax.random.key(5),  # FGSM draws nothing
    )
    row = next(
        r
        for r in records["attacks"]
        if (r["arm"], r["attack"], r["eps"]) == ("sre2l/noise", "fgsm", 16.0)
    )
    assert row["robust"] == outcome.robust.mean()


def test_no_teacher_is_trained_that_no_arm_has(tmp_path):
    """Least of all by the primary alone, for whom other hosts would not wait."""
    evaluate.run(quick(against=(), attacks=()), tmp_path)
    assert len(list(tmp_path.glob("squeeze/*"))) == 1


def test_nothing_is_trained_or_attacked_twice(run, monkeypatch):
    config, workdir, records = run

    def never(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr(cells.student, "train", never)
    monkeypatch.setattr(attacks, "run", never)
    evaluate.run(config, workdir)
    assert report.records(workdir)["attacks"] == records["attacks"]


def test_students_scored_before_are_trained_again_to_be_attacked(tmp_path):
    """Scores do not need their variables, so these are kept only where asked for."""
    first = evaluate.run(quick(attacks=()), tmp_path)
    assert not (tmp_path / "students").exists()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("evaluate/*/*.json")}
    second = evaluate.run(quick(attacks=("fgsm",), radii=(2.0,)), tmp_path)
    assert first == second
    assert before == {p: p.stat().st_mtime_ns for p in before}, "records stay"
    for path in tmp_path.glob("students/*/artifact.npz"):
        with np.load(path) as arrays:
            assert all(np.isfinite(arrays[name]).all() for name in arrays)


def test_students_that_were_not_scored_yet_are_not_trained_again(run, monkeypatch):
    """A kill behind the training leaves the students, and loses only their scores."""
    config, workdir, _ = run
    (cell, *_) = evaluate.train(config, workdir, sources.finder(config, workdir))
    before = cell.records()
    for stage in cell.stages:
        shutil.rmtree(stage.folder)
    monkeypatch.setattr(cells.student, "train", None)
    (cell, *_) = evaluate.train(config, workdir, sources.finder(config, workdir))
    assert cell.records() == before


def test_a_suite_goes_on_from_its_last_round(run, monkeypatch):
    """What was found before a kill is not looked for again, and the end is the same."""
    _, workdir, _ = run
    config = quick(attacks=("restarts",), radii=(16.0,))
    found = evaluate.train(config, workdir, sources.finder(config, workdir))
    suite = (attacks.pgd(eps=16 / 255, num_steps=2, restarts=5),)
    monkeypatch.setattr(attacks, "named", lambda *arguments: suite)
    made, real = [], attacks.run

    class Killed(Exception):
        pass

    def watched(*arguments, remember, **options):
        def watch(stage, round, make):
            def once():
                made.append(round)
                if len(made) == 4:
                    raise Killed
                return make()

            return remember(stage, round, once)

        return real(*arguments, remember=watch, **options)

    monkeypatch.setattr(attacks, "run", watched)
    with pytest.raises(Killed):
        robustness.measure(config, workdir, found)
    ended = robustness.measure(config, workdir, found)
    assert made == [0, 1, 2, 3, 3, 4, *range(5)], "the round that was cut off once more"
    for path in workdir.glob("attack/*restarts*"):
        shutil.rmtree(path)
    assert robustness.measure(config, workdir, found) == ended


def test_a_student_that_diverged_is_told_and_ends_nothing(run, monkeypatch):
    config, workdir, _ = run
    found = evaluate.train(config, workdir, sources.finder(config, workdir))[:1]
    variables = found[0].variables
    nan = [jax.tree.map(lambda leaf: leaf * np.nan, tree) for tree in variables()]
    monkeypatch.setattr(cells.Cell, "variables", lambda self: nan)
    changed = quick(attacks=("fgsm",), radii=(3.0,))
    told = robustness.measure(changed, workdir, found)["alarms"]
    assert any(
        "fgsm at 3/255: the network gives logits that are not fin" in t for t in told
    )


def test_teachers_are_looked_at_once_each(run):
    config, workdir, records = run
    names = [row["name"] for row in records["landscapes"]]
    assert names == ["teacher", "GUARD teacher, weight 1"]
    for row in records["landscapes"]:
        assert np.shape(row["surface"]["loss"]) == (21, 21)
        assert abs(row["rayleigh"]) <= 1.001 * abs(row["top_eigenvalue"]) + 1e-6
    assert (
        landscapes.measure(config, workdir, sources.finder(config, workdir))
        == (records["landscapes"])
    )


def test_a_teacher_that_diverged_has_no_landscape(run, tmp_path):
    """Whose numbers no report could hold."""
    config, workdir, _ = run
    source = sources.finder(config, workdir)

    def found(arm, ipc):
        here = source(arm, ipc)
        if arm == "sre2l/noise":
            return here
        nan = jax.tree.map(lambda leaf: leaf * np.nan, here.teacher.variables)
        return here._replace(teacher=here.teacher._replace(variables=nan))

    (row,) = landscapes.measure(config, tmp_path, found)
    assert row["name"] == "teacher"


def test_doubts_of_single_attacks_are_told():
    row = {"arm": "sre2l+guard/noise", "ipc": 1, "labels": "stored", "recipe": "wmdd"}
    row |= {"model": "convnet", "set": 2, "student": 0, "attack": "fgsm", "eps": 2.0}
    row |= {"clean": 0.5, "robust": 0.4, "doubts": ["no gradient."]}
    (words,) = robustness.alarms([row])
    assert words.startswith("SRe2L + GUARD, from noise, IPC 1, stored labels")
    assert words.endswith("set 2, fgsm at 2/255: no gradient.")
    pgd = {**row, "attack": "pgd100", "robust": 0.45, "doubts": []}
    assert "fgsm reaches 40.0 % at 2/255" in robustness.alarms([row, pgd])[1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attacks": ("pdg100",)}, "unknown attack 'pdg100'.*autoattack"),
        ({"radii": (0.0, 1.0)}, "above 0, in 1/255"),
        ({"radii": ()}, "above 0, in 1/255"),
        ({"attack_images": -5}, "attack_images is -5"),
        ({"attack_batch": 0}, "attack_batch 0"),
    ],
)
def test_attacks_that_cannot_be_are_refused_at_once(changes, told):
    with pytest.raises(ValueError, match=told):
        robustness.check(quick(**changes))


def test_a_dry_run_sees_the_attacks_of_the_flag(monkeypatch):
    """As all do that read the config before the program runs, such as other hosts."""
    seen = []
    monkeypatch.setattr(command, "_log_plainly", lambda: None)
    monkeypatch.setattr(command.stopping, "listen", lambda: None)
    monkeypatch.setattr(cache, "enable", lambda: None)
    monkeypatch.setattr(plan, "show", lambda config, told: seen.append(config))
    words = ["evaluate", "--dry_run", "--attacks=fgsm,pgd7"]
    monkeypatch.setattr(
        command.app, "run", lambda run, flags_parser: run(flags_parser(words))
    )
    with flagsaver.flagsaver():
        program.main(evaluate.run, enter=evaluate.enter)
    assert seen[0].evaluate.attacks == ("fgsm", "pgd7")


def test_what_is_named_twice_is_attacked_once():
    config = quick(attacks=("fgsm", "pgd10", "fgsm"), radii=(2.0, 2.0))
    assert robustness.asked(config) == [("fgsm", 2.0), ("pgd10", 2.0)]


def test_only_an_attack_that_sees_its_batch_is_made_again_in_another(run):
    config, workdir, _ = run
    found = evaluate.train(config, workdir, sources.finder(config, workdir))
    for batch in (10, 20):
        changed = quick(attacks=("cw_torchattacks", "pgd10"), attack_batch=batch)
        robustness.measure(changed, workdir, found)
    for name, count in (("*cw_torchattacks-0*", 2), ("*pgd10-2-*", 1)):
        assert len(list(workdir.glob(f"attack/{name}"))) == count * len(found)
