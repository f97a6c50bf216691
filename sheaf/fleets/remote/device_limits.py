"""A device's checks of the cloud's requests against its own ``edge.toml``; each raises ``FleetError``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sheaf.core.errors import FleetError
from sheaf.core.optional_imports import installed_version
from sheaf.core.recipe import Share
from sheaf.core.task import Task
from sheaf.core.wire_format import decode_samples
from sheaf.fleets.remote.device_settings import EdgeFile, EdgeSettings
from sheaf.fleets.remote.privacy_record import PrivacyRecord
from sheaf.fleets.remote.sample_record import SampleRecord
from sheaf.runtime.worker import Worker


def check_version(header: Any) -> None:
    """Refuse the set-up of a run of another version of sheaf.

    Call it before the message is validated: another version may have other keys.
    """
    setup = header.get("setup") if isinstance(header, dict) else None
    cloud = setup.get("version") if isinstance(setup, dict) else None
    if isinstance(cloud, str) and cloud and cloud != (own := installed_version()):
        raise FleetError(
            f"the cloud has sheaf {cloud[:40]}, this device {own}; install the same version on both"
        )


def check_plugin(kind: str, name: str, edge: EdgeSettings) -> None:
    """Refuse a ``package.module:object`` that ``[edge] allow`` does not list. Nothing is imported.

    Args:
        kind: kind of the plugin, for the error message.
    """
    if ":" in name and name not in edge.allow:
        raise FleetError(f"{kind} {name!r} is not in [edge] allow; add it to edge.toml if you trust its code")


def check_plugins(header: dict[str, Any] | None, edge: EdgeSettings) -> None:
    """Refuse a task header with a loss or a codec that the device does not allow; see ``check_plugin``.

    Call it before the header is decoded: decoding imports the plugin. A header without plugins is valid. All
    strings of a plugin are checked, because it may have another one among its settings.
    """
    for kind, table, keys in (("loss", "recipe", ("loss",)), ("codec", "coding", ("download", "upload"))):
        settings = (header or {}).get(table)
        for key in keys:
            for text in _strings(settings.get(key) if isinstance(settings, dict) else None):
                check_plugin(kind, text, edge)


def check_message_size(size: int, edge: EdgeSettings) -> None:
    """Refuse a tensor file of more than ``max_mb``."""
    if size > edge.max_mb * 1e6:
        raise _exceeded(f"message of {size / 1e6:.4g} MB exceeds [edge] max_mb = {edge.max_mb:g}")


def check_model_size(parameters: int, edge: EdgeSettings) -> None:
    """Refuse a model whose float32 parameters exceed ``max_mb``."""
    if 4 * parameters > edge.max_mb * 1e6:
        raise _exceeded(f"model of {4 * parameters / 1e6:.4g} MB exceeds [edge] max_mb = {edge.max_mb:g}")


def check_task(
    task: Task, worker: Worker, own: EdgeFile, record: SampleRecord, privacy: PrivacyRecord
) -> None:
    """Refuse a task that exceeds a limit or that the worker cannot do."""
    edge = own.edge
    if task.recipe is not None and task.recipe.epochs > edge.max_epochs:
        raise _exceeded(f"{task.recipe.epochs} epochs exceed [edge] max_epochs = {edge.max_epochs}")
    if task.statistic is not None and task.reply and not own.share.statistics:
        raise FleetError(
            f"the {task.statistic.kind} statistic of its samples exceeds [share] statistics = false; use "
            "settings without it in the experiment, or set statistics = true in the device's edge.toml"
        )
    if task.statistic is not None and task.reply:
        privacy.check(task, own.share)
    if task.statistic is not None and (task.statistic.examples or 1) < 1:
        raise FleetError(f"statistic of {task.statistic.examples} examples: at least 1 is needed")
    if task.kind in ("train", "refit", "restat", "summarize"):
        cost = worker.cost_of(task)
        if edge.macs is not None and cost.macs_per_example > edge.macs:
            raise _exceeded(f"{cost.macs_per_example} multiply-adds exceed [edge] macs = {edge.macs:g}")
        if edge.parameters is not None and cost.parameters > edge.parameters:
            raise _exceeded(f"{cost.parameters} parameters exceed [edge] parameters = {edge.parameters:g}")
    if task.kind == "share":
        record.check(task.share or Share(), worker.data.train, own.share)
    if task.kind == "lend" and task.blob is not None:
        lent, present = decode_samples(task.blob).inputs, worker.data.train.inputs
        if lent.shape[1:] != present.shape[1:] or lent.dtype != present.dtype:
            raise FleetError(
                f"lent samples are {tuple(lent.shape[1:])} {lent.dtype}, "
                f"the device's are {tuple(present.shape[1:])} {present.dtype}"
            )


def _exceeded(text: str) -> FleetError:
    """Return the error for a request that exceeds a limit of ``[edge]``."""
    return FleetError(f"{text}; ask for less in the experiment, or raise the limit in the device's edge.toml")


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings in a decoded JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
