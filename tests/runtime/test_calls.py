"""The seam as a method sees it: order, refusals, quorum, and a journal that spares the sites."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import one_line
from torch import Tensor, nn

from sheaf.core.cut import Cut
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import CutError, QuorumError, TrainingError
from sheaf.core.recipe import Recipe, Share, Statistic
from sheaf.core.seeds import generator, seed_for
from sheaf.core.task import Absence, Task, Update
from sheaf.core.tensor_file import Blob
from sheaf.core.types import CLOUD
from sheaf.core.wire_format import decode_samples, message_bytes
from sheaf.fleets.local.fleet import LocalFleet
from sheaf.merges.average import average
from sheaf.merges.rules.mean import Mean
from sheaf.merges.rules.regmean import Regmean
from sheaf.models import flops
from sheaf.runtime.calls import Calls
from sheaf.runtime.cloud import Cloud
from sheaf.runtime.costs import Ledger
from sheaf.runtime.edges import Edges
from sheaf.runtime.journal import Journal
from sheaf.runtime.observer import NullObserver
from sheaf.runtime.result import Refusal
from sheaf.runtime.worker import Worker
from sheaf.submodels.scheme import SiteNeeds
from sheaf.submodels.schemes.by_class import ByClass
from sheaf.submodels.schemes.prefix import Prefix
from sheaf.training.network import Network

RECIPE = Recipe(batch_size=8)
SITES = ("c", "a", "d", "b")


def model(seed: int = 4) -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    draws = generator(seed)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1, generator=draws)
    return made


def network() -> Network:
    return Network(model(), (1, 4, 4))


def theta() -> dict[str, Tensor]:
    return model().state_dict()


def drawn(seed: int) -> dict[str, Tensor]:
    return model(seed).state_dict()


def dataset() -> Dataset:
    inputs = torch.randint(256, (48, 1, 4, 4), generator=generator(2), dtype=torch.uint8)
    everything = Samples.of(inputs, torch.arange(48) % 3)
    return Dataset("tiny", everything, everything, ("a", "b", "c"), (0.5,), (0.25,), "")


def workers(folder: Path) -> list[Worker]:
    data = dataset()
    parts = torch.arange(48).split(12)
    return [
        Worker(
            site,
            network(),
            replace(data, train=data.train.select(part)),
            data.train.select(part[:0]),
            folder / site,
        )
        for site, part in zip(SITES, parts, strict=True)
    ]


class Fleet(LocalFleet):
    """Counts what it is asked, answers in shuffled order, and says what it is told to instead of the truth.

    Args:
        says: site -> what becomes of its answer; None for no answer at all.
    """

    def __init__(self, folder: Path, seed: int = 0, says: Mapping[str, object] | None = None) -> None:
        super().__init__(workers(folder))
        self.asked: list[tuple[int, str]] = []
        self._order = random.Random(seed)
        self._says = says or {}

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        self.asked += [(task.call, site) for site, task in tasks.items()]
        shuffled = dict(self._order.sample(list(tasks.items()), len(tasks)))
        for update in super().run(shuffled, call):
            says = self._says.get(update.site, lambda params: params)
            if callable(says):
                sent = says(update.params) if update.blob and update.kind == "train" else None
                yield update if sent is None else replace(update, blob=Blob.of(sent))


class Listener(NullObserver):
    """Keeps what it is told of calls, answers and refusals."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def began(self, kind: str, sites: Sequence[str]) -> None:
        self.told.append((kind, tuple(sites)))

    def answered(self, site: str) -> None:
        self.told.append((site,))

    def refused(self, site: str, why: str) -> None:
        self.told.append((site, why))


class Rig:
    """The seam over a fleet, with all that stands behind it."""

    def __init__(
        self,
        folder: Path,
        fleet: LocalFleet | None = None,
        quorum: float = 0.5,
        needs: Sequence[SiteNeeds] = (),
    ) -> None:
        self.fleet = fleet or Fleet(folder / "sites")
        self.journal = Journal(folder / "journal", {})
        self.ledger = Ledger(SITES, 0, 0)
        self.observer = Listener()
        self.calls = Calls(5, self.journal, self.ledger, self.observer)
        needs = needs or [SiteNeeds(site, (0, 1, 2)) for site in SITES]
        self.edges = Edges(self.calls, self.fleet, network(), needs, quorum, drawn)

    def __enter__(self) -> Rig:
        self.journal.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.journal.__exit__(*error)


def merged_bits(rig: Rig, rounds: int = 2) -> str:
    params = theta()
    for _ in range(rounds):
        params = dict(rig.edges.merge(Mean(), params, rig.edges.train(params, RECIPE)))
    return Blob.of(params).sha256


def test_only_answers_that_cannot_be_had_again_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sheaf.runtime.journal.TOGETHER", 1000.0)
    with Rig(tmp_path) as rig:

        def durable() -> int:
            return (tmp_path / "journal" / "journal.jsonl").read_bytes().count(b"\n") - 1

        rig.edges.train(theta(), RECIPE)
        rig.edges.adopt(theta())
        assert durable() == 0
        rig.edges.train(None, RECIPE)
        assert durable() == 3 * len(SITES)
        rig.edges.train(theta(), RECIPE)
        rig.edges.evaluate()
        assert durable() == 5 * len(SITES)


def test_whatever_order_the_answers_come_in_the_merged_bits_are_the_same(tmp_path: Path) -> None:
    found = set()
    for seed in range(4):
        with Rig(tmp_path / str(seed), Fleet(tmp_path / f"sites-{seed}", seed)) as rig:
            answers = rig.edges.train(theta(), RECIPE)
            assert [answer.site for answer in answers] == list(SITES)
            found.add(merged_bits(rig))
            assert len(rig.fleet.asked) == 3 * len(SITES)
    assert len(found) == 1
    with Rig(tmp_path / "local", LocalFleet(workers(tmp_path / "local-sites"))) as rig:
        rig.edges.train(theta(), RECIPE)
        assert {merged_bits(rig)} == found


def test_edges_may_begin_with_weights_of_their_own_draw(tmp_path: Path) -> None:
    starts: dict[str, list[str]] = {site: [] for site in SITES}

    class Listening(Fleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            for site, task in tasks.items():
                assert task.blob is not None
                starts[site].append(task.blob.sha256)
            return super().run(tasks, call)

    for again in ("once", "twice"):
        with Rig(tmp_path / again, Listening(tmp_path / f"sites-{again}")) as rig:
            assert len(rig.edges.train(theta(), RECIPE, own_start=True)) == len(SITES)
    assert all(once == twice for once, twice in starts.values())
    assert len({once for once, _ in starts.values()} | {Blob.of(theta()).sha256}) == len(SITES) + 1
    with pytest.raises(ValueError, match="for a start"):
        rig.edges.train(None, RECIPE, own_start=True)


def test_every_call_and_site_has_a_seed_of_its_own(tmp_path: Path) -> None:
    seeds = []

    class Listening(Fleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            seeds.extend((task.seed, task.call, site) for site, task in tasks.items())
            return super().run(tasks, call)

    with Rig(tmp_path, Listening(tmp_path / "sites")) as rig:
        merged_bits(rig)
    assert len({seed for seed, _, _ in seeds}) == len(seeds) == 8
    assert all(seed == seed_for(5, "call", call, site) for seed, call, site in seeds)


def test_what_is_in_the_journal_is_not_asked_again(tmp_path: Path) -> None:
    with Rig(tmp_path) as first:
        bits = merged_bits(first)
    with Rig(tmp_path, Fleet(tmp_path / "sites", seed=9)) as second:
        assert merged_bits(second) == bits
        assert second.fleet.asked == []
        assert second.observer.told == [], "nobody is told of work that is not done"
        assert second.ledger.sites == first.ledger.sites
        second.edges.evaluate()
        assert second.fleet.asked == [(3, site) for site in SITES]
        assert second.observer.told[0] == ("evaluate", SITES)
        assert sorted(second.observer.told[1:]) == sorted((site,) for site in SITES)


def test_only_the_sites_without_an_answer_are_asked(tmp_path: Path) -> None:
    with Rig(tmp_path) as first:
        bits = merged_bits(first)
    lines = (tmp_path / "journal" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal" / "journal.jsonl").write_bytes(b"".join(lines[:-2]))
    with Rig(tmp_path) as second:
        assert merged_bits(second) == bits
        assert len(second.fleet.asked) == 2
        assert {call for call, _ in second.fleet.asked} == {2}


def test_a_sample_of_edges_is_drawn_anew_and_repeats(tmp_path: Path) -> None:
    drawn = []
    for run in ("a", "b"):
        with Rig(tmp_path / run) as rig:
            each = []
            for _ in range(6):
                each.append(rig.edges.sample(SITES, 0.5))
                rig.edges.adopt(theta())
            drawn.append(each)
            assert rig.edges.sample(SITES, 0.01) != []
            assert rig.edges.sample(SITES, 1.0) == list(SITES)
    assert drawn[0] == drawn[1]
    assert all(len(set(names)) == 2 and names == [s for s in SITES if s in names] for names in drawn[0])
    assert len({tuple(names) for names in drawn[0]}) > 1


def test_bytes_are_those_of_the_messages(tmp_path: Path) -> None:
    sent: dict[str, int] = dict.fromkeys(SITES, 0)
    received: dict[str, int] = dict.fromkeys(SITES, 0)

    class Weighing(Fleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            for update in super().run(tasks, call):
                if update.kind in ("train", "adopt", "share"):
                    received[update.site] += message_bytes(tasks[update.site])
                    sent[update.site] += message_bytes(update)
                yield update

    with Rig(tmp_path, Weighing(tmp_path / "sites")) as rig:
        rig.edges.share(Share(fraction=0.5))
        rig.edges.train(theta(), RECIPE)
        booked = {site: replace(spent) for site, spent in rig.ledger.sites.items()}
        rig.edges.evaluate()  # these two are no part of a method
        rig.edges.collect()
        assert rig.ledger.sites == booked
        rig.edges.adopt(theta())
        for site in SITES:
            assert rig.ledger.sites[site].bytes_sent == sent[site]
            assert rig.ledger.sites[site].bytes_received == received[site]
        assert rig.ledger.sites[CLOUD].bytes_received == sum(sent.values())
        assert rig.ledger.sites[CLOUD].bytes_sent == sum(received.values())


def not_finite(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**params, "1.weight": params["1.weight"] * float("nan")}


def too_wide(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**params, "1.bias": torch.zeros(1)}


@pytest.mark.parametrize(
    ("spoiled", "why"),
    [
        ({".gram.1.weight": torch.full((16, 16), torch.inf)}, "1.weight has values that are not finite"),
        ({".gram.1.weight": torch.eye(4)}, "1.weight has shape (4, 4) instead of (16, 16)"),
        ({".gram.1.weight": torch.eye(16).double()}, "1.weight is torch.float64 instead of torch.float32"),
        ({".gram.1.weight": None}, "1.weight is missing"),
        ({".x": torch.eye(16)}, "x is not a parameter of the model"),
    ],
)
def test_a_statistic_that_cannot_be_used_is_refused_by_name(tmp_path: Path, spoiled, why: str) -> None:
    class Spoils(LocalFleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            for update in super().run(tasks, call):
                if update.site == "a" and update.blob is not None:
                    sent = update.blob.open() | spoiled
                    blob = Blob.of({name: value for name, value in sent.items() if value is not None})
                    update = replace(update, blob=blob)
                yield update

    with Rig(tmp_path, Spoils(workers(tmp_path / "sites"))) as rig:
        usable = rig.edges.train(theta(), RECIPE, statistic=Statistic("gram"))
        assert [update.site for update in usable] == ["c", "d", "b"]
        assert [(one.site, one.why) for one in rig.calls.refused] == [("a", f"its gram statistic: {why}")]
        merged = rig.edges.merge(Regmean(), theta(), usable)
        assert all(torch.isfinite(value).all() for value in merged.values())


def test_what_cannot_be_merged_is_refused_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    with Rig(tmp_path, Fleet(tmp_path / "sites", says={"a": not_finite, "d": too_wide})) as rig:
        usable = rig.edges.train(theta(), RECIPE)
        assert [update.site for update in usable] == ["c", "b"]
        assert [(one.call, one.site, one.why) for one in rig.calls.refused] == [
            (1, "a", "1.weight has values that are not finite"),
            (1, "d", "1.bias has shape (1,) instead of (8,)"),
        ]
        merged = rig.edges.merge(Mean(), theta(), usable)
    assert all(torch.isfinite(value).all() for value in merged.values())
    with Rig(tmp_path) as again:
        found = again.edges.merge(Mean(), theta(), again.edges.train(theta(), RECIPE))
        assert Blob.of(found).sha256 == Blob.of(merged).sha256
        assert [told for told in rig.observer.told if told[0] in SITES and len(told) == 2] == [
            (one.site, one.why) for one in rig.calls.refused
        ]
        assert again.calls.refused == rig.calls.refused, "a refusal is found again in the journal"


@pytest.mark.parametrize(("quorum", "enough"), [(0.01, True), (0.5, True), (0.51, False), (1.0, False)])
def test_quorum(tmp_path: Path, quorum: float, enough: bool) -> None:
    fleet = Fleet(tmp_path / "sites", says={"a": not_finite, "d": None})  # d does not answer
    with Rig(tmp_path, fleet, quorum) as rig:
        if enough:
            assert len(rig.edges.train(theta(), RECIPE)) == 2
            return
        with pytest.raises(QuorumError, match="of 4 edges") as error:
            rig.edges.train(theta(), RECIPE)
        why = "a: 1.weight has values" if quorum == 0.51 else "d: it gave no answer"
        assert f"asks for {3 if quorum == 0.51 else 4} ({why}" in one_line(error)


def absent(site: str) -> Absence:
    return Absence(site, "its battery is empty")


class Partial(Fleet):
    """Sites that are absent from certain calls: call -> which sites."""

    def __init__(self, folder: Path, absences: Mapping[int, Sequence[str]]) -> None:
        super().__init__(folder)
        self.absences = absences
        self.tasks: list[tuple[str, Task]] = []

    def run(
        self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None
    ) -> Iterator[Update | Absence]:
        self.tasks += tasks.items()
        gone = [site for site, task in tasks.items() if site in self.absences.get(task.call, ())]
        yield from map(absent, gone)
        yield from super().run({site: task for site, task in tasks.items() if site not in gone})


def test_a_call_goes_on_without_the_absent_and_says_who_they_were(tmp_path: Path) -> None:
    fleet = Partial(tmp_path / "sites", {1: "a", 2: "ab"})
    with Rig(tmp_path, fleet) as rig:
        assert [update.site for update in rig.edges.train(theta(), RECIPE)] == ["c", "d", "b"]
        assert [update.site for update in rig.edges.evaluate()] == ["c", "d"]
        told = [(refusal.call, refusal.site) for refusal in rig.calls.refused]
        assert told == [(1, "a"), (2, "a"), (2, "b")]
    with Rig(tmp_path, Partial(tmp_path / "sites", {})) as again:
        assert [update.site for update in again.edges.train(theta(), RECIPE)] == ["c", "d", "b"]
        assert [update.site for update in again.edges.evaluate()] == ["c", "d"]
        assert again.calls.refused == rig.calls.refused
        assert again.fleet.asked == [], "who was left out stays out of a call that is over"


@pytest.mark.parametrize("kind", ["train", "adopt", "evaluate", "share", "collect"])
def test_every_call_needs_the_quorum(tmp_path: Path, kind: str) -> None:
    calls = {
        "train": lambda edges: edges.train(theta(), RECIPE),
        "adopt": lambda edges: edges.adopt(theta()),
        "evaluate": lambda edges: edges.evaluate(),
        "share": lambda edges: edges.share(Share(fraction=0.5)),
        "collect": lambda edges: edges.collect(),
    }
    fleet = Partial(tmp_path / "sites", {2: "abc"})
    with Rig(tmp_path, fleet) as rig:
        rig.edges.adopt(theta())
        with pytest.raises(QuorumError, match=r"1 of 4 edges answered a .* battery is empty") as error:
            calls[kind](rig.edges)
        one_line(error)
    fleet = Partial(tmp_path / "sites", {})
    with Rig(tmp_path, fleet) as again:
        again.edges.adopt(theta())
        calls[kind](again.edges)
        assert sorted(site for site, task in fleet.tasks) == ["a", "b", "c"], "the answer of d is journaled"
        assert again.calls.refused == []


def test_an_edge_that_missed_a_model_is_given_it_when_it_is_back(tmp_path: Path) -> None:
    fleet = Partial(tmp_path / "sites", {2: "a", 3: "b"})
    with Rig(tmp_path, fleet) as rig:
        rig.edges.adopt(theta())
        other = {name: value + 1 for name, value in theta().items()}
        rig.edges.adopt(other)
        rig.edges.train(None, RECIPE)  # b misses this, but holds what it was given
        rig.edges.evaluate()
        brought = {(task.call, site): task.blob for site, task in fleet.tasks if task.call > 2}
        assert {key for key, blob in brought.items() if blob is not None} == {(3, "a")}
        assert brought[3, "a"] == Blob.of(other)


def test_an_edge_that_was_away_when_it_should_have_remembered_takes_what_it_is_given(tmp_path: Path) -> None:
    fleet = Partial(tmp_path / "sites", {2: "ab", 3: "b", 4: "b"})
    given = {name: value + 1 for name, value in theta().items()}
    with Rig(tmp_path, fleet) as rig:
        rig.edges.adopt(theta())
        own = rig.edges.remember()  # neither a nor b is there
        rig.edges.adopt(given)  # b misses this too
        received = rig.edges.remember()
        for since in (received, own):
            chosen = {update.site: update.metrics for update in rig.edges.choose(since, ())}
            assert chosen["c"]["mixture"] == 0.0, "without mixtures an edge is rolled back"
            assert chosen["a"]["mixture"] == (0.0 if since == received else 1.0)
            assert chosen["b"]["mixture"] == 1.0
        held = {update.site: Blob.of(update.params).sha256 for update in rig.edges.collect()}
    assert held["a"] == held["b"] == Blob.of(given).sha256
    assert held["c"] == held["d"] == Blob.of(theta()).sha256
    assert rig.calls.refused == [
        Refusal(call=call, site=site, why="its battery is empty") for call, site in AWAY
    ]


AWAY = ((2, "a"), (2, "b"), (3, "b"), (4, "b"))


def test_what_was_not_asked_for_is_refused_by_name(tmp_path: Path) -> None:
    class Confused(Fleet):
        def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
            for update in super().run(tasks, call):
                yield {
                    "a": replace(update, kind="share"),
                    "b": replace(update, site="mallory"),
                    "c": replace(update, blob=Blob(b"no tensors", "", 10)),
                }.get(update.site, update)
                if update.site == "d":
                    yield update  # once more

    with Rig(tmp_path, Confused(tmp_path / "sites"), quorum=0.25) as rig:
        assert [update.site for update in rig.edges.train(theta(), RECIPE)] == ["d"]
        told = {refusal.site: refusal.why for refusal in rig.calls.refused}
    assert told["a"] == "it answered a train task with 'share'"
    assert told["mallory"] == "it answered what it was not asked"
    assert told["b"] == "it gave no answer"
    assert told["c"].startswith("its parameters cannot be read")


def test_a_quorum_error_tells_of_its_own_call_alone(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "sites", says={"a": not_finite})
    with Rig(tmp_path, fleet) as rig:
        rig.edges.train(theta(), RECIPE)
        fleet._says = dict.fromkeys("cdb", too_wide)
        with pytest.raises(QuorumError, match="1 of 4") as error:
            rig.edges.train(theta(), RECIPE)
        assert "not finite" not in one_line(error)
        assert "c: 1.bias" in one_line(error)


def test_nothing_is_merged_of_edges_that_do_not_answer_with_a_model(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        answers = rig.edges.train(theta(), RECIPE, reply=False)
        assert [answer.blob for answer in answers] == [None] * 4


def test_edges_go_on_from_what_they_adopted(tmp_path: Path) -> None:
    with Rig(tmp_path / "one") as one, Rig(tmp_path / "other") as other:
        one.edges.adopt(theta())
        other.edges.adopt({name: value + 1 for name, value in theta().items()})
        held = one.edges.train(None, RECIPE)
        given = other.edges.train(theta(), RECIPE)
        for a, b in zip(held, given, strict=True):
            assert a.blob is not None
            assert b.blob is not None
            assert a.blob.sha256 == b.blob.sha256


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[tuple[Rig, Cloud, Worker]]:
    data = dataset()
    nothing = data.train.select(torch.arange(0))
    worker = Worker(CLOUD, network(), replace(data, train=nothing), nothing, tmp_path / CLOUD)
    with Rig(tmp_path) as rig:
        yield rig, Cloud(rig.calls, worker, LocalFleet([worker])), worker


def test_the_cloud_trains_on_what_was_shared_in_the_order_of_the_edges(
    cloud: tuple[Rig, Cloud, Worker],
) -> None:
    rig, centre, worker = cloud
    centre.pool(rig.edges.share(Share()))
    data = dataset().train
    assert torch.equal(worker.data.train.labels, data.labels)
    assert torch.equal(worker.data.train.inputs, data.inputs)
    before = rig.ledger.sites[CLOUD].train_macs
    trained = centre.train(theta(), RECIPE, counted=False)
    assert rig.ledger.sites[CLOUD].train_macs == before == 0
    again = centre.train(theta(), RECIPE)
    assert rig.ledger.sites[CLOUD].train_macs == 48 * flops.train_macs_per_example(model(), (1, 4, 4)) > 0
    assert not torch.equal(trained["1.weight"], again["1.weight"]), "another call draws anew"
    (measured,) = centre.evaluate(again)
    assert torch.tensor(measured.metrics["confusion"]).sum() == 48


def test_a_cloud_that_diverged_says_so(cloud: tuple[Rig, Cloud, Worker]) -> None:
    rig, centre, _ = cloud
    centre.pool(rig.edges.share(Share()))
    with pytest.raises(
        TrainingError, match=r"1\.(weight|bias) has values that are not finite; a smaller"
    ) as error:
        centre.train(theta(), Recipe(epochs=3, lr=1e38, optimizer="sgd"))
    one_line(error)


def test_two_sites_of_one_name(tmp_path: Path) -> None:
    twice = workers(tmp_path)[:1] * 2
    with pytest.raises(ValueError, match="same name"):
        LocalFleet(twice)


NEEDS = [
    SiteNeeds("c", (0, 1), 0.5),
    SiteNeeds("a", (2,), 0.25),
    SiteNeeds("d", (0, 1, 2)),
    SiteNeeds("b", (0, 2), 0.75),
]


class Apart(Fleet):
    """Each edge has examples of its classes alone, and keeps the tasks that it was given."""

    def __init__(self, folder: Path, says: Mapping[str, object] | None = None) -> None:
        super().__init__(folder, says=says)
        self.tasks: list[tuple[str, Task]] = []
        for site, worker in self._workers.items():
            own = dataset().train
            (classes,) = (needs.classes for needs in NEEDS if needs.name == site)
            worker.pool(own.select(torch.isin(own.labels, torch.tensor(classes))))

    def run(self, tasks: Mapping[str, Task], call: Mapping[str, Task] | None = None) -> Iterator[Update]:
        self.tasks += tasks.items()
        return super().run(tasks, call)


def apart(folder: Path, says: Mapping[str, object] | None = None) -> Rig:
    return Rig(folder, Apart(folder / "sites", says), needs=NEEDS)


def test_an_edge_is_lent_what_is_of_none_of_its_classes(tmp_path: Path) -> None:
    with apart(tmp_path) as rig:
        pool = dataset().train.select(torch.arange(0, 30))
        rig.edges.lend(pool)
        lent = {site: decode_samples(task.blob) for site, task in rig.fleet.tasks if task.blob}
        for needs in NEEDS:
            got, foreign = (
                lent[needs.name],
                pool.select(~torch.isin(pool.labels, torch.tensor(needs.classes))),
            )
            assert torch.equal(got.labels, foreign.labels)
            assert torch.equal(got.inputs, foreign.inputs[foreign.positions])
            assert not set(got.labels.tolist()) & set(needs.classes)
        assert [len(lent[site]) for site in SITES] == [10, 20, 0, 10]
        sent = [rig.ledger.sites[site].bytes_received for site in SITES]
        assert sent == [message_bytes(dict(rig.fleet.tasks)[site]) for site in SITES]
        assert rig.ledger.sites[CLOUD].bytes_sent == sum(sent)


def test_each_edge_gets_its_part_and_the_parts_are_bound(tmp_path: Path) -> None:
    with apart(tmp_path) as rig:
        cuts = rig.edges.cut(Prefix())
        updates = rig.edges.train(theta(), RECIPE, cuts=cuts)
        for site, task in rig.fleet.tasks:
            assert task.cut == cuts[site] == rig.edges.cut_of(site)
            assert task.blob is not None
            taken = network().submodel(cuts[site]).take(theta())
            assert task.blob.sha256 == Blob.of(taken).sha256
        widths = [len(update.params["1.weight"]) for update in updates]
        assert widths == [4, 2, 8, 6]
        whole = rig.ledger.sites["d"]
        assert whole.parameters == sum(value.numel() for value in theta().values())
        assert rig.ledger.sites["a"].macs_per_example == (16 + 3) * 2
        merged = average(theta(), rig.edges.contributions(updates, by_examples=True))
        parts = {update.site: update for update in updates}
        last = merged["1.weight"][7], parts["d"].params["1.weight"][7]
        assert torch.equal(*last), "it alone holds the last channel"
        shared = [parts[site] for site in SITES if site != "a"]  # what three hold, by their examples
        total = sum(update.examples for update in shared)
        mean = sum(update.params["1.weight"][3].double() * update.examples for update in shared) / total
        torch.testing.assert_close(merged["1.weight"][3], mean.float())
        equal = average(theta(), rig.edges.contributions(updates, by_examples=False))
        mean = sum(update.params["1.weight"][3].double() for update in shared) / 3
        torch.testing.assert_close(equal["1.weight"][3], mean.float())
        # then each goes on with, measures and sends what it holds
        rig.edges.train(None, RECIPE, reply=False)
        rig.edges.evaluate()
        assert [len(update.params["1.weight"]) for update in rig.edges.collect()] == [4, 2, 8, 6]


def test_without_cuts_an_edge_holds_all_again(tmp_path: Path) -> None:
    with apart(tmp_path) as rig:
        rig.edges.train(theta(), RECIPE, cuts=rig.edges.cut(Prefix()))
        rig.edges.adopt(theta())
        assert [rig.edges.cut_of(site) for site in SITES] == [None] * 4
        assert {task.cut for _, task in rig.fleet.tasks[-4:]} == {None}
        updates = rig.edges.train(None, RECIPE)
        assert [len(update.params["1.weight"]) for update in updates] == [8] * 4
        parts = [part for part, _, _ in rig.edges.parts(updates, by_examples=True)]
        assert {part.cut for part in parts} == {Cut()}


def test_edges_with_the_same_part_get_the_same_bytes(tmp_path: Path) -> None:
    needs = [replace(needs, width=0.5) for needs in NEEDS]
    with Rig(tmp_path, Apart(tmp_path / "sites"), needs=needs) as rig:
        rig.edges.adopt(theta(), rig.edges.cut(Prefix()))
        assert len({id(task.blob) for _, task in rig.fleet.tasks}) == 1
        assert len({task.blob.sha256 for _, task in rig.fleet.tasks if task.blob}) == 1


def test_another_edges_part_is_refused(tmp_path: Path) -> None:
    def of_another(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return network().submodel(cuts["c"]).take(theta())

    with apart(tmp_path, says={"a": of_another}) as rig:
        cuts = rig.edges.cut(Prefix())
        usable = rig.edges.train(theta(), RECIPE, cuts=cuts)
        assert [update.site for update in usable] == ["c", "d", "b"]
        (refused,) = rig.calls.refused
        assert (refused.site, refused.why) == ("a", "1.bias has shape (4,) instead of (2,)")


def test_only_some_are_asked_and_the_quorum_is_of_these(tmp_path: Path) -> None:
    with Rig(tmp_path, Fleet(tmp_path / "sites", says={"a": not_finite}), quorum=0.5) as rig:
        assert [update.site for update in rig.edges.train(theta(), RECIPE, only=["a", "b"])] == ["b"]
        assert {site for _, site in rig.fleet.asked} == {"a", "b"}
        assert rig.ledger.sites["c"].train_macs == rig.ledger.sites["c"].bytes_received == 0
        with pytest.raises(QuorumError, match="0 of 1 edges"):
            rig.edges.train(theta(), RECIPE, only=["a"])


def test_too_few_channels_for_the_edges(tmp_path: Path) -> None:
    needs = [SiteNeeds(f"edge-{n}", (n % 3,)) for n in range(9)]
    with Rig(tmp_path, needs=needs) as rig, pytest.raises(CutError, match="too few for 9 sites") as error:
        rig.edges.cut(ByClass())
    one_line(error)


@pytest.mark.parametrize("kind", ["restat", "refit"])
def test_the_cloud_changes_only_what_it_is_asked_to(cloud: tuple[Rig, Cloud, Worker], kind: str) -> None:
    rig, centre, _ = cloud
    centre.pool(rig.edges.share(Share()))
    changed = centre.restat(theta()) if kind == "restat" else centre.refit(theta(), RECIPE)
    names = {name for name, value in theta().items() if not torch.equal(value, changed[name])}
    statistics = {f"2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert names == (statistics if kind == "restat" else {"3.weight", "3.bias"})
    forward = 48 * flops.macs_per_example(model(), (1, 4, 4))
    spent = rig.ledger.sites[CLOUD].train_macs
    assert spent == (forward if kind == "restat" else forward + 48 * 2 * 8 * 3)
    assert rig.ledger.sites[CLOUD].bytes_sent == sum(rig.ledger.sites[s].bytes_received for s in SITES)
