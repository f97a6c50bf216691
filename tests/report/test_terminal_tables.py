"""Tables for the terminal: names as they are, no number cut at any width, summaries of many edges."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from sheaf.core.types import CLOUD
from sheaf.experiments.speed import Estimate
from sheaf.report.terminal_comparison import comparison_table
from sheaf.report.terminal_costs import cost_table, estimate_table, plan_table
from sheaf.report.terminal_tables import accuracy_table, split_table
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.result import Row

NAMES = ["[silence]", "[/INST]", "[bold]", ":dog:", "\\[x]", "[link=x]"]


WIDTHS = (60, 80, 100, 120)


def printed(table: RenderableType, width: int = 200) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def row(site: str) -> Row:
    return Row(
        site=site,
        stage="[red]",
        round=1,
        reference=False,
        accuracy=0.5,
        precision=0.5,
        recall=0.5,
        f1=0.5,
        macro_f1=0.5,
        accuracy_all=0.5,
        held_out=None,
        loss=1.0,
        examples=10,
        confusion=[[10]],
    )


def tables() -> dict[str, RenderableType]:
    result: Any = SimpleNamespace(rows=[row(name) for name in NAMES])
    summaries: Any = [
        SimpleNamespace(
            method=name,
            per=None,
            mean_edge=[0.5],
            worst_edge=[0.5],
            cloud=[0.5],
            bytes=1,
            edge_macs=1,
            cloud_macs=1,
            seeds=1,
            saved={"a": 1.0},
            saved_sum=1.0,
            saved_sum_with_cloud=None,
            bytes_up=1,
            images=None,
            changes=[],
        )
        for name in NAMES
    ]
    needs = SimpleNamespace(macs=1, parameters=1, memory=1, seconds=None)
    planned: Any = [
        SimpleNamespace(site=name, classes=1, width=1.0, needs=needs, saved=1.0, limited_by=None)
        for name in NAMES
    ]
    cost = SiteCost(*[1] * 7)
    return {
        "accuracy": accuracy_table(result, every=True),
        "cost": cost_table(dict.fromkeys([*NAMES, CLOUD], cost), every=True),
        "split by class": split_table({name: [1] * len(NAMES) for name in NAMES}, NAMES),
        "split by edge": split_table({f"{name}{k}": [1] for name in NAMES for k in range(2)}, ["[a]"]),
        "largest classes": split_table({f"edge-{k}": [1] * 4 for k in range(8)}, NAMES[:4]),
        "comparison": comparison_table(summaries),
        "plan": plan_table(planned),
    }


@pytest.mark.parametrize("name", tables())
def test_names_are_printed_as_they_are(name: str) -> None:
    text = printed(tables()[name])
    for expected in NAMES[:4] if name == "largest classes" else NAMES:
        assert expected in text
    assert "[red]" in text or name != "accuracy"


def measured(site: str, stage: str, number: int, accuracy: float, **changes: Any) -> Row:
    confusion = [[round(1000 * accuracy), 1000 - round(1000 * accuracy)], [0, 0]]
    figures = dict.fromkeys(("accuracy", "precision", "recall", "f1", "macro_f1", "accuracy_all"), accuracy)
    fields = {**figures, "stage": stage, "round": number, "confusion": confusion, "examples": 1234, **changes}
    return replace(row(site), **fields)


def rounds(edges: int, number: int) -> Any:
    """Return a result with rows of ECAvg."""
    rows = []
    for n in range(1, number + 1):
        for stage, base in (("before update", n - 1), ("after retraining", n)):
            accuracies = [0.5 + base / 100 + k / 50 for k in range(edges)]
            rows += [measured(f"edge-{k + 1}", stage, n, value) for k, value in enumerate(accuracies)]
        rows.append(measured(CLOUD, "averaged weights", n, 0.8))
    return SimpleNamespace(rows=rows)


def table_lines(table: RenderableType, width: int = 200) -> list[list[str]]:
    """Return the words of each printed row."""
    return [re.split(r"\s{2,}", line.strip()) for line in printed(table, width).splitlines()]


def test_from_five_edges_on_a_stage_is_mean_worst_best_and_spread() -> None:
    lines = table_lines(accuracy_table(rounds(5, 1)))
    assert ["5 edges", "before update", "0.5400", "0.5000", "0.5800", "0.0316"] in [
        line[:6] for line in lines
    ]
    assert ["cloud", "averaged weights", "0.8000"] in [line[:3] for line in lines]
    text = printed(accuracy_table(rounds(5, 1)))
    assert "edge-1" not in text
    assert "--all prints each edge" in text
    assert "edge-1" in printed(accuracy_table(rounds(5, 1), every=True))
    assert "edge-1" in printed(accuracy_table(rounds(4, 1)))


@pytest.mark.parametrize("every", [False, True])
def test_no_measurement_is_repeated(every: bool) -> None:
    stages = [line[1] for line in table_lines(accuracy_table(rounds(2, 3), every)) if line[0] == "edge-1"]
    assert stages == ["before update", "after retraining (1)", "after retraining (2)", "after retraining (3)"]


def test_a_measurement_of_another_model_under_the_first_stages_name_is_kept() -> None:
    result = rounds(2, 2)
    result.rows[5:6] = [measured("edge-1", "before update", 2, 0.1)]
    text = printed(accuracy_table(result))
    assert "before update (2)" in text


def test_of_many_rounds_the_first_and_the_last_are_listed() -> None:
    text = printed(accuracy_table(rounds(2, 9)))
    assert "after retraining (1)" in text
    assert "after retraining (9)" in text
    assert "after retraining (2)" not in text
    assert "rounds 2 to 8 are not shown; --all prints them" in text
    assert "after retraining (2)" in printed(accuracy_table(rounds(2, 9), every=True))


NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["many edges", "each edge", *tables()])
def test_no_number_is_cut_at_any_width(name: str, width: int) -> None:
    more = {"many edges": accuracy_table(rounds(12, 3)), "each edge": accuracy_table(rounds(4, 3))}
    table = (tables() | more)[name]
    text = printed(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text.replace(", …", "")
    assert set(NUMBER.findall(text)) <= {*NUMBER.findall(printed(table)), *re.findall("below (.+) col", text)}


def test_the_least_important_columns_go_first() -> None:
    def shown(width: int) -> list[str]:
        text = printed(accuracy_table(rounds(12, 3)), width)
        heading = " ".join(text.partition("──")[0].split())
        return [name for name in ("worst", "best", "spread", "F1", "precision", "recall") if name in heading]

    assert [shown(width) for width in (120, 100, 80, 60)] == [
        ["worst", "best", "spread", "F1", "precision", "recall"],
        ["worst", "best", "spread", "F1"],
        ["worst", "best", "spread"],
        ["worst"],
    ]
    assert "not shown below 109 columns: best, spread" in printed(accuracy_table(rounds(12, 3)), 60)


def test_the_cost_of_many_edges_is_their_mean_and_the_most() -> None:
    costs = {f"edge-{k}": SiteCost(1, 1, 1000 * k, 1, 1, 1.0, 1) for k in range(1, 6)}
    costs[CLOUD] = SiteCost(*[1] * 7)
    text = printed(cost_table(costs))
    assert "edge-1" not in text
    lines = table_lines(cost_table(costs))
    assert [line[2] for line in lines if line[0].startswith("edges, ")] == ["3.0k", "5.0k"]


def test_the_number_of_images_sent_is_shown_where_any_leave_a_device() -> None:
    costs = {"edge-1": SiteCost(*[1] * 7, samples_sent=0), CLOUD: SiteCost(*[1] * 7, samples_sent=0)}
    assert "images" not in printed(cost_table(costs), 60)
    costs["edge-1"] = SiteCost(*[1] * 7, samples_sent=1234)
    for width in (120, 60):
        text = printed(cost_table(costs), width)
        assert "images" in text
        assert "1,234" in text


def test_a_site_without_noised_statistics_has_no_privacy_loss() -> None:
    costs = {
        "edge-1": SiteCost(*[1] * 7, epsilon=2.5),
        "edge-2": SiteCost(*[1] * 7),
        CLOUD: SiteCost(*[1] * 7),
    }
    assert [line[3] for line in table_lines(cost_table(costs)) if line[0] in costs] == ["2.5", "-", "-"]


def test_an_estimate_says_would_spend_and_how_long() -> None:
    sites = {site: SiteCost(*[1] * 7) for site in ("edge-1", CLOUD)}
    text = " ".join(printed(estimate_table(Estimate(sites, dict.fromkeys(sites, 90.0), 0.0))).split())
    assert text.startswith("Each device would spend")
    assert "about 3 min of training in all" in text
    assert "baselines" not in text
    text = printed(estimate_table(Estimate(sites, dict.fromkeys(sites, 90.0), 9000.0)))
    assert "2.5 h for the baselines" in text


def test_work_saved_is_shown_only_where_a_model_is_cut() -> None:
    def summary(method: str, saved: float) -> Any:
        figures = {key: [0.5, 0.75] for key in ("mean_edge", "worst_edge", "cloud")}
        numbers = dict.fromkeys(
            ("bytes", "edge_macs", "cloud_macs", "saved_sum", "saved_sum_with_cloud"), 2.0
        )
        others: dict[str, Any] = {"saved": {"a": saved}, "changes": [], "bytes_up": 826, "images": 0}
        return SimpleNamespace(method=method, seeds=2, per=None, **figures, **numbers, **others)

    whole, cut = summary("ecavg", 1.0), summary("decoupled", 4.0)
    assert "saved" not in printed(comparison_table([whole]))
    text = printed(comparison_table([whole, cut]))
    assert "Work saved" in text
    assert "ecavg" not in text.partition("Work saved")[2]
    assert "4.0x" in text
    assert "±: standard deviation over the 2 seeds" in text
