"""Labels of several teachers beside those of one, through the programs."""

import jax
import numpy as np
import pytest

from configs import default
from ddjax import relabel as relabelling
from launch import (
    arms,
    ensembles,
    evaluate,
    plan,
    program,
    recover,
    relabel,
    report,
    sources,
)
from launch import students as pupils
from launch.student_costs import evaluate_rows, relabel_rows
from launch.teacher_costs import teacher_rows

SECOND = {"name": "convnet", "width": 6, "depth": 2, "norm": "batch"}


def quick(**changes):
    """The quick config with a second teacher, and fields of `relabel` changed."""
    config = default.get_config("quick")
    with config.unlocked(), config.ignore_type():
        config.teachers.second = {"model": dict(SECOND), "epochs": 2}
        config.relabel.teachers = ("", "second")
        config.relabel.schedule = ((1, 1), (2, 2))
        config.evaluate.labels = ("stored", "stored+lia", "online+lia")
        config.evaluate.recipes = ("edc",)
        config.evaluate.against = ("random+second",)
        config.evaluate.quality = False
        config.relabel.update(changes)
    return config


class TestWho:
    @pytest.mark.parametrize(
        ("ipc", "count"), [(1, 1), (9, 1), (10, 2), (60, 3), (0, 3)]
    )
    def test_a_schedule_counts_from_the_first(self, ipc, count):
        """As many as there are; for the whole data, its last."""
        config = quick(teachers=("second", "", "third"))
        with config.unlocked():
            config.relabel.schedule = default.base().relabel.schedule
        wanted = ("second", "", "third")[:count]
        assert ensembles.names(config, ipc) == wanted

    @pytest.mark.parametrize("schedule", [2, (2,), ((1, 2),)])
    def test_one_number_is_for_every_ipc(self, schedule):
        assert ensembles.names(quick(schedule=schedule), 50) == ("", "second")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"teachers": ("", "third")}, r"\('', 'third'\).*known: '', 'second'"),
            ({"teachers": ()}, r"relabel.teachers are \(\)"),
            ({"teachers": ("", "")}, "each once"),
            ({"schedule": ((10, 1), (50, 2))}, "begin at 2 or below"),
            ({"schedule": ((1, 0),)}, r"relabel.schedule is .* at least 1"),
            ({"schedule": 1.5}, r"relabel.schedule is 1.5; expected a number"),
            ({"average": "median"}, "relabel.average 'median'; known: logits, probs"),
        ],
        ids=str,
    )
    def test_what_cannot_be_is_refused(self, changes, message):
        with pytest.raises(ValueError, match=message) as caught:
            arms.check(quick(**changes))
        assert "\n" not in str(caught.value)

    def test_it_is_not_looked_at_where_nobody_asks(self):
        config = quick(teachers=("nobody",))
        with config.unlocked():
            config.evaluate.labels = ("hard", "stored", "online")
        arms.check(config)

    def test_unknown_kinds_of_labels_are_refused(self):
        config = quick()
        with config.unlocked():
            config.evaluate.labels = ("hard+lia",)
        with pytest.raises(ValueError, match="unknown evaluate.labels 'hard.lia'"):
            arms.check(config)

    def test_a_teacher_of_labels_that_cannot_be_built_is_refused(self):
        config = quick()
        with config.unlocked():
            config.teachers.second.model.name = "convnot"
            config.evaluate.against = ()
        with pytest.raises(ValueError, match="unknown model 'convnot'"):
            arms.check(config)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def records(workdir):
    evaluate.run(quick(), workdir)
    return evaluate.run(quick(), workdir)  # the second finds all


def of(records, arm, labels):
    (row,) = (r for r in records if (r["arm"], r["labels"]) == (arm, labels))
    return row


@pytest.fixture(scope="module")
def both(workdir, records):
    """The two teachers, the main one first."""
    source = sources.finder(quick(), workdir)
    return source().teacher, source("random+second", 2).teacher


def test_the_record_names_all_that_label(records, both):
    """And says nothing new of labels by one."""
    row = of(records, "wmdd/real", "stored+lia")
    assert row["labellers"] == {
        "teachers": [teacher.hash for teacher in both],
        "average": "logits",
        "standardise": False,
    }
    assert row["teacher"] == both[0].hash
    assert "labellers" not in of(records, "wmdd/real", "stored")


def test_an_arm_with_a_teacher_of_its_own_keeps_it_alone(records, both):
    row = of(records, "random+second", "stored+lia")
    assert "labellers" not in row and row["teacher"] == both[1].hash
    assert row["students"] == of(records, "random+second", "stored")["students"]


def test_stored_labels_are_the_mean_and_students_learn_from_it(workdir, records, both):
    """Of the two teachers' logits on the views that students see."""
    config, found = quick(), []
    (distilled,) = recover.run(config, workdir)
    info = both[0].train.info
    recipe = pupils.recipe(config, "edc", "convnet", 20, info)
    views = recipe.views, program.key(config, "views", 0), distilled.images.images
    for teacher in both:
        about = teacher.network.apply, teacher.variables, *views
        found.append(np.float64(relabelling.soft_labels(*about, range(3))))
    labellers = ensembles.finder(config, workdir, sources.finder(config, workdir))
    who = labellers("stored+lia", 2, both[0], recipe.temperature)
    about = config, workdir, who, distilled, recipe, 0, "stored"
    stored = relabel.load(*about).soft
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored, np.mean(found, 0), rtol=2e-3, atol=2e-3)
    assert np.abs(found[0] - found[1]).max() > 0.05
    digests = [
        of(records, "wmdd/real", kind)["students"] for kind in ("stored", "stored+lia")
    ]
    assert digests[0] != digests[1]


def test_bytes(records, both):
    """A mean is stored once; who asks the teachers needs all of them."""
    one, lia, online = (
        of(records, "wmdd/real", kind)
        for kind in ("stored", "stored+lia", "online+lia")
    )
    assert one["label_bytes"] == lia["label_bytes"] == 3 * 20 * 10 * 2 + 20
    sizes = [
        sum(np.asarray(x).nbytes for x in jax.tree.leaves(teacher.variables))
        for teacher in both
    ]
    assert online["other_bytes"] == sum(sizes) and lia["other_bytes"] == 0


def test_a_report_says_how_sure_the_labels_are(workdir, records):
    found = report.records(workdir)
    rows = [row for row in found["labels"] if row["arm"] == "wmdd/real"]
    assert [row["teachers"] for row in rows] == [1, 2]
    for row in rows:
        assert 0 < row["entropy"] < np.log(10) + 1e-3
        assert 0 <= row["accuracy"] <= 1 and 0 <= row["agreed"] <= 1
    table = report.markdown(found)
    assert "| entropy, nats | teachers right, % | labels right, %" in table
    line = next(x for x in table.splitlines() if "WMDD" in x and x.count("|") == 7)
    assert f"{rows[0]['entropy']:.3f}" in line
    stages = [row["stage"] for row in found["stages"]]
    assert stages.count("squeeze") == 2
    assert "stored+lia" in (workdir / "report" / "index.html").read_text()


def test_one_teacher_s_labels_are_found_again(workdir, records, both):
    """With a schedule of one there is nothing new but the word."""
    config = quick(schedule=1)
    with config.unlocked():
        config.evaluate.labels = ("stored+lia",)
        config.evaluate.against = ()
    before = sorted((workdir / "relabel").iterdir())
    (row,) = evaluate.run(config, workdir)
    assert row["students"] == of(records, "wmdd/real", "stored")["students"]
    assert sorted((workdir / "relabel").iterdir()) == before


def test_a_plan_counts_them():
    config = quick()
    with config.unlocked():
        config.evaluate.against = ()
    made = plan.outlined(config)
    trained = [row for row in teacher_rows(made) if row.stage == "squeeze"]
    assert [row.calls for row in trained] == [12, 24]  # one epoch, and two
    one, lia = (row for row in relabel_rows(made) if "stored" in row.what)
    assert lia.disk == one.disk and 1.2 * one.flops < lia.flops < 2 * one.flops
    rows = {row.what: row for row in evaluate_rows(made)}
    stored, online = (
        next(row for what, row in rows.items() if kind in what)
        for kind in ("stored+lia", "online+lia")
    )
    assert online.flops > 1.3 * stored.flops  # both teachers look too
