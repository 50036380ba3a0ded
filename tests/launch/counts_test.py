"""How many teachers label is chosen on training images alone."""

import pytest

from configs import default
from launch import counts, ensembles


def quick():
    config = default.get_config("quick")
    with config.unlocked(), config.ignore_type():
        config.teachers.second = {"epochs": 2}
        config.teachers.third = {"epochs": 3}
        config.relabel.update(teachers=("", "second", "third"), auto=True)
        config.recover.ipc = (2, 10)
        config.evaluate.labels = ("hard", "stored", "stored+lia", "online+lia")
        config.evaluate.recipes = ("edc_otm+plain", "edc")
        config.recipes.edc_otm.epochs = 70
        config.evaluate.attacks = ("pgd20",)
    return config


def test_the_best_of_each_ipc_wins_and_of_equals_the_fewest():
    seen = []

    def train(config, workdir):
        section = config.evaluate
        seen.append((config.relabel.schedule, config.relabel.auto))
        assert config.data.holdout == 0.2 and section.against == ()
        assert section.labels == ("stored+lia",) and section.attacks == ()
        assert section.recipes == ("edc_otm+plain",)
        recipe = config.recipes.edc_otm
        assert (recipe.epochs, recipe.ema) == (7, 0.0)
        few = {1: 0.5, 2: 0.4, 3: 0.5}[config.relabel.schedule]
        many = {1: 0.5, 2: 0.7, 3: 0.6}[config.relabel.schedule]
        rows = [(2, few), (10, many - 0.1), (10, many + 0.1)]
        return [{"ipc": ipc, "top1": top1} for ipc, top1 in rows]

    config = quick()
    chosen, rows = counts.search(config, "", train)
    assert seen == [(1, False), (2, False), (3, False)]
    assert chosen.relabel.schedule == ((1, 1), (10, 2)) and not chosen.relabel.auto
    assert ensembles.names(chosen, 10) == ("", "second")
    assert [r["teachers"] for r in rows if r["chosen"]] == [1, 2] and len(rows) == 6
    assert config.relabel.auto and config.data.holdout == 0.0
    assert chosen.evaluate == config.evaluate and chosen.recipes == config.recipes


def test_nothing_is_searched_where_nobody_asks():
    config = quick()
    with config.unlocked():
        config.evaluate.labels = ("hard", "stored")
    assert counts.search(config, "", None) == (config, [])
    config = quick()
    config.relabel.auto = False
    assert counts.search(config, "", None) == (config, [])


def test_a_config_that_is_a_search_itself_is_refused():
    config = quick()
    config.data.holdout = 0.1
    with pytest.raises(ValueError, match="data.holdout = 0.1; set one of them"):
        counts.search(config, "", None)
