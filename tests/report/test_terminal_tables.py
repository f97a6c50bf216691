"""Tables for the terminal print names as they are, also those that look like rich markup."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from sheaf.core.types import CLOUD
from sheaf.report.terminal_tables import accuracy_table, comparison_table, cost_table, plan_table, split_table
from sheaf.runtime.costs import SiteCost
from sheaf.runtime.result import Row

NAMES = ["[silence]", "[/INST]", "[bold]", ":dog:", "\\[x]", "[link=x]"]


def printed(table: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(table)
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
        "accuracy": accuracy_table(result),
        "cost": cost_table(dict.fromkeys([*NAMES, CLOUD], cost)),
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
