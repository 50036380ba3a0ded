"""A pool of networks: who is in it, and what is kept when the program ends early."""

import jax
import numpy as np
import pytest

from configs import default
from ddjax import checkpoint
from launch import inputs, pool, progress, squeeze


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pool of two, and where it is."""
    workdir = tmp_path_factory.mktemp("pool")
    return pool.run(default.get_config("quick"), workdir), workdir


def config_with(**changes):
    config = default.get_config("quick")
    for name, value in changes.items():
        config.pool[name] = value
    return config


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_networks_are_stacked_and_differ(made):
    first, last = made[0]
    config = default.get_config("quick")
    train, _ = inputs.load_data(config)
    network = inputs.build_network(config.squeeze.model, train.info)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    assert jax.tree.structure(first) == jax.tree.structure(shapes)
    for one, alike in zip(leaves(last), jax.tree.leaves(shapes)):
        assert one.shape == (2, *alike.shape)
    kernels = leaves(first["params"])
    assert any(np.any(x[0] != x[1]) for x in kernels)  # a seed each
    assert all(np.any(a != b) for a, b in zip(kernels, leaves(last["params"])))
    for i in range(2):  # they begin where an untrained network does
        start = jax.tree.map(lambda x, i=i: x[i], first)
        assert leaves(start["batch_stats"])[0].tolist() == [0.0] * 8


def test_a_larger_pool_keeps_what_it_has(made, monkeypatch):
    (_, last), workdir = made
    trained, calls = squeeze.trained, []

    def counted(config, stage, *arguments, **options):
        calls.append(stage.folder.name[:7])
        return trained(config, stage, *arguments, **options)

    monkeypatch.setattr(squeeze, "trained", counted)
    _, larger = pool.run(config_with(size=3), workdir)
    assert calls == ["member2"]
    for two, three in zip(leaves(last), leaves(larger)):
        np.testing.assert_array_equal(two, three[:2])


def test_one_that_was_interrupted_goes_on(made, tmp_path, monkeypatch):
    """The state of step 5 of the second: the same networks come out."""
    seen, config = [], default.get_config("quick")
    call = progress.Monitor.__call__

    def ended(self, done, state, metrics):
        call(self, done, state, metrics)
        seen.append(done)
        if self._stage.folder.name.startswith("member1") and done == 5:
            self._save(state)
            raise KeyboardInterrupt

    monkeypatch.setattr(progress.Monitor, "__call__", ended)
    with pytest.raises(KeyboardInterrupt):
        pool.run(config, tmp_path)
    monkeypatch.setattr(progress.Monitor, "__call__", call)
    assert seen[-1] == 5
    for one, other in zip(leaves(pool.run(config, tmp_path)), leaves(made[0])):
        np.testing.assert_array_equal(one, other)


def test_what_is_no_pool_is_refused():
    for changes in ({"size": 0}, {"epochs": 0}):
        with pytest.raises(ValueError, match="both must be at least 1"):
            pool.check(config_with(**changes))
    config = default.get_config("quick")
    config.squeeze.restore = "weights.pth"
    with pytest.raises(ValueError, match="'weights.pth', one finished network"):
        pool.check(config)


def test_hosts_share_the_networks(made, hosts, tmp_path):
    """Two of them make the same pool as one."""
    hosts.start(tmp_path, tmp_path / "log", module="pool")
    assert hosts.end() == [0, 0]
    members = sorted((tmp_path / "pool").iterdir())
    alone = sorted((made[1] / "pool").iterdir())[:2]
    assert [path.name for path in members] == [path.name for path in alone]
    for path, other in zip(members, alone):
        one, same = checkpoint.load(path), checkpoint.load(other)
        assert all(np.array_equal(one[name], same[name]) for name in same)
