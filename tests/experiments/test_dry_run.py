"""The dry run predicts the seconds, bytes and joules of a run with a virtual clock."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from sheaf.core.task import Task, Update
from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.experiments.dry_run import dry_run
from sheaf.experiments.setup import prepare
from sheaf.fleets.local.dry_run import MEASURED
from sheaf.runtime.costs import Ledger

SHORT = ("data.limit=400", "data.limit_test=100", "fleet.devices.mix={'raspberry-pi-4+lte' = 1}")
METHODS = {
    "ecavg": ("method.pretrain.epochs=3", "method.finetune.epochs=2", "method.retrain.epochs=3"),
    "heterofl": ("method={name='heterofl'}", "method.rounds=2", "fleet.widths.edge-1=0.5"),
    "decoupled": ("method=decoupled", "method.train.epochs=3", "method.share={fraction=0.5}"),
}
LIMITS = (
    "fleet.work.edge-1=0.3",
    "fleet.shares.edge-2=0.1",
    "fleet.codecs={edge-1='bfloat16', edge-2='int8'}",
)


@pytest.mark.parametrize(("method", "jitter"), [("ecavg", 0.0), ("heterofl", 0.2), ("decoupled", 0.0)])
def test_seconds_bytes_and_joules_are_those_of_the_clocks_run(
    method: str, jitter: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes exactly, given the digits of the losses; jitter is seeded, and so it is the same."""
    changes = [*SHORT, *METHODS[method], *LIMITS, f"fleet.devices.jitter={jitter}"]
    experiment = load_experiment("ecavg-digits", changes)
    ledger, timeline = dry_run(prepare(experiment))
    digits: dict[str, int] = defaultdict(int)  # of losses, which the dry run cannot know
    book = Ledger.book

    def listen(own: Ledger, task: Task, update: Update) -> None:
        digits[update.site] += sum(
            len(repr(loss)) - len(repr(MEASURED)) for loss in update.metrics.get("losses", ())
        )
        book(own, task, update)

    monkeypatch.setattr(Ledger, "book", listen)
    result = runs.run(experiment, out=tmp_path / "run")
    assert timeline is not None
    assert result.time is not None
    predicted, spent = timeline.record([]), result.time
    assert predicted.spent.seconds == pytest.approx(spent.spent.seconds, rel=1e-3)
    assert predicted.spent.joules == pytest.approx(spent.spent.joules, rel=1e-3)
    for site in result.split:
        assert ledger.sites[site].bytes_sent + digits[site] == result.cost[site].bytes_sent
        assert ledger.sites[site].bytes_received == result.cost[site].bytes_received
        assert predicted.sites[site].computing == pytest.approx(spent.sites[site].computing, abs=1e-5)
    last = [[call.last for call in record.calls if call.kind == "train"] for record in (predicted, spent)]
    assert last[0] == last[1]
