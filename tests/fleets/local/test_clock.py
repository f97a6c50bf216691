"""The virtual clock: durations of tasks, slow and absent devices, and what a killed run resumes to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import QuorumError
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.task import Absence, Task, Times, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import message_bytes
from sheaf.experiments import run as runs
from sheaf.experiments.config import load_experiment
from sheaf.experiments.execution import STOPPED
from sheaf.fleets.absences import late
from sheaf.fleets.local.clock import ClockedFleet
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.profiles.assignment import Devices, DevicesSettings
from sheaf.profiles.presence import Presence
from sheaf.profiles.profile import DeviceProfile, LinkProfile, Profile
from sheaf.runtime.journal import Journal
from sheaf.runtime.timeline import TimedSite, Timeline
from sheaf.runtime.worker import Worker
from sheaf.training.network import Network

SITES = ("slow", "fast", "cloud")
RECIPE = Recipe(epochs=2, batch_size=8)
LINK = LinkProfile(up=1e3, down=2e3, delay_up=0.5, delay_down=0.25, watts_sending=3.0)
SPEEDS = {"slow": 1e4, "fast": 1e5, "cloud": 1e6}


def profiles() -> dict[str, Profile]:
    return {
        site: Profile(
            site,
            DeviceProfile(macs_per_second={"float32": speed}, memory=1e9, watts_idle=1.0, watts_busy=5.0),
            None if site == "cloud" else LINK,
        )
        for site, speed in SPEEDS.items()
    }


class Clocked:
    """A fleet of two devices and the cloud with a clock, and what is needed to look into it."""

    def __init__(
        self,
        folder: Path,
        changes: Mapping[str, list[float]] | None = None,
        deadline: float = 1e6,
        quorum: float = 0.5,
        **settings: Any,
    ) -> None:
        inputs = torch.randint(256, (40, 1, 4, 4), generator=generator(2), dtype=torch.uint8)
        pool = Samples.of(inputs, torch.arange(40) % 3)
        data = Dataset("tiny", pool, pool, ("a", "b", "c"), (0.5,), (0.25,), "")
        self.network = Network(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
        self.start = Blob.of({name: value.clone() for name, value in self.network.model.state_dict().items()})
        workers = [
            Worker(site, self.network, data, pool.select(torch.arange(0)), folder / site) for site in SITES
        ]
        self.workers = {worker.name: worker for worker in workers}
        traced = {site: [] for site in SITES} | dict(changes) if changes else {}
        devices = Devices(
            profiles(), Presence(traced), DevicesSettings(jitter=settings.pop("jitter", 0.0), **settings)
        )
        self.timeline = Timeline({site: TimedSite(site, 1.0) for site in SITES}, lambda: 0)
        self.fleet = ClockedFleet(LocalFleet(workers), devices, self.timeline, deadline, quorum)

    def tasks(self, kind: str = "train", call: int = 1, **fields: Any) -> dict[str, Task]:
        recipe = RECIPE if kind == "train" else None
        blob = None if kind in ("collect",) else self.start
        return {site: Task(kind, call, 7 + k, blob, recipe, **fields) for k, site in enumerate(SITES)}

    def run(self, tasks: dict[str, Task], only: tuple[str, ...] = SITES) -> dict[str, Update | Absence]:
        """Run a call, of which some answers are journaled already, and end it."""
        answers = {each.site: each for each in self.fleet.run({site: tasks[site] for site in only}, tasks)}
        if only == SITES:
            self.timeline.add(next(iter(tasks.values())).call, "train", answers)
        return answers


def test_a_task_takes_its_bytes_and_multiply_adds(tmp_path: Path) -> None:
    clocked = Clocked(tmp_path)
    tasks = clocked.tasks()
    answers = clocked.run(tasks)
    macs = 2 * 40 * 3 * 16 * 2  # epochs, images; the first layer needs no gradient of its input
    for site in ("slow", "fast"):
        update, times = answers[site], answers[site].times
        assert isinstance(update, Update)
        assert times is not None
        assert update.cost.train_macs == macs
        assert times == Times(
            0.0,
            0.25 + message_bytes(tasks[site]) / 2e3,
            macs / SPEEDS[site],
            0.5 + message_bytes(update) / 1e3,
            pytest.approx(times.download + 5 * times.work + 4 * times.upload),
        )
    assert answers["cloud"].times == Times(0.0, 0.0, macs / 1e6, 0.0, pytest.approx(5 * macs / 1e6))
    assert clocked.timeline.now == answers["slow"].times.end  # type: ignore[union-attr]
    evaluated = clocked.run(clocked.tasks("evaluate", 2))["fast"].times
    assert evaluated is not None
    assert evaluated.start == answers["slow"].times.end  # type: ignore[union-attr]
    assert evaluated.work == 40 * 3 * 16 / 1e5


def test_evaluations_take_no_time_if_the_settings_say_so(tmp_path: Path) -> None:
    clocked = Clocked(tmp_path, evaluation=False)
    assert clocked.run(clocked.tasks("evaluate"))["slow"].times == Times(0.0, joules=0.0)
    assert clocked.timeline.now == 0


def test_times_do_not_depend_on_the_order_of_computing(tmp_path: Path) -> None:
    """Of a resumed call too: some answers are in the journal."""
    whole = Clocked(tmp_path / "whole", jitter=0.3)
    tasks = whole.tasks()
    expected = {site: answer.times for site, answer in whole.run(tasks).items()}
    assert whole.timeline.now > 0
    for number, part in enumerate(itertools.permutations(SITES, 2)):
        other = Clocked(tmp_path / str(number), jitter=0.3)
        found = other.run({site: tasks[site] for site in reversed(SITES)}, part)
        assert {site: answer.times for site, answer in found.items()} == {
            site: expected[site] for site in part
        }
    slow, fast = expected["slow"], expected["fast"]
    assert slow is not None
    assert fast is not None
    assert slow.download != fast.download  # of equal bytes: the jitter differs
    assert slow.download == pytest.approx(fast.download, rel=2)


def test_a_slow_device_gives_the_absence_of_a_real_one_and_does_not_train(tmp_path: Path) -> None:
    clocked = Clocked(tmp_path, deadline=2.0)
    answers = clocked.run(clocked.tasks())
    assert isinstance(answers["fast"], Update)
    slow = answers["slow"]
    assert isinstance(slow, Absence)
    assert slow.why == late(2.0) == "no update within 2 s; raise fleet.deadline for slower devices"
    assert slow.times is not None
    assert slow.times.end == 2.0 == clocked.timeline.now
    assert clocked.workers["slow"].store.before(2) is None
    assert isinstance(answers["cloud"], Update)


def test_an_answer_that_is_late_in_its_upload_leaves_no_model(tmp_path: Path) -> None:
    """A resumed run reads the absence from the journal, and trains nothing."""
    times = Clocked(tmp_path / "whole").run(Clocked(tmp_path / "tasks").tasks())["slow"].times
    assert times is not None
    clocked = Clocked(tmp_path / "late", deadline=times.end - 0.1)
    answer = clocked.run(clocked.tasks())["slow"]
    assert isinstance(answer, Absence)
    assert answer.times is not None
    assert answer.times.upload == pytest.approx(times.upload - 0.1)
    assert clocked.workers["slow"].store.before(2) is None
    assert clocked.workers["fast"].store.before(2) is not None


def test_a_device_that_leaves_is_silent_and_one_that_is_back_soon_is_not_missed(tmp_path: Path) -> None:
    gone = Clocked(tmp_path / "gone", {"slow": [1.0, 11.5]}).run(Clocked(tmp_path / "t").tasks())["slow"]
    assert isinstance(gone, Absence)
    assert gone.why == "no reply for 10 s (not connected)"
    assert gone.times is not None
    assert gone.times.end == 11.0  # left after 1 s, and the cloud tries for 10 s
    assert gone.times.joules == pytest.approx(gone.times.download + 5 * (1 - gone.times.download) + 10)
    back = Clocked(tmp_path / "back", {"slow": [1.0, 10.5]}).run(Clocked(tmp_path / "u").tasks())["slow"]
    assert isinstance(back, Update)


def test_a_call_starts_when_its_quorum_is_connected(tmp_path: Path) -> None:
    away = {"slow": [0.0, 30.0], "fast": [0.0, 20.0, 25.0]}
    half = Clocked(tmp_path / "half", away, quorum=0.6)
    answers = half.run(half.tasks())
    assert answers["fast"].times is not None
    assert answers["fast"].times.start == 20.0
    assert answers["slow"] == Absence("slow", "not connected", Times(20.0, joules=0.0))
    never = Clocked(tmp_path / "never", away, quorum=1.0)  # fast is away when slow is back
    answers = never.run(never.tasks())
    assert {site for site, answer in answers.items() if isinstance(answer, Absence)} == {"slow", "fast"}
    assert never.timeline.now == pytest.approx(2 * 40 * 96 * 2 / 2 / 1e6, rel=2)


CLOCK = [
    "data.limit=400",
    "data.limit_test=50",
    "partition=iid",
    "partition.edges=6",
    "method=fedavg",
    "method.rounds=4",
    "fleet.devices.edges={edge-1 = 'raspberry-pi-4+lora'}",
    "fleet.devices.mix={'raspberry-pi-4+lte' = 1, 'jetson-nano+wifi' = 1}",
    "fleet.devices.jitter=0.2",
    "fleet.devices.on=3000",
    "fleet.devices.off=600",
    "fleet.deadline=9000",
    "fleet.quorum=0.3",
]


@pytest.mark.parametrize("answered", [1, 9, 14])
def test_a_run_killed_in_mid_round_resumes_to_the_same_bits_and_the_same_clock(
    answered: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load_experiment("ecavg-digits", CLOCK)
    whole = runs.run(experiment, out=tmp_path / "whole")
    assert whole.time is not None
    assert any(call.absent for call in whole.time.calls)
    record, count = Journal.record, itertools.count(1)

    def unplugged(journal: Journal, task: Task, update: Update, flaw: str | None = None) -> Update:
        if next(count) > answered:
            raise KeyboardInterrupt
        return record(journal, task, update, flaw)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "check_memory", lambda setup: None)  # its dry run journals, too
        patch.setattr(Journal, "record", unplugged)
        with pytest.raises(KeyboardInterrupt):
            runs.run(experiment, out=tmp_path / "broken")
    resumed = runs.resume(tmp_path / "broken")
    assert resumed.rows == whole.rows
    assert resumed.refused == whole.refused
    assert resumed.time == whole.time
    for file in whole.weights.values():
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_clock_alters_no_bit_and_the_cloud_waits_for_the_slowest(tmp_path: Path) -> None:
    devices = ["fleet.devices.edges={edge-1 = 'raspberry-pi-4+lora'}", "fleet.devices.mix={laptop = 1}"]
    plain = runs.run(load_experiment("ecavg-digits", CLOCK[:6]), out=tmp_path / "plain")
    timed = runs.run(
        load_experiment("ecavg-digits", [*CLOCK[:6], *devices, "fleet.deadline=1e6"]), out=tmp_path / "timed"
    )
    assert plain.time is None
    assert timed.time is not None
    assert timed.time.virtual
    assert timed.rows == plain.rows
    for file in plain.weights.values():
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "timed" / file).read_bytes()
    training = [call for call in timed.time.calls if call.kind == "train"]
    assert len(training) == 4
    assert {call.last for call in training} == {"edge-1"}
    own = timed.time.sites["edge-2"]
    assert own.idle > 0.99
    assert own.receiving + own.computing + own.sending + own.waiting + own.away == pytest.approx(
        timed.time.spent.seconds, abs=1e-4
    )
    assert len(timed.time.measured) == len(timed.rows)
    seconds = [spent.seconds for spent in timed.time.measured]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < seconds[-1]
    assert timed.time.spent.joules == pytest.approx(
        sum(site.joules or 0 for name, site in timed.time.sites.items() if name != "cloud"), rel=1e-6
    )


def test_a_quorum_that_leaves_stops_the_run_with_the_message_of_a_real_fleet(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("".join(f"edge-{number},0.0001,off\n" for number in range(1, 7)))
    changes = [*CLOCK[:6], "fleet.devices.mix={'raspberry-pi-4+lte' = 1}", f"fleet.devices.trace={trace}"]
    with pytest.raises(QuorumError, match=r"0 of 6 edges answered a train call.*no reply for 10 s \(not"):
        runs.run(load_experiment("ecavg-digits", changes), out=tmp_path / "run")


def test_a_run_stops_at_its_budget(tmp_path: Path) -> None:
    changes = [*CLOCK[:6], "fleet.devices.mix={'raspberry-pi-4+lte' = 1}"]
    whole = runs.run(load_experiment("ecavg-digits", changes), out=tmp_path / "whole")
    assert whole.time is not None
    seconds = [spent.seconds for spent in whole.time.measured]
    limit = seconds[1] + 1e-3  # of the second round
    short = runs.run(
        load_experiment("ecavg-digits", [*changes, f"fleet.stop_at.seconds={limit}"]), out=tmp_path / "s"
    )
    assert short.time is not None
    rounds = [row.round for row in short.rows]
    assert 2 in rounds
    assert max(rounds) < 4
    own = [row for row in short.rows if row.stage != STOPPED]
    assert own == whole.rows[: len(own)]
    assert {row.site for row in short.rows[len(own) :]} == set(short.split)
    traffic = whole.time.measured[0].bytes
    without_clock = load_experiment("ecavg-digits", [*CLOCK[:6], f"fleet.stop_at.bytes={traffic}"])
    stopped = runs.run(without_clock, out=tmp_path / "bytes")
    assert {row.round for row in stopped.rows} == {1}
