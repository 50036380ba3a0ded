"""What is said of the devices of this host."""

import jax

from ddjax import parallel


class TestGroups:
    def test_one_by_one_on_a_cpu(self):
        assert parallel.is_cpu()
        assert parallel.groups(3) == [[0], [1], [2]]

    def test_all_together_on_an_accelerator(self, monkeypatch):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert not parallel.is_cpu()
        assert parallel.groups(3) == [[0, 1, 2]]


def test_device_count_is_the_fake_one():
    assert parallel.device_count() == 2
