"""Sections of a run's page about accuracy: of the edges, of the cloud, and the cloud's errors.

Each function returns None if the result contains nothing to show.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sheaf.report.document import Section, Table
from sheaf.report.formatting import (
    MAX_LISTED,
    format_fraction,
    format_number_of,
    format_percent,
    format_points,
    join_names,
)
from sheaf.report.history import EdgeHistory, class_groups, cloud_rows, edge_histories, gain_on_all
from sheaf.report.pictures.choices import draw_choices
from sheaf.report.pictures.confusion import draw_confusion, errors_within_groups
from sheaf.report.pictures.gain import draw_gain
from sheaf.report.pictures.steps import draw_steps
from sheaf.report.stages import stage_label
from sheaf.report.verdict import verdict
from sheaf.runtime.result import Result, Row


def verdict_section(result: Result) -> Section:
    """Return the section with the verdict."""
    first, *others = verdict(result).findings
    sentence, _, rest = first.text.partition(". ")
    facts = [(first.topic, rest)] if rest else []
    facts += [(finding.topic, finding.text) for finding in others]
    return Section("verdict", "Verdict", f"{sentence.removesuffix('.')}.", facts=facts)


def gain_section(result: Result) -> Section | None:
    """Return the section on each edge's accuracy: its gain, or its value if it was measured once."""
    histories = edge_histories(result)
    if not histories:
        return None
    images = statistics.median(edge.last.examples for edge in histories)
    worst = min(histories, key=lambda edge: edge.last.accuracy)
    accuracy, examples = worst.last.accuracy, max(worst.last.examples, 1)
    mean = statistics.mean(edge.last.accuracy for edge in histories)
    final = (
        f"Final accuracy on the edges' own classes: {format_percent(mean)} on average; "
        f"the worst edge is {worst.site} with {format_percent(accuracy)}."
    )
    several = any(len(edge.measured) > 1 for edge in histories)
    standard_error = 100 * (accuracy * (1 - accuracy) / examples) ** 0.5
    error = f" The standard error of {worst.site}'s final accuracy is {standard_error:.1f} points."
    precision = (
        f"The median edge has {images:,.0f} test images of its own classes, so that one image is "
        f"{100 / max(images, 1):.2f} points." + error * (0 < accuracy < 1)
    )
    return Section(
        id="gain",
        title="Accuracy gain of each edge" if several else "Accuracy of each edge",
        finding=gain_sentence(histories) if several else final,
        pictures=[draw_gain(histories)],
        tables=[edges_table(histories)],
        notes=[f"{final} {precision}" if several else precision],
    )


def gain_sentence(histories: Sequence[EdgeHistory]) -> str:
    """Return a sentence on the edges that lost accuracy, or on the range of gains if none did.

    It ends with the mean gain on all classes, and names intermediate stages that were better there.
    """
    losers = sorted((edge for edge in histories if edge.gain < 0), key=lambda edge: edge.gain)
    compared = ", compared with local training" if histories[0].baseline is not None else ""
    gains_all = [gain for edge in histories if (gain := edge.gain_all) is not None]
    if losers:
        sentence = (
            f"{len(losers)} of {format_number_of(len(histories), 'edge')} lost accuracy on "
            f"{'its' if len(losers) == 1 else 'their'} own classes{compared}: "
            + join_names([f"{edge.site} ({format_points(edge.gain)} points)" for edge in losers], 3)
        )
    else:
        ends = dict.fromkeys(format_points(end([edge.gain for edge in histories])) for end in (min, max))
        sentence = f"No edge lost accuracy on its own classes{compared} (change: {' to '.join(ends)} points)"
    sentence += _largest_fall(histories)
    if not gains_all:
        return f"{sentence}."
    mean_all = statistics.mean(gains_all)
    intermediate: dict[str, list[float]] = {}
    for edge in histories:
        for row in edge.rows[1:-1]:
            if (gain := gain_on_all(edge.before, row)) is not None:
                intermediate.setdefault(row.stage, []).append(gain)
    better = [
        f" (at '{stage_label(stage)}': {format_points(statistics.mean(gains))})"
        for stage, gains in intermediate.items()
        if statistics.mean(gains) > mean_all + 0.005
    ]
    return (
        f"{sentence}. On all classes, the mean change is {format_points(mean_all)} points{''.join(better)}."
    )


def _largest_fall(histories: Sequence[EdgeHistory]) -> str:
    """Return a sentence on the largest fall between stages; empty below 2 points, or if it is the gain."""
    falls = [
        (row.accuracy - before.accuracy, edge.site, row.stage)
        for edge in histories
        for before, row in zip(edge.rows, edge.rows[1:], strict=False)
        if row.accuracy - before.accuracy != edge.gain
    ]
    change, site, stage = min(falls, default=(0.0, "", ""))
    if change > -0.02:
        return ""
    fell = sum(at == stage and other < 0 for other, _, at in falls)
    return (
        f". At '{stage_label(stage)}', {fell:,} of {format_number_of(len(histories), 'edge')} "
        f"{'is' if fell == 1 else 'are'} below the stage before; {site} fell most ({format_points(change)} "
        "points)"
    )


def edges_table(histories: Sequence[EdgeHistory]) -> Table:
    """Return the table of each edge's stages; of many edges, the extremes and the median."""
    chosen = [(edge, edge.site) for edge in histories]
    caption = "Each edge at each stage"
    if len(histories) > MAX_LISTED:
        ordered = sorted(histories, key=lambda edge: (edge.gain, edge.last.accuracy))
        median = ordered[len(ordered) // 2]
        chosen = [(edge, edge.site) for edge in ordered[:8]]
        chosen += [(median, f"{median.site} (median)")]
        chosen += [(edge, edge.site) for edge in ordered[-3:]]
        caption = (
            f"{len(histories):,} edges: the eight smallest gains, the median and the three largest gains"
        )
    rows = []
    for edge, name in chosen:
        for row in edge.measured:
            change = "" if row is edge.before else format_points(row.accuracy - edge.before.accuracy)
            rows.append(
                (name, stage_label(row.stage, row.reference), f"{row.accuracy:.4f}", change, f"{row.f1:.4f}",
                 "-" if row.accuracy_all is None else f"{row.accuracy_all:.4f}",
                 "-" if row.held_out is None else f"{row.held_out:.4f}",
                 f"{row.examples:,}")
            )  # fmt: skip
    headings = (
        "edge", "stage", "own classes", "gain, points", "F1", "all classes", "held out", "test images",
    )  # fmt: skip
    used = [n for n in range(len(headings)) if any(row[n] not in ("", "-") for row in rows)]
    return Table(
        caption,
        [headings[n] for n in used],
        [[row[n] for n in used] for row in rows],
        text_columns=2,
        folded=len(rows) > 12,
    )


def decisions_section(result: Result) -> Section | None:
    """Return the section on the decisions of guarded edges, in the last round."""
    last = {row.site: row for row in result.rows if row.choices}
    if not last:
        return None
    kinds = [str(row.choices[-1]).partition(" ")[0] for row in last.values()]
    phrases = {"kept": "kept their own model", "taken": "took the offered model", "mixed": "mixed both"}
    counts = [f"{kinds.count(kind):,} {phrase}" for kind, phrase in phrases.items() if kind in kinds]
    rows = [
        (row.site, f"{stage_label(row.stage)} ({row.round})", str(n), str(choice),
         *("-" if score is None else f"{score:.4f}" for score in (choice.had, choice.got, choice.chosen)),
         f"{choice.examples:,}")
        for row in list(last.values())[:MAX_LISTED] for n, choice in enumerate(row.choices, start=1)
    ]  # fmt: skip
    headings = (
        "edge", "stage (round)", "decision", "choice", "own model", "offered model", "chosen model",
        "held-out examples",
    )  # fmt: skip
    return Section(
        id="choices",
        title="Decision of each edge",
        finding="Each edge compared the offered model with its own on held-out examples. Of "
        f"{format_number_of(len(last), 'edge')}, {join_names(counts)}.",
        pictures=[draw_choices(list(last.values()))],
        tables=[
            Table(
                "Decisions, with accuracies on the held-out examples", headings, rows, text_columns=4,
                folded=True,
            )
        ],
        notes=[f"The table contains the first {MAX_LISTED} edges."] if len(last) > MAX_LISTED else [],
    )  # fmt: skip


def cloud_section(result: Result) -> Section | None:
    """Return the section on the accuracy of the cloud's model at each stage."""
    rows = cloud_rows(result)
    if not rows:
        return None
    own = [row for row in rows if not row.reference] or rows
    last, reference = own[-1], next((row for row in reversed(rows) if row.reference), None)
    best = max(own, key=lambda row: row.accuracy)
    sentences = [f"The cloud's final model reaches {format_percent(last.accuracy)} on all classes"]
    if last is not own[0]:
        change = format_points(last.accuracy - own[0].accuracy)
        sentences[0] += (
            f", {change} points relative to its first stage '{stage_label(own[0].stage)}' "
            f"({format_percent(own[0].accuracy)})"
        )
    if best.accuracy > last.accuracy:
        sentences.append(
            f"Its best stage was '{stage_label(best.stage)}' in round {best.round} "
            f"({format_percent(best.accuracy)})"
        )
    if reference is not None:
        change = format_points(last.accuracy - reference.accuracy)
        sentences.append(
            f"The reference '{stage_label(reference.stage)}' reaches "
            f"{format_percent(reference.accuracy)}, a difference of {change} points"
        )
    return Section(
        "steps",
        "The cloud's model at each stage",
        "".join(f"{sentence}. " for sentence in sentences).strip(),
        [draw_steps(rows)],
    )


def confusion_section(result: Result) -> Section | None:
    """Return the section with the confusion matrix of the cloud's final model."""
    rows = [row for row in cloud_rows(result) if not row.reference]
    if not rows:
        return None
    last, groups = rows[-1], class_groups(result)
    inside, errors = errors_within_groups(last.confusion, groups)
    grouped = 1 < len(groups) < len(result.classes)
    if errors == 0:
        finding = "The cloud's model makes no error on the test images."
    elif grouped:
        finding = (
            "Errors of the cloud's model between classes of different edges: "
            f"{format_fraction(errors - inside, errors)}. Errors spread evenly over the classes would give "
            f"about {errors * _evenly_spread(last, groups):,.0f}."
        )
    else:
        finding = (
            f"The cloud's model makes {format_number_of(errors, 'error')}. "
            f"The most frequent: {_most_frequent_error(result, last)}."
        )
    notes = []
    if len(result.classes) > MAX_LISTED:
        notes = [f"The most frequent error: {_most_frequent_error(result, last)}."]
    return Section(
        "confusion",
        "Confusion matrix of the cloud's model",
        finding,
        [draw_confusion(last.confusion, result.classes, groups, stage_label(last.stage))],
        notes=notes,
    )


def _evenly_spread(row: Row, groups: Sequence[Sequence[int]]) -> float:
    """Return the fraction of errors between groups if each error hit every wrong class equally often."""
    wrong = [sum(line) - line[k] for k, line in enumerate(row.confusion)]
    others = len(wrong) - 1
    crossing = sum(wrong[k] * (len(wrong) - len(group)) / others for group in groups for k in group if others)
    return crossing / sum(wrong)


def _most_frequent_error(result: Result, row: Row) -> str:
    count, true, predicted = max(
        (count, true, predicted)
        for true, line in enumerate(row.confusion)
        for predicted, count in enumerate(line)
        if true != predicted
    )
    return f"'{result.classes[true]}' classified as '{result.classes[predicted]}' ({count:,} times)"
