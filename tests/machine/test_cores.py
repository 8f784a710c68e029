"""name_processor(): what runs and benchmarks call the machine that computed them."""

import pytest

from ser_jax.machine import cores


@pytest.mark.parametrize(("n", "said"), [(1, "1 core"), (2, "2 cores")])
def test_a_processor_is_named_with_its_cores(monkeypatch, n, said):
    monkeypatch.setattr(cores, "count_cores", lambda: n)
    name, _, counted = cores.name_processor().rpartition(", ")
    assert name
    assert counted == said
