"""On a fleet, an experiment must name how many samples leave the devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import one_line

from sheaf.core.errors import SettingError
from sheaf.experiments.config import load_experiment
from sheaf.experiments.named_share import load_for_fleet


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("ecavg-digits", ()),
        ("ecavg-digits", ("method.share=",)),
        ("ecavg-digits", ("method=central",)),
        ("default", ("method=ecavg_plus", "method=central")),
    ],
)
def test_a_share_that_is_not_named_is_refused(source: str, changes: tuple[str, ...]) -> None:
    load_experiment(source, changes)
    with pytest.raises(SettingError, match=r"sends 100 % of each device's training samples .*--set") as error:
        load_for_fleet(source, changes)
    one_line(error)


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("ecavg-digits", ("method.share.fraction=1",)),
        ("ecavg-digits", ("method.share={fraction = 0.1}",)),
        ("ecavg-digits", ('method={name = "central", share = {count = 9}}',)),
        ("ecavg-digits", ("method=decoupled",)),
        ("default", ()),
        ("fedavg-fleet", ()),
    ],
)
def test_a_named_share_is_accepted_and_so_is_a_method_that_shares_nothing(
    source: str, changes: tuple[str, ...]
) -> None:
    assert load_for_fleet(source, changes) == load_experiment(source, changes)


def test_an_experiment_in_python_has_its_share(tmp_path: Path) -> None:
    experiment = load_experiment("ecavg-digits")
    assert load_for_fleet(experiment) == experiment
