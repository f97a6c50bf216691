"""Training of one site at a time: recorded steps of small networks, with the bits of plain ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from striped_digits import PREPARE, bits, convolutional, forgetful, linear, same, samples

from sheaf.core.recipe import Recipe
from sheaf.training import lone_site
from sheaf.training.batches import Job
from sheaf.training.lone_site import LEAST_STEPS, LoneSite, train_plainly
from sheaf.training.network import Network

RECIPE = Recipe(epochs=13, batch_size=16, lr=0.01)
"""52 steps on 50 examples."""


def records(lone: LoneSite) -> bool:
    return bool(lone._stacks._idle)


@pytest.mark.parametrize("make", [linear, convolutional])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_recorded_steps_have_the_bits_of_plain_ones(make, schedule: str) -> None:
    network, recipe = Network(make(), (1, 8, 8)), replace(RECIPE, schedule=schedule)
    lone, job = LoneSite(), Job(bits(make()), samples(), 3)
    for seed in (3, 4):  # the second job reuses the recording
        job = replace(job, seed=seed)
        recorded = lone(network, None, job, recipe, PREPARE, None)
        plain = train_plainly(network, None, job, recipe, PREPARE, None)
        assert same(recorded.params, plain.params)
        assert recorded.losses == plain.losses
    assert records(lone)


def test_few_steps_large_steps_and_random_layers_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_recorded(make, epochs: int) -> bool:
        lone, job = LoneSite(), Job(bits(make()), samples(), 3)
        lone(Network(make(), (1, 8, 8)), None, job, replace(RECIPE, epochs=epochs), PREPARE, None)
        return records(lone)

    steps_of_epoch = 4
    assert is_recorded(linear, -(-LEAST_STEPS // steps_of_epoch))
    assert not is_recorded(linear, LEAST_STEPS // steps_of_epoch)
    assert not is_recorded(forgetful, 13)
    monkeypatch.setattr(lone_site, "LARGEST_STEP", 16 * 64)
    assert not is_recorded(linear, 13)
