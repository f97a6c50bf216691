"""Every partition of sheaf/data/partitions puts each example on one edge, repeatably."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sheaf.core import registry
from sheaf.core.errors import PartitionError
from sheaf.data.partitions._common import apportion, edge_names, owned_classes
from sheaf.data.partitions.classes import Classes
from sheaf.data.partitions.dirichlet import Dirichlet
from sheaf.data.partitions.iid import IID
from sheaf.data.partitions.ratio import Ratio
from sheaf.data.partitions.shards import Shards

NAMES = list(registry.describe("partitions"))
TEN = tuple("abcdefghij")


def balanced(each: int = 20, K: int = 10) -> Tensor:
    return torch.arange(K).repeat_interleave(each)[torch.randperm(K * each, generator=torch.Generator())]


def counts(labels: Tensor, parts: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: torch.bincount(labels[part], minlength=10).tolist() for name, part in parts.items()}


@pytest.mark.parametrize("name", NAMES)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    edges=st.integers(1, 4),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_partition_puts_each_example_on_one_edge(
    name: str, labels: list[int], edges: int, seed: int
) -> None:
    partition = registry.load("partitions", name)(edges=edges)
    targets = torch.tensor(labels)
    try:
        parts = partition(targets, tuple("abcde"), seed)
    except PartitionError:
        assert edges > 1 or name == "shards"  # a single edge has all examples
        return
    assert list(parts) == edge_names(edges)
    for part in parts.values():
        assert part.dtype == torch.int64
        assert len(part) > 0
        assert torch.equal(part, part.sort().values)
    assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(len(labels)))
    again = partition(targets, tuple("abcde"), seed)
    assert all(torch.equal(parts[edge], again[edge]) for edge in parts)


@pytest.mark.parametrize("name", NAMES)
def test_every_partition_describes_itself(name: str) -> None:
    assert registry.describe("partitions")[name]
    assert registry.load("partitions", name)().edges == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_partition_leaves_the_global_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    registry.load("partitions", name)()(balanced(), TEN, 3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["iid", "dirichlet", "shards", "ratio"])
def test_another_seed_gives_another_partition(name: str) -> None:
    partition = registry.load("partitions", name)()
    one, other = partition(balanced(), TEN, 1), partition(balanced(), TEN, 2)
    assert any(not torch.equal(one[edge], other[edge]) for edge in one)


def test_edge_names_are_in_alphabetical_order() -> None:
    assert edge_names(2) == ["edge-1", "edge-2"]
    assert edge_names(100) == sorted(edge_names(100))


@given(st.integers(0, 1000), st.lists(st.floats(0.01, 100), min_size=1, max_size=9), st.integers(0, 20))
def test_apportionment_is_whole_and_proportional(total: int, sizes: list[float], turn: int) -> None:
    got = apportion(total, sizes, turn)
    assert sum(got) == total
    assert all(abs(n - total * s / sum(sizes)) < 1 + 1e-6 for n, s in zip(got, sizes, strict=True))


class TestClasses:
    def test_a_number_of_edges_divides_the_classes_into_runs(self) -> None:
        labels = balanced()
        got = counts(labels, Classes(edges=3)(labels, TEN, 0))
        assert [sum(n > 0 for n in row) for row in got.values()] == [4, 3, 3]
        assert got["edge-1"] == [20] * 4 + [0] * 6

    def test_classes_by_name_and_by_index(self) -> None:
        labels = balanced()
        edges = {"kitchen": ("a", 1, 2, 3, 4), "hall-2": (5, 6, "h", 8, "j")}
        got = counts(labels, Classes(edges=edges)(labels, TEN, 0))
        assert got == {"kitchen": [20] * 5 + [0] * 5, "hall-2": [0] * 5 + [20] * 5}

    def test_a_class_of_several_edges_is_divided_evenly(self) -> None:
        labels = balanced(each=21)
        edges = (tuple(range(6)), tuple(range(4, 10)))
        got = counts(labels, Classes(edges=edges)(labels, TEN, 0))
        assert got["edge-1"][4] + got["edge-2"][4] == 21
        assert abs(got["edge-1"][4] - got["edge-2"][4]) == 1
        assert sum(got["edge-1"]) == sum(got["edge-2"])  # the odd examples go to the edges in turn

    @pytest.mark.parametrize(
        ("edges", "message"),
        [
            (11, "10 classes are too few to give each of 11 edges one"),
            ((tuple(range(9)),), "1 of 10 classes on no edge: 'j'"),
            ((("a", "cat"), (1,)), "gives edge-1 class 'cat', which is not in the data"),
            (((0, 10), (1,)), "class 10, which is not in the data; allowed: 0 to 9"),
            (((0, "a"), (1,)), "gives edge-1 class 'a' twice"),
            (({"cloud": (0,)}), "cannot be named 'cloud'"),
            (({"../x": (0,)}), r"cannot be named '../x'"),
            ((tuple(range(10)), ()), "leaves edge-2 without an example"),
        ],
    )
    def test_invalid_edges_are_errors(self, edges: object, message: str) -> None:
        with pytest.raises(PartitionError, match=message):
            Classes(edges=edges)(balanced(), TEN, 0)


class TestRatio:
    def test_the_rest_of_an_own_class_goes_to_the_other_edges(self) -> None:
        labels = balanced()
        got = counts(labels, Ratio(edges=2, own=0.8)(labels, TEN, 0))
        assert got["edge-1"] == [16] * 5 + [4] * 5
        assert got["edge-2"] == [4] * 5 + [16] * 5

    def test_sizes_divide_the_classes(self) -> None:
        labels = balanced()
        got = counts(labels, Ratio(edges=2, own=1.0, sizes=(7, 3))(labels, TEN, 0))
        assert got["edge-1"] == [20] * 7 + [0] * 3

    def test_sizes_divide_a_class_of_several_edges(self) -> None:
        labels = balanced()
        every = tuple(range(10))
        got = counts(labels, Ratio(edges=(every, every), sizes=(3, 1))(labels, TEN, 0))
        assert got == {"edge-1": [15] * 10, "edge-2": [5] * 10}

    def test_own_of_one_is_the_partition_by_classes(self) -> None:
        labels = balanced()
        ratio, whole = Ratio(own=1.0)(labels, TEN, 4), Classes()(labels, TEN, 4)
        assert all(torch.equal(ratio[name], whole[name]) for name in whole)

    def test_a_missing_size_is_an_error(self) -> None:
        with pytest.raises(PartitionError, match="2 values for 3 edges"):
            Ratio(edges=3, sizes=(1, 2))(balanced(), TEN, 0)


def test_iid_is_stratified() -> None:
    labels = balanced()
    got = counts(labels, IID(edges=2, sizes=(3, 1))(labels, TEN, 0))
    assert got == {"edge-1": [15] * 10, "edge-2": [5] * 10}


def test_iid_gives_odd_examples_to_the_edges_in_turn() -> None:
    labels = balanced(each=3)
    sizes = [len(part) for part in IID(edges=2)(labels, TEN, 0).values()]
    assert sizes == [15, 15]


def test_dirichlet_is_even_for_a_large_alpha_only() -> None:
    labels = balanced(each=200)
    even = counts(labels, Dirichlet(edges=4, alpha=1000)(labels, TEN, 0))
    assert all(35 < n < 65 for row in even.values() for n in row)
    uneven = counts(labels, Dirichlet(edges=4, alpha=0.1)(labels, TEN, 0))
    assert max(n for row in uneven.values() for n in row) > 150


def test_shards_hold_few_classes() -> None:
    labels = balanced(each=40)
    got = counts(labels, Shards(edges=10, shards_per_edge=2)(labels, TEN, 0))
    assert next(iter(got)) == "edge-01"
    assert all(sum(row) == 40 and sum(n > 0 for n in row) <= 2 for row in got.values())
    with pytest.raises(PartitionError, match="3 examples are too few for 4 shards"):
        Shards()(torch.tensor([0, 1, 2]), TEN, 0)


def test_a_number_means_the_name_where_every_class_name_is_a_number() -> None:
    classes = tuple(sorted(str(number) for number in range(12)))
    assert classes[2] == "10"
    owned = owned_classes(([*range(6)], [*range(6, 12)]), classes)
    assert [[classes[index] for index in own] for own in owned.values()] == [
        list("012345"),
        ["6", "7", "8", "9", "10", "11"],
    ]
    assert owned_classes(([1, 2],), ("001", "002")) == {"edge-1": [0, 1]}
    with pytest.raises(PartitionError, match=r"class 0, which is not in the data; allowed: '001', '002'"):
        owned_classes(([0, 1],), ("001", "002"))
    assert owned_classes(([0], [1]), ("7", "cat")) == {"edge-1": [0], "edge-2": [1]}
