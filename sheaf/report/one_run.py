"""The page of one run: what each edge gained first, then where that comes from, and what it cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from sheaf.core.types import CLOUD
from sheaf.report.document import Page, Section, Table
from sheaf.report.gather import Run
from sheaf.report.origin import commit, data_name, flattened, made, setting
from sheaf.report.papers import beside_the_paper
from sheaf.report.pictures.choices import choices
from sheaf.report.pictures.confusion import confusion, within
from sheaf.report.pictures.cost import cost
from sheaf.report.pictures.curves import curves
from sheaf.report.pictures.cuts import cuts, share
from sheaf.report.pictures.gain import gain
from sheaf.report.pictures.split import split
from sheaf.report.pictures.steps import steps
from sheaf.report.stages import Way, cloud_rows, groups_of_classes, ways
from sheaf.report.tables import MANY, count, size
from sheaf.report.words import listed, percent, points, some, times
from sheaf.runtime.result import Curve, Result, Row, SiteRecord


def one_run(run: Run) -> Page:
    """The page. Each section is a function below; one with nothing to show gives None, and is left out."""
    result = run.result
    sections = (
        gained(result),
        decided(result),
        in_the_cloud(result),
        beside_the_paper([result]),
        mistaken(result),
        divided(result),
        parts_held(result),
        learned(result),
        spent(result),
        left_out(result),
        settings(run),
    )
    return Page(
        title=f"{result.method} on {data_name(result)}, {some(len(result.split), 'edge')}",
        facts=(
            ("experiment", str(setting(result, "title") or "-")),
            ("method", result.method),
            ("data", f"{data_name(result)}: {sum(map(sum, result.split.values())):,} training images, "
             f"{some(len(result.classes), 'class')}"),
            ("model", f"{setting(result, 'model', 'name')}, {count(result.whole.parameters)} numbers, "
             f"{count(result.whole.macs_per_example)} multiply-adds an image"),
            ("seed", str(made(result, "seed"))),
            ("commit", commit(result)),
        ),
        sections=[section for section in sections if section is not None],
    )  # fmt: skip


def gained(result: Result) -> Section | None:
    """What each edge gained: the first thing one sees."""
    found = ways(result)
    if not found:
        return None
    images = statistics.median(way.last.examples for way in found)
    worst = min(found, key=lambda way: way.last.accuracy)
    ended, examples = worst.last.accuracy, max(worst.last.examples, 1)
    end = (
        f"On their own classes the edges end at {percent(statistics.mean(w.last.accuracy for w in found))} "
        f"on average, the worst, {worst.site}, at {percent(ended)}."
    )
    moved = any(len(way.rows) > 1 for way in found)
    return Section(
        id="gain",
        title="What each edge gained" if moved else "How good each edge is",
        finding=gain_in_words(found) if moved else end,
        pictures=[gain(found)],
        tables=[edges_table(found)],
        notes=[
            end
            * moved
            + f" Own classes are measured on {images:,.0f} test images (median edge): one of them "
            f"is {100 / max(images, 1):.2f} points, and chance moves {worst.site}'s last accuracy by about "
            f"{100 * (ended * (1 - ended) / examples) ** 0.5:.1f} points (one standard error)."
        ],
    )


def gain_in_words(found: Sequence[Way]) -> str:
    """The finding: who lost, or how much was gained; on all classes also what a step between had reached."""
    lost = sorted((way for way in found if way.gain < 0), key=lambda way: way.gain)
    everywhere = statistics.mean(way.gain_all for way in found)
    if lost:
        said = (
            f"{len(lost)} of {some(len(found), 'edge')} lost accuracy on "
            f"{'its' if len(lost) == 1 else 'their'} own classes: "
            + listed([f"{way.site} ({points(way.gain)} points)" for way in lost], 3)
        )
    else:
        ends = dict.fromkeys(points(end([way.gain for way in found])) for end in (min, max))
        said = f"No edge lost: {' to '.join(ends)} points on its own classes"
    between: dict[str, list[float]] = {}
    for way in found:
        for row in way.rows[1:-1]:
            between.setdefault(row.stage, []).append(row.accuracy_all - way.first.accuracy_all)
    higher = [
        f" ({stage}: {points(statistics.mean(gains))})"
        for stage, gains in between.items()
        if statistics.mean(gains) > everywhere + 0.005
    ]
    return f"{said}; {points(everywhere)} points on all classes on average{''.join(higher)}."


def edges_table(found: Sequence[Way]) -> Table:
    """Each edge at each stage; of many edges, those that lost most, the median and those that gained most."""
    chosen = [(way, way.site) for way in found]
    caption = "Each edge at each step"
    if len(found) > MANY:
        ordered = sorted(found, key=lambda way: (way.gain, way.last.accuracy))
        middle = ordered[len(ordered) // 2]
        chosen = [(way, way.site) for way in ordered[:8]]
        chosen += [(middle, f"{middle.site} (median)")]
        chosen += [(way, way.site) for way in ordered[-3:]]
        caption = (
            f"Of {len(found):,} edges: the eight that gained least, the median, the three that gained most"
        )
    rows = []
    for way, name in chosen:
        for row in way.rows:
            change = "" if row is way.first else points(row.accuracy - way.first.accuracy)
            rows.append(
                (name, row.stage, f"{row.accuracy:.4f}", change, f"{row.f1:.4f}", f"{row.accuracy_all:.4f}",
                 "-" if row.held_out is None else f"{row.held_out:.4f}", f"{row.examples:,}")
            )  # fmt: skip
    headings = ("edge", "step", "own classes", "points", "F1", "all classes", "held out", "test images")
    return Table(caption, headings, rows, words=2, folded=len(rows) > 12)


def decided(result: Result) -> Section | None:
    """What guarded edges kept, took or mixed; of several rounds, the last."""
    last = {row.site: row for row in result.rows if row.choices}
    if not last:
        return None
    ended = [str(row.choices[-1]).partition(" ")[0] for row in last.values()]
    words = {"kept": "kept what it had", "taken": "took what it was offered", "mixed": "mixed both"}
    counts = [f"{ended.count(word):,} {said}" for word, said in words.items() if word in ended]
    rows = [
        (row.site, f"{row.stage} ({row.round})", str(n), str(choice),
         *("-" if score is None else f"{score:.4f}" for score in (choice.had, choice.got, choice.chosen)),
         f"{choice.examples:,}")
        for row in list(last.values())[:MANY] for n, choice in enumerate(row.choices, start=1)
    ]  # fmt: skip
    headings = ("edge", "step", "decision", "what", "had", "offered", "chosen", "held-out examples")
    return Section(
        id="choices",
        title="What each edge decided",
        finding=f"Each of {some(len(last), 'edge')} decided on its own held-out examples: {listed(counts)}.",
        pictures=[choices(list(last.values()))],
        tables=[
            Table("Decisions, by accuracy on the held-out examples", headings, rows, words=4, folded=True)
        ],
        notes=[f"The table holds the first {MANY} edges."] if len(last) > MANY else [],
    )


def in_the_cloud(result: Result) -> Section | None:
    """The cloud's model at each step."""
    rows = cloud_rows(result)
    if not rows:
        return None
    own = [row for row in rows if not row.reference] or rows
    last, compared = own[-1], next((row for row in reversed(rows) if row.reference), None)
    best = max(own, key=lambda row: row.accuracy_all)
    finding = f"The cloud's model ends at {percent(last.accuracy_all)} on all classes"
    if last is not own[0]:
        since = points(last.accuracy_all - own[0].accuracy_all)
        finding += f", {since} points from where it began ({own[0].stage}, {percent(own[0].accuracy_all)})"
    if best.accuracy_all > last.accuracy_all:
        finding += f"; it was best after '{best.stage}' in round {best.round} ({percent(best.accuracy_all)})"
    if compared is not None:
        more = points(last.accuracy_all - compared.accuracy_all)
        finding += f"; {more} points against '{compared.stage}', which it is compared with"
    return Section("steps", "The cloud's model, step by step", f"{finding}.", [steps(rows)])


def mistaken(result: Result) -> Section | None:
    """The confusion matrix of the cloud's last model."""
    rows = [row for row in cloud_rows(result) if not row.reference]
    if not rows:
        return None
    last, groups = rows[-1], groups_of_classes(result)
    inside, errors = within(last.confusion, groups)
    grouped = 1 < len(groups) < len(result.classes)
    if errors == 0:
        finding = "The cloud's model makes no mistake on the test images."
    elif grouped:
        finding = (
            f"{percent(1 - inside / errors)} of the cloud model's {errors:,} mistakes take a class for one "
            f"that other edges hold; {percent(_by_chance(last, groups))} would if mistakes fell on classes "
            "evenly."
        )
    else:
        finding = (
            f"The cloud's model makes {some(errors, 'mistake')}; most often: {_worst_pair(result, last)}."
        )
    notes = [] if len(result.classes) <= MANY else [f"Most often: {_worst_pair(result, last)}."]
    return Section(
        "confusion",
        "What is taken for what",
        finding,
        [confusion(last.confusion, result.classes, groups, last.stage)],
        notes=notes,
    )


def _by_chance(row: Row, groups: Sequence[Sequence[int]]) -> float:
    """The share of mistakes that would leave their group if each wrong class were taken equally often."""
    wrong = [sum(line) - line[k] for k, line in enumerate(row.confusion)]
    others = len(wrong) - 1
    crossing = sum(wrong[k] * (len(wrong) - len(group)) / others for group in groups for k in group if others)
    return crossing / sum(wrong)


def _worst_pair(result: Result, row: Row) -> str:
    pairs = [
        (found, is_, taken)
        for is_, line in enumerate(row.confusion)
        for taken, found in enumerate(line)
        if is_ != taken
    ]
    found, is_, taken = max(pairs)
    return f"'{result.classes[is_]}' taken for '{result.classes[taken]}' ({found} times)"


def divided(result: Result) -> Section:
    """The split of the training images."""
    totals = [sum(counts) for counts in result.split.values()]
    held = [sum(n > 0 for n in counts) for counts in result.split.values()]
    k = len(result.classes)
    holders = [sum(counts[c] > 0 for counts in result.split.values()) for c in range(k)]
    classes = f"{min(held)} to {max(held)}" if min(held) < max(held) else f"{held[0]}"
    images = f"{min(totals):,} to {max(totals):,}" if min(totals) < max(totals) else f"{totals[0]:,}"
    shared = "no class is on two edges" if max(holders) <= 1 else (
        f"a class is on {min(holders)} to {max(holders)} edges" if min(holders) < max(holders)
        else f"every class is on {holders[0]:,} edges"
    )  # fmt: skip
    return Section(
        "split",
        "Who holds what",
        f"{some(len(totals), 'edge')} with {classes} of {some(k, 'class')} and {images} training images "
        f"each; {shared}.",
        [split(result)],
        [split_table(result)] if k <= MANY and len(totals) <= MANY else [],
    )


def split_table(result: Result) -> Table:
    """Training images of each class on each edge."""
    rows = [
        (site, *(f"{n:,}" if n else "-" for n in counts), f"{sum(counts):,}")
        for site, counts in result.split.items()
    ]
    return Table("Training images of each class", ("edge", *result.classes, "all"), rows, folded=True)


def parts_held(result: Result) -> Section | None:
    """The cuts, where devices hold a part of the model."""
    if result.cuts is None or not result.cuts.groups:
        return None
    each = {site: result.cost[site] for site in result.split}
    least = min(each, key=lambda site: each[site].macs_per_example)
    most = max(each, key=lambda site: each[site].macs_per_example)
    whole = result.whole.macs_per_example

    def saved(site: str) -> str:
        return times(whole / max(each[site].macs_per_example, 1))

    finding = (
        f"The smallest part, {least}'s, takes {saved(least)} less computation an image than the whole model"
    )
    if saved(most) != saved(least):
        least_saved = f"{saved(most)} less" if each[most].macs_per_example < 0.95 * whole else "is the whole"
        finding += f"; the largest, {most}'s, {least_saved}"
    rows = [
        (listed(part.sites, 3), percent(share(part, result.cuts.groups)),
         count(each[part.sites[0]].macs_per_example), saved(part.sites[0]),
         count(each[part.sites[0]].parameters),
         f"{len(part.classes) if part.classes is not None else len(result.classes)}",
         "yes" if part.other else "no")
        for part in result.cuts.parts[:MANY] if part.sites[0] in each
    ]  # fmt: skip
    headings = (
        "device", "channels", "multiply-adds/image", "saved", "numbers", "classes", "has an 'other' output"
    )  # fmt: skip
    caption = "Each part" if len(rows) == len(result.cuts.parts) else f"The first {len(rows)} parts"
    return Section(
        "cuts",
        "Which part each device holds",
        f"{finding}.",
        [cuts(result.cuts)],
        [Table(caption, headings, rows)],
    )


def learned(result: Result) -> Section | None:
    """The learning curves."""
    if not result.curves:
        return None
    at_edges = [curve for curve in result.curves if CLOUD not in curve.losses]
    last = (at_edges or result.curves)[-1]
    before, after = _ends(last)
    finding = "The losses of all trainings, in the order in which they were made."
    if before is not None and after is not None:
        who = "the edges' loss (median)" if at_edges else "the cloud's loss"
        went = f"went from {before:.3g} to {after:.3g}" if before != after else f"stood at {after:.3g}"
        to = f" (to '{last.stage}')" if last.stage else ""
        finding = f"In the last training{to}, {who} {went}."
    return Section("curves", "How the loss went", finding, [curves(result.curves)])


def _ends(curve: Curve) -> tuple[float | None, float | None]:
    """The median loss in the first and the last epoch of a training."""
    if curve.spread:
        return curve.spread[0][1], curve.spread[-1][1]
    columns = [
        [losses[at] for losses in curve.losses.values() if losses and losses[at] is not None]
        for at in (0, -1)
    ]
    first, last = (statistics.median([v for v in c if v is not None]) if c else None for c in columns)
    return first, last


def spent(result: Result) -> Section:
    """The cost of every device, against the whole model."""
    edges = {site: result.cost[site] for site in result.split}
    shown = dict(_shown_costs(edges))
    if CLOUD in result.cost:
        shown[CLOUD] = result.cost[CLOUD]
    whole = result.whole
    least = min(edges, key=lambda site: edges[site].macs_per_example)
    ratio = whole.macs_per_example / max(edges[least].macs_per_example, 1)
    work = sum(spent.train_macs for spent in edges.values())
    at_cloud = result.cost[CLOUD].train_macs if CLOUD in result.cost else 0
    carried = (
        "Every edge carries the whole model"
        if ratio < 1.05
        else f"The weakest device's part takes {times(ratio)} less computation an image than the whole model"
    )
    up = sum(spent.bytes_sent for spent in edges.values())
    down = sum(spent.bytes_received for spent in edges.values())
    finding = (
        f"{carried}; the edges did {percent(work / max(work + at_cloud, 1))} of the training "
        f"({count(work)} multiply-adds; the cloud {count(at_cloud)}), {size(up)} went up and "
        f"{size(down)} down."
    )
    rows: list[tuple[str, ...]] = [
        (site, count(c.macs_per_example), times(whole.macs_per_example / max(c.macs_per_example, 1)),
         count(c.parameters), count(c.train_macs), size(c.bytes_sent), size(c.bytes_received),
         f"{c.seconds:.3g}", size(c.peak_memory_bytes))
        for site, c in shown.items()
    ]  # fmt: skip
    rows.append(("whole model", count(whole.macs_per_example), "1.0x", count(whole.parameters),
                 *["-"] * 5))  # fmt: skip
    headings = (
        "device", "multiply-adds/image", "saved", "numbers", "multiply-adds in training", "sent", "received",
        "seconds", "peak memory",
    )  # fmt: skip
    return Section(
        "cost",
        "What each device spent",
        finding,
        [cost(shown, whole, CLOUD)],
        [Table("Cost by device", headings, rows)],
    )


def _shown_costs(edges: Mapping[str, SiteRecord]) -> Iterator[tuple[str, SiteRecord]]:
    """Each edge; of many, the ends and the middle by work."""
    if len(edges) <= MANY:
        yield from edges.items()
        return
    ordered = sorted(edges, key=lambda site: edges[site].train_macs)
    for label, site in (("least", ordered[0]), ("median", ordered[len(ordered) // 2]), ("most", ordered[-1])):
        yield f"{label}: {site}", edges[site]


def left_out(result: Result) -> Section:
    """Who was refused or absent, when and why."""
    step = {
        curve.call: curve.stage + (f" ({curve.round})" if curve.round > 1 else "") for curve in result.curves
    }
    rows = [(r.site, str(r.call), step.get(r.call) or "-", r.why) for r in result.refused[:200]]
    if not rows:
        return Section("refused", "Who was left out", "No answer was refused, and no edge was absent.")
    sites = list(dict.fromkeys(refusal.site for refusal in result.refused))
    return Section(
        "refused",
        "Who was left out",
        f"{some(len(result.refused), 'answer')} not used, from {listed(sites)}.",
        tables=[Table("What was left out", ("edge", "call", "on the way to", "why"), rows, words=4)],
        notes=["Only the first 200 are listed."] if len(result.refused) > 200 else [],
    )


def settings(run: Run) -> Section:
    """Everything that someone needs to get the same figures again."""
    result = run.result
    flat = [(key, value) for key, value in flattened(setting(result)) if value != ""]
    method = setting(result, "method") or {}
    recipes = {name: r for name, r in method.items() if isinstance(r, Mapping) and "optimizer" in r}
    keys = list(dict.fromkeys(key for recipe in recipes.values() for key in recipe))
    recipe_rows = [
        (name, *(said for _, said in flattened({key: recipe.get(key, "") for key in keys})))
        for name, recipe in recipes.items()
    ]
    origin = [
        ("run", str(run.folder)), ("commit", commit(result)), ("finished", str(made(result, "finished"))),
        *((f"data {name}", str(digest)) for name, digest in flattened(made(result, "data"))),
        *flattened(made(result, "versions")), *flattened(made(result, "hardware")),
    ]  # fmt: skip
    tables = [
        Table("Settings", ("setting", "value"), flat, words=2, folded=True),
        Table("Where the figures come from", ("what", "value"), origin, words=2, folded=True),
    ]
    if recipe_rows:
        tables.insert(0, Table("How each step trains", ("step", *keys), recipe_rows, words=1 + len(keys)))
    return Section(
        "settings",
        "What was trained, on what, how",
        f"Finished {str(made(result, 'finished') or '-')[:10]} at commit {commit(result)}, with seed "
        f"{made(result, 'seed')}, on {made(result, 'hardware', 'cpu') or 'an unnamed processor'}.",
        tables=tables,
        notes=["experiment.toml in the run's folder holds every setting, ready to run again."],
    )
