"""Costs: booked for each site, and the bytes at both ends."""

from __future__ import annotations

import pytest
import torch

from sheaf.core.recipe import Recipe
from sheaf.core.task import Cost, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.core.wire_format import message_bytes
from sheaf.runtime.costs import Ledger

TASK = Task("train", 1, 2, Blob.of({"w": torch.ones(30)}), Recipe())


def update(site: str, size: int, cost: Cost) -> Update:
    return Update(site, "train", Blob.of({"w": torch.ones(size)}), (1, 2), {}, cost)


def test_every_message_is_booked_at_both_ends() -> None:
    ledger = Ledger(("a", "b"), macs_per_example=11, parameters=30)
    one, other = update("a", 5, Cost(100, 1.5, 70)), update("b", 50, Cost(10, 0.5, 90))
    again = update("a", 9, Cost(1, 0.25, 30))
    for answer in (one, other, again):
        ledger.book(TASK, answer)
    a, b, cloud = (ledger.sites[site] for site in ("a", "b", CLOUD))
    assert list(ledger.sites) == ["a", "b", CLOUD]
    assert {(site.macs_per_example, site.parameters) for site in ledger.sites.values()} == {(11, 30)}
    assert (a.train_macs, a.seconds, a.peak_memory_bytes) == (101, 1.75, 70)
    assert a.bytes_received == 2 * message_bytes(TASK)
    assert a.bytes_sent == message_bytes(one) + message_bytes(again)
    assert b.bytes_sent == message_bytes(other)
    assert cloud.bytes_sent == a.bytes_received + b.bytes_received
    assert cloud.bytes_received == a.bytes_sent + b.bytes_sent
    assert (cloud.train_macs, cloud.seconds, cloud.peak_memory_bytes) == (0, 0, 0)


def test_the_size_is_that_of_the_network_trained_last() -> None:
    ledger = Ledger(("a", "b"), 11, 30)
    ledger.book(TASK, update("a", 5, Cost(100, macs_per_example=4, parameters=7)))
    ledger.book(TASK, update("a", 5, Cost(100, macs_per_example=3, parameters=6)))
    ledger.book(TASK, update("a", 5, Cost()))  # a task without training
    whole = {
        site: (ledger.sites[site].macs_per_example, ledger.sites[site].parameters) for site in ledger.sites
    }
    assert whole == {"a": (3, 6), "b": (11, 30), CLOUD: (11, 30)}


def test_the_clouds_own_tasks_cost_no_bytes() -> None:
    ledger = Ledger(("a",), 11, 30)
    ledger.book(TASK, update(CLOUD, 5, Cost(100, 1.5, 70)))
    cloud = ledger.sites[CLOUD]
    assert (cloud.train_macs, cloud.seconds, cloud.peak_memory_bytes) == (100, 1.5, 70)
    assert (cloud.bytes_sent, cloud.bytes_received) == (0, 0)


def test_an_unknown_site_cannot_be_booked() -> None:
    with pytest.raises(KeyError):
        Ledger(("a",), 11, 30).book(TASK, update("b", 5, Cost()))
