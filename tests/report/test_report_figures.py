"""The report's figures: gains, class groups, intervals, Pareto frontier, comparison with a paper."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text
from safetensors import safe_open

from sheaf.core.types import CLOUD
from sheaf.report.accuracy_sections import gain_sentence
from sheaf.report.comparison_page import comparison_page, methods_section
from sheaf.report.formatting import (
    format_fraction,
    format_mean,
    format_number_of,
    format_percent,
    format_points,
    join_names,
)
from sheaf.report.history import EdgeHistory, class_groups, edge_histories
from sheaf.report.intervals import deviation_bar, half_interval
from sheaf.report.load_runs import Run, load_runs
from sheaf.report.method_groups import MethodRuns, group_by_method
from sheaf.report.paper_results import (
    matching_experiment,
    paper_experiments,
    paper_section,
    setup_differences,
)
from sheaf.report.pictures.confusion import draw_confusion, errors_within_groups
from sheaf.report.pictures.cost import draw_cost
from sheaf.report.pictures.curves import draw_curves
from sheaf.report.pictures.cuts import channel_fraction
from sheaf.report.pictures.frontier import Point, pareto_frontier
from sheaf.report.pictures.gain import draw_gain
from sheaf.report.provenance import used_settings
from sheaf.report.run_page import run_page
from sheaf.report.style import VERMILLION, picture_style, printable_name
from sheaf.report.verdict import verdict
from sheaf.runtime.result import Result

FRACTIONS = st.floats(0, 1, allow_nan=False)
PRICES = st.floats(0, 1e12, allow_nan=False)


@given(st.lists(st.tuples(PRICES, FRACTIONS), min_size=1, max_size=12))
def test_the_frontier_contains_exactly_the_undominated_points(found: list[tuple[float, float]]) -> None:
    points_ = [Point(str(n), price, price, [accuracy]) for n, (price, accuracy) in enumerate(found)]
    kept = pareto_frontier(points_, lambda point: point.bytes)
    for point in points_:
        beaten = any(
            other.bytes <= point.bytes
            and other.accuracy >= point.accuracy
            and (other.bytes < point.bytes or other.accuracy > point.accuracy)
            for other in points_
        )
        alike = [other for other in kept if (other.bytes, other.accuracy) == (point.bytes, point.accuracy)]
        assert bool(alike) is not beaten
    assert [p.bytes for p in kept] == sorted(p.bytes for p in kept)


def test_intervals_use_students_t() -> None:
    values = [0.97, 0.98, 0.985]
    half = 4.302652729911275 * statistics.stdev(values) / 3**0.5  # t for 2 degrees of freedom, 97.5 %
    assert half_interval(values) == pytest.approx(half)


def test_plus_minus_is_the_standard_deviation_and_bars_stay_within_0_to_1() -> None:
    values = [0.97, 0.98, 0.985]
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    assert format_mean(values) == f"{mean:.4f} ± {deviation:.4f}"
    assert (format_mean([0.5]), format_mean([])) == ("0.5000", "-")
    assert deviation_bar(values) == [[pytest.approx(deviation)], [pytest.approx(deviation)]]
    assert deviation_bar([0.9, 1.0, 1.0])[1] == [pytest.approx(1 - 2.9 / 3)]
    assert deviation_bar([0.5]) == [[0], [0]]


def test_a_history_goes_from_the_first_measurement_to_the_last(runs: Path) -> None:
    result = Result.read(runs / "rounds")
    for way in edge_histories(result):
        assert [(row.stage, row.round) for row in way.rows] == [
            ("before update", 1),
            ("after update", 3),
            ("after retraining", 3),
        ]
        assert way.last == result.final(way.site)
        assert way.gain == way.last.accuracy - way.before.accuracy


def test_a_result_holds_the_cuts_of_the_weights_files(runs: Path) -> None:
    result = Result.read(runs / "decoupled")
    assert result.cuts is not None
    assert result.cuts.groups == {"fc1": 128}
    assert [site for part in result.cuts.parts for site in part.sites] == list(result.split)
    for part in result.cuts.parts:
        with safe_open(runs / "decoupled" / result.weights[part.sites[0]], "pt") as file:
            cut = json.loads(file.metadata()["cut"])
        kept = {name: [list(run) for run in spans] for name, spans in part.kept.items()}
        assert {"kept": kept, "classes": part.classes, "other": part.other} == cut
        assert channel_fraction(part, result.cuts.groups) == 0.5
    assert Result.read(runs / "ecavg").cuts is None


def test_curves_equal_the_losses_in_the_journal(runs: Path) -> None:
    lines = (runs / "rounds" / "journal" / "journal.jsonl").read_text().splitlines()[1:]
    answers = [json.loads(line[9:]) for line in lines if '"update":' in line]
    journaled = {
        (answer["call"], answer["site"]): [float(f"{loss:.4g}") for loss in losses]
        for answer in answers
        if (losses := answer["update"]["metrics"].get("losses"))
    }
    result = Result.read(runs / "rounds")
    assert journaled == {
        (curve.call, site): losses for curve in result.curves for site, losses in curve.losses.items()
    }
    assert {(curve.stage, curve.round) for curve in result.curves} == {
        ("before update", 1),
        *(("averaged weights", n) for n in (1, 2, 3)),
        *(("after retraining", n) for n in (1, 2, 3)),
        ("initial weights", 3),
    }


def test_the_sentence_starts_with_edges_that_lost_accuracy(runs: Path) -> None:
    found = edge_histories(Result.read(runs / "ecavg"))
    first, second = found
    lower = replace(first, rows=[replace(first.before, accuracy=0.9), replace(first.last, accuracy=0.877)])
    higher = replace(second, rows=[replace(second.before, accuracy=0.9), replace(second.last, accuracy=0.95)])
    assert gain_sentence([lower, higher]).startswith(
        "1 of 2 edges lost accuracy on its own classes: edge-1 (−2.3 points)"
    )
    assert gain_sentence([higher]).startswith(
        "No edge lost accuracy on its own classes (change: +5.0 points)"
    )


def test_classes_of_the_same_edges_form_a_group(runs: Path) -> None:
    result = Result.read(runs / "ecavg")
    assert class_groups(result) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    mixed = replace(result, classes=["a", "b", "c"], split={"x": [1, 0, 1], "y": [0, 4, 2]})
    assert class_groups(mixed) == [[0], [1], [2]]


def test_errors_within_a_group() -> None:
    counts = [[5, 2, 1], [3, 4, 0], [0, 6, 7]]
    assert errors_within_groups(counts, [[0, 1], [2]]) == (5, 12)
    assert errors_within_groups(counts, [[0, 1, 2]]) == (12, 12)


def test_runs_are_grouped_by_all_settings_but_the_seed(runs: Path) -> None:
    found, unfinished = load_runs([runs / "several"])
    assert unfinished == []
    assert {(group.label, len(group.runs)) for group in group_by_method(found)} == {
        ("ecavg", 2),
        ("fedavg", 2),
        ("decoupled", 2),
    }
    first = found[0]
    settings = first.result.provenance["settings"]
    changed = settings | {"method": settings["method"] | {"rounds": 7}}
    other = Run(
        Path("other"),
        replace(first.result, provenance=first.result.provenance | {"settings": changed}),
    )
    labels = {group.label for group in group_by_method([first, other])}
    assert len(labels) == 2
    assert all("rounds" in label for label in labels), labels


def test_a_papers_experiment_is_recognised_by_its_settings(runs: Path) -> None:
    result = Result.read(runs / "ecavg")
    assert matching_experiment(result) is None, "digits are in no paper"
    settings = result.provenance["settings"]

    def with_data(name: str, **more: object) -> Result:
        changed = settings | {"data": settings["data"] | {"name": name}} | more
        return replace(result, provenance=result.provenance | {"settings": changed})

    experiment = matching_experiment(with_data("mnist"))
    assert experiment is not None
    assert experiment["experiment"].startswith("3")
    said = " ".join(setup_differences(with_data("mnist"), experiment))
    for word in ("optimizer", "60,000 in the paper", "which classes form the two halves"):
        assert word in said
    section = paper_section([with_data("mnist")])
    assert section is not None
    assert section.id == "paper"
    assert {row[:2] for row in section.tables[0].rows} >= {
        ("cloud", "initial weights"),
        ("edge-2", "after update"),
    }
    shared = replace(with_data("mnist"), split={site: [1] * 10 for site in result.split})
    assert matching_experiment(shared) is None, "the paper's edges share no class"
    stand_in = with_data("/data/tinyimagenet32-a", model={"name": "resnet50@32", "weights": ""})
    experiment = matching_experiment(stand_in)
    assert experiment is not None
    said = " ".join(setup_differences(stand_in, experiment))
    for word in ("it is not cifar100", "stem", "random weights here"):
        assert word in said


def test_the_papers_recall_is_its_accuracy() -> None:
    """Every row of the paper's table has this property, so a typing error would break it."""
    for experiment in paper_experiments():
        assert len(experiment["rows"]) == 6
        for _, _, accuracy, _, recall, _ in experiment["rows"]:
            assert accuracy == recall


def test_formatting() -> None:
    assert [format_points(x) for x in (0.013, -0.004, 0.0, 0.0001, -0.0001)] == [
        "+1.3",
        "−0.4",
        "0",
        "+<0.1",
        "−<0.1",
    ]
    assert format_percent(0.9731) == "97.3\N{NO-BREAK SPACE}%"
    assert [format_fraction(*pair) for pair in ((3, 9), (31, 240), (525, 4000))] == [
        "3 of 9",
        "31 of 240 (13\N{NO-BREAK SPACE}%)",
        "525 of 4,000 (13.1\N{NO-BREAK SPACE}%)",
    ]
    assert [format_number_of(1, "edge"), format_number_of(2000, "edge"), format_number_of(2, "class")] == [
        "1 edge",
        "2,000 edges",
        "2 classes",
    ]
    assert [join_names(["a"]), join_names(["a", "b"]), join_names(list("abcdef"), 3)] == [
        "a",
        "a and b",
        "a, b, c and 3 more",
    ]


def test_a_picture_replaces_characters_that_its_font_lacks() -> None:
    assert printable_name("a\nb\t c") == "a b c"
    assert printable_name("班 5") == "? 5"
    assert printable_name("x" * 30) == "x" * 17 + "…"


def test_a_gain_stands_beside_its_own_stage_and_a_fall_is_a_thick_line(runs: Path) -> None:
    first, second, third = edge_histories(Result.read(runs / "ecavg"))[0].rows
    rows = [replace(first, accuracy=0.6), replace(second, accuracy=0.865), replace(third, accuracy=0.664)]
    axes = draw_gain([EdgeHistory("edge-1", rows)]).figure.axes[0]
    lines = [(np.asarray(line.get_xdata()).tolist(), line) for line in axes.lines]
    heights = {xs[0]: np.asarray(line.get_ydata()).item() for xs, line in lines if len(xs) == 1}
    texts = {text.xy[1]: text.get_text() for text in axes.texts if isinstance(text, Annotation)}
    assert texts[heights[0.865]] == "+26.5"
    assert texts[heights[0.664]] == "+6.4"
    fall = next(line for xs, line in lines if xs == [0.865, 0.664])
    assert (fall.get_color(), fall.get_linewidth(), fall.is_dashed()) == (VERMILLION, 2.5, True)


def test_gains_are_relative_to_local_training_for_as_long(runs: Path) -> None:
    result = Result.read(runs / "ecavg")
    alone = [
        replace(row, stage="alone", reference=True, accuracy=0.25)
        for site in result.split
        if (row := result.final(site))
    ]
    histories = edge_histories(replace(result, rows=[*result.rows, *alone]))
    assert [edge.gain for edge in histories] == [edge.last.accuracy - 0.25 for edge in histories]
    assert "compared with local training" in gain_sentence(histories)
    assert verdict(replace(result, rows=[*result.rows, *alone])).gains == {
        edge.site: edge.gain for edge in histories
    }


def test_one_mistake_is_pale_and_a_class_without_a_correct_prediction_shows_0() -> None:
    axes = draw_confusion([[35, 1], [36, 0]], ["a", "b"], [[0], [1]], "average").figure.axes[0]
    cells = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    alphas = {(cell.get_x() + 0.5, cell.get_y() + 0.5): cell.get_alpha() for cell in cells}
    assert alphas == {(0, 0): 35 / 36, (1, 0): 1 / 36, (0, 1): 1, (1, 1): 0}
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "35", (1, 0): "1", (0, 1): "36", (1, 1): "0",
    }  # fmt: skip


def test_no_accuracy_axis_exceeds_1(runs: Path) -> None:
    with picture_style():
        pages = [run_page(Run(runs / name, Result.read(runs / name))) for name in ("ecavg", "rounds")]
        pages.append(comparison_page(load_runs([runs / "several"])[0]))
    axes = [axes for page in pages for part in page.sections for p in part.pictures for axes in p.figure.axes]
    ends = [axes.get_xlim() for axes in axes if axes.get_xlabel().startswith("accuracy")]
    ends += [axes.get_ylim() for axes in axes if axes.get_ylabel().startswith("accuracy")]
    assert len(ends) >= 6
    assert all(0 <= low < high <= 1 for low, high in ends)


def test_equal_costs_are_not_drawn(runs: Path) -> None:
    result = Result.read(runs / "ecavg")
    costs = {
        site: replace(result.cost[site], bytes_sent=1000 * n, seconds=1.0)
        for n, site in enumerate((*result.split, CLOUD))
    }
    picture = draw_cost(costs, result.whole, CLOUD)
    assert picture is not None
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in picture.figure.axes]
    assert "bytes sent" in titles
    assert not {"multiply-adds per image", "seconds"} & {*titles}
    assert "not drawn: multiply-adds per image 9.5k" in picture.caption
    same = dict.fromkeys(("edge-1", "edge-2"), costs["edge-1"])
    assert draw_cost(same, result.whole, CLOUD) is None


def test_the_legend_of_five_edges_covers_no_text(runs: Path) -> None:
    curve = Result.read(runs / "ecavg").curves[0]
    losses: dict[str, list[float | None]] = {f"edge-{n}": [1 / n, 0.5 / n] for n in range(1, 6)}
    with picture_style():
        figure = draw_curves([replace(curve, losses=losses)]).figure
        figure.draw_without_rendering()
        axes = figure.axes[0]
        legend = axes.get_legend()
        assert legend is not None
        area = legend.get_window_extent()
        texts = [text for text in axes.get_children() if isinstance(text, Text) and text.get_text()]
        assert {"edges"} < {text.get_text() for text in texts}
        others = [axes.bbox, *(text.get_window_extent() for text in texts)]
    assert not any(area.overlaps(other) for other in others)


def test_settings_that_the_optimizer_does_not_use_are_left_out() -> None:
    recipes = {
        "pretrain": {"optimizer": "adam", "momentum": 0.9},
        "tune": {"optimizer": "sgd", "momentum": 0.9},
    }
    assert used_settings({"method": recipes}) == {
        "method": {"pretrain": {"optimizer": "adam"}, "tune": recipes["tune"]}
    }


def test_the_winner_does_not_hide_its_clouds_model(runs: Path) -> None:
    groups = {group.label: group for group in group_by_method(load_runs([runs / "several"])[0])}

    def with_accuracies(label: str, edges: float, cloud: float) -> MethodRuns:
        changed = [
            replace(run, result=replace(run.result, rows=[
                replace(row, accuracy=edges, accuracy_all=cloud) for row in run.result.rows
            ]))
            for run in groups[label].runs
        ]  # fmt: skip
        return MethodRuns(label, changed)

    section = methods_section([with_accuracies("ecavg", 0.95, 0.9), with_accuracies("fedavg", 0.94, 0.97)])
    assert section.finding.startswith("Highest mean accuracy of the edges: ecavg (95.0\N{NO-BREAK SPACE}%)")
    assert "is 7.0 points below that of fedavg" in section.finding
    table = section.tables[0]
    bold = {(table.rows[row][0], table.headings[column]) for row, column in table.bold}
    assert {("ecavg", "edges, mean"), ("ecavg", "worst edge"), ("fedavg", "cloud, all classes")} <= bold
    assert ("fedavg", "edges, mean") not in bold


def test_labels_of_short_trainings_do_not_overlap(runs: Path) -> None:
    curve = Result.read(runs / "ecavg").curves[0]
    stages = {"before update": 3, "averaged weights": 1, "after retraining": 9, "after update": 1}
    losses: dict[int, list[float | None]] = {epochs: [0.5] * epochs for epochs in stages.values()}
    curves = [replace(curve, stage=name, losses={"edge-1": losses[n]}) for name, n in stages.items()]
    with picture_style():
        figure = draw_curves(curves).figure
        figure.draw_without_rendering()
        areas = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(areas) == len(stages)
    assert not any(one.overlaps(other) for n, one in enumerate(areas) for other in areas[:n])
    assert all(area.x1 <= figure.axes[0].bbox.x1 + 1 for area in areas)
