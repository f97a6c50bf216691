"""The lines on real devices that have the run's model or keep their own."""

from __future__ import annotations

from sheaf.report.replacements import replacement_lines
from sheaf.runtime.result import Replacement


def test_devices_that_keep_their_model_are_named_with_the_reason() -> None:
    assert replacement_lines({}) == []
    worse = Replacement(replaced=False, held_out=0.5, before=0.9, samples=40, why="held-out accuracy\n0.5")
    lines = replacement_lines({"shop-1": Replacement(replaced=True), "shop-2": worse})
    assert lines == [
        "the run's model is current on 1 of 2 devices",
        "shop-2 keeps its model: held-out accuracy\\n0.5",
    ]
    many = {f"shop-{n}": worse for n in range(1000)}
    assert len(replacement_lines(many)) < 50
    assert replacement_lines(many)[-1].endswith("more; --all lists them")
    assert len(replacement_lines(many, every=True)) == 1001
