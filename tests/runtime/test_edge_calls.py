"""The quorum of usable updates."""

from __future__ import annotations

from pathlib import Path

import pytest
from rig import RECIPE, Fleet, Rig, not_finite, theta, too_wide
from support import one_line

from sheaf.core.errors import QuorumError


@pytest.mark.parametrize(("quorum", "enough"), [(0.01, True), (0.5, True), (0.51, False), (1.0, False)])
def test_too_few_usable_updates_are_an_error(tmp_path: Path, quorum: float, enough: bool) -> None:
    fleet = Fleet(tmp_path / "sites", says={"a": not_finite, "d": None})  # d gives no answer
    with Rig(tmp_path, fleet, quorum) as rig:
        if enough:
            assert len(rig.edges.train(theta(), RECIPE)) == 2
            return
        with pytest.raises(QuorumError, match="of 4 edges") as error:
            rig.edges.train(theta(), RECIPE)
        why = "a: 1.weight has values" if quorum == 0.51 else "d: it gave no answer"
        assert f"fleet.quorum = {quorum:g} needs {3 if quorum == 0.51 else 4};" in one_line(error)
        assert f"({why}" in one_line(error)


def test_a_quorum_error_names_only_the_refusals_of_its_call(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "sites", says={"a": not_finite})
    with Rig(tmp_path, fleet) as rig:
        rig.edges.train(theta(), RECIPE)
        fleet._says = dict.fromkeys("cdb", too_wide)
        with pytest.raises(QuorumError, match="1 of 4") as error:
            rig.edges.train(theta(), RECIPE)
        assert "not finite" not in one_line(error)
        assert "c: 1.bias" in one_line(error)
