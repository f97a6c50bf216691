"""From what a caller gives (names, paths, objects) to an experiment, which has names only.

A dataset or a model without an importable name gets the name ``object:LABEL_DIGEST`` (``core/objects.py``).
Its record has the digests by which a later process recognises the same object.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import CodeType
from typing import Any, TypeAlias

from torch import Tensor, nn

from sheaf.core import objects
from sheaf.core.dataset import Dataset
from sheaf.core.errors import DataError, RunFolderError, SettingError, first_line
from sheaf.core.settings import plain
from sheaf.data.load import convert_object, load_dataset
from sheaf.data.readers.python_objects import object_label
from sheaf.data.settings import DataSettings
from sheaf.experiments.config import METHOD_NOTE, Experiment, load_experiment
from sheaf.experiments.run_check import weights_file
from sheaf.experiments.run_folder import data_root, read_command
from sheaf.export.trained_model import read_card
from sheaf.models.build import ModelSettings, build_model
from sheaf.models.user_model import copied
from sheaf.runtime.result import Result

Changes: TypeAlias = Iterable[str] | Mapping[str, Any]
Shape = tuple[int, int, int]


def experiment_of(
    source: str | Path | Experiment,
    *,
    data: Any = None,
    model: Any = None,
    method: Any = None,
    partition: Any = None,
    seed: int | None = None,
    changes: Changes = (),
    root: Path | None = None,
) -> Experiment:
    """Return the experiment in which the given data, model, method, partition and seed replace its own.

    Args:
        source: the name of a shipped experiment, a TOML file, or an experiment.
        data: a name or folder as in ``data.name``; ``DataSettings``; or an object that
            ``data/readers/python_objects.py`` reads, or a callable that returns one.
        model: a name as in ``model.name``; ``ModelSettings``; an ``nn.Module``, whose parameters are the
            start weights; or a callable that returns one.
        method, partition: a name, a table with name and settings, a class, or an instance.
        seed: the seed.
        changes: further changes, as ``load_experiment`` takes them. They apply last.
        root: the directory in which named datasets are looked for first.

    Raises:
        SheafError: any error that the caller can fix.
    """
    data = _call_builder(data)
    by_name = isinstance(method, str | Mapping)
    experiment = load_experiment(source, {"method": method} if by_name else {})
    if method is not None and not by_name:
        if isinstance(method, type):
            method = method.within(experiment.method.budget) if hasattr(method, "within") else method()
        experiment = replace(experiment, method=_plugin("method", method))
    if isinstance(partition, str):
        experiment = load_experiment(experiment, {"partition.name": partition})
    elif isinstance(partition, Mapping):
        experiment = load_experiment(experiment, {"partition": partition})
    elif partition is not None:
        experiment = replace(experiment, partition=_plugin("partition", partition))
    if seed is not None:
        experiment = load_experiment(experiment, {"seed": seed})
    if isinstance(data, DataSettings):
        experiment = replace(experiment, data=data)
    elif data is not None:
        experiment = replace(experiment, data=replace(experiment.data, name=_name(data, "data")))
    if isinstance(model, ModelSettings):
        experiment = replace(experiment, model=model)
    elif model is not None:
        experiment = replace(experiment, model=ModelSettings(name=_name(model, "model")))
    experiment = load_experiment(experiment, changes)
    if experiment.data.name == _name(data, "data") and objects.is_object(experiment.data.name):
        name = name_dataset(dataset_of(data, experiment.data), object_label(data))
        experiment = replace(experiment, data=replace(experiment.data, name=name))
    if experiment.model.name == _name(model, "model") and objects.is_object(experiment.model.name):
        dataset = load_dataset(experiment.data, root)
        name = name_model(model, experiment.model, len(dataset.classes), dataset.shape)
        experiment = replace(experiment, model=replace(experiment.model, name=name))
    return _with_title(load_experiment(source), experiment)


def _with_title(before: Experiment, after: Experiment) -> Experiment:
    """Add to the title what is not the experiment's own any more, as ``--set method=NAME`` does."""
    title, note, method = after.title.partition(METHOD_NOTE)
    for kind in ("data", "model"):
        old, new = (objects.readable(_name_in(experiment, kind)) for experiment in (before, after))
        if title and old != new and f"; {kind} changed to " not in title:
            title += f"; {kind} changed to {Path(new).name}"
    if title and not note and _name_in(before, "method") != _name_in(after, "method"):
        note, method = METHOD_NOTE, objects.readable(_name_in(after, "method"))
    return replace(after, title=title + note + method)


def _name_in(experiment: Experiment, kind: str) -> str:
    return str(plain(getattr(experiment, kind))["name"])


def give_again(folder: Path, data: Any, model: Any, resume: bool) -> None:
    """Put the objects of a run that another process made into the table of this one.

    Args:
        folder: the run's folder.
        data: its dataset; None if its data has an importable name, or is not needed.
        model: its model, likewise. To use trained models, only its structure must be the same.
        resume: whether the run is to be continued, for which the start weights must be the same too.

    Raises:
        RunFolderError: the run has no such object, or another one.
    """
    if data is None and model is None:
        return
    experiment = load_experiment(folder / "experiment.toml")
    records = read_command(folder).get("objects", {})
    if data is not None:
        name, record = _recorded(folder, "data", experiment.data.name, records)
        dataset = dataset_of(data, experiment.data)
        _check_same(folder, "data", record, {"sha256": dataset.fingerprint})
        objects.put(name, dataset, record)
    if model is not None:
        name, record = _recorded(folder, "model", experiment.model.name, records)
        classes, shape = _outputs_and_inputs(folder, experiment)
        builder, digests = _examine(model, experiment.model, classes, shape)
        same = ("structure", "start") if resume and "start" in record else ("structure",)
        _check_same(folder, "model", record, {key: digests.get(key) for key in same})
        objects.put(name, builder, record)


def name_dataset(dataset: Dataset, label: str) -> str:
    """Put a dataset into the table and return its name."""
    record = {
        "type": label,
        "train": len(dataset.train),
        "test": len(dataset.test),
        "classes": len(dataset.classes),
        "sha256": dataset.fingerprint,
    }
    return objects.add(label, dataset, record, dataset.fingerprint)


def dataset_of(data: Any, settings: DataSettings) -> Dataset:
    """Return the dataset of an object, or of a callable that returns one."""
    data = _call_builder(data)
    return convert_object(data, replace(settings, name=f"{objects.PREFIX}:{object_label(data)}"))


def name_model(model: Any, settings: ModelSettings, classes: int, shape: Shape) -> str:
    """Put a module or a builder into the table and return its name.

    Raises:
        SettingError: it does not map inputs of this shape to logits of these classes.
    """
    builder, record = _examine(model, settings, classes, shape)
    digest = _sha256(record["structure"], record.get("start", ""), record.pop("code"))
    return objects.add(record["type"], builder, record, digest)


class _Copies:
    """A builder whose models are copies of one module, with its parameters."""

    def __init__(self, module: nn.Module) -> None:
        self._module = copied(module, _label(module)).cpu()

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self._module)


def _examine(
    model: Any, settings: ModelSettings, classes: int, shape: Shape
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return a builder and its record, which includes the digest of the code."""
    label = _label(model)
    builder = _Copies(model) if isinstance(model, nn.Module) else model
    if not callable(builder):
        raise SettingError(
            f"model = {label}: give a name, an nn.Module, or a callable that returns one, not "
            f"{type(model).__name__}"
        )
    trial = f"{objects.PREFIX}:{label}"
    objects.put(trial, builder, {})
    built = build_model(replace(settings, name=trial), classes, shape, seed=0)
    state = built.state_dict()
    shapes = {key: [str(value.dtype), list(value.shape)] for key, value in state.items()}
    record = {
        "type": label,
        "parameters": sum(value.numel() for value in built.parameters()),
        "structure": _sha256(json.dumps(shapes), repr(built)),
        "code": _sha256(*_code_of_model(built), *_code_of(builder)),
    }
    if isinstance(model, nn.Module):
        record["start"] = _sha256(*(_bytes(value) for value in state.values()))
    return builder, record


def _call_builder(data: Any) -> Any:
    """Return the data that a callable returns; the callable itself if another process can import it.

    Raises:
        DataError: it fails.
    """
    if not _is_builder(data):
        return data
    try:
        made = data()
    except Exception as error:  # a user's function may raise any
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise DataError(f"data = {data.__qualname__}: the data cannot be made: {reason}") from error
    return data if isinstance(made, Dataset) and objects.importable_name(data) else made


def _name(value: Any, kind: str) -> str:
    """Return the name of a given dataset or model; ``object:LABEL`` if it has to be put into the table."""
    if isinstance(value, str | Path):
        return str(value)
    label = _label(value) if kind == "model" else "data"
    found = objects.importable_name(value) if _is_builder(value) else None
    return found or f"{objects.PREFIX}:{label}"


def _label(model: Any) -> str:
    cls = type(model) if isinstance(model, nn.Module) or not hasattr(model, "__name__") else model
    name = str(cls.__name__)
    return "model" if name == "<lambda>" else name


def _is_builder(value: Any) -> bool:
    """Return whether a value is a function or class that makes data or a model, not one itself."""
    return callable(value) and hasattr(value, "__qualname__")


def _plugin(kind: str, value: Any) -> Any:
    if is_dataclass(value) and callable(getattr(value, "run" if kind == "method" else "__call__", None)):
        return value
    raise SettingError(
        f"{kind} = {value!r}: give a name, or an instance of a {kind}'s class, decorated with @settings"
    )


def _recorded(folder: Path, argument: str, name: str, records: Mapping[str, Any]) -> tuple[str, Any]:
    if name not in records:
        raise RunFolderError(f"the {argument} of {folder} is found by its name {name!r}; remove {argument}=")
    return name, records[name]


def _check_same(folder: Path, argument: str, record: Mapping[str, Any], digests: Mapping[str, Any]) -> None:
    for key, digest in digests.items():
        if record[key] != digest:
            aspect = {"sha256": "content", "structure": "structure", "start": "start weights"}[key]
            raise RunFolderError(
                f"{argument} is not that of {folder} ({record['type']}): the digest of its {aspect} is "
                f"{str(digest)[:12]}, not {record[key][:12]}; give the same {argument}"
            )


def _outputs_and_inputs(folder: Path, experiment: Experiment) -> tuple[int, Shape]:
    """Return the number of classes and the shape of one example, from the run's models or from its data."""
    if (folder / "result.json").exists():
        card = read_card(weights_file(folder, next(iter(Result.read(folder).weights))))
        return len(card.classes), card.in_shape
    dataset = load_dataset(experiment.data, data_root(folder))
    return len(dataset.classes), dataset.shape


def _code_of_model(model: nn.Module) -> Iterator[str]:
    """Yield the byte code of the modules' classes that are not torch's own."""
    for cls in sorted({type(module) for module in model.modules()}, key=lambda cls: cls.__qualname__):
        if not cls.__module__.startswith("torch."):
            for value in vars(cls).values():
                yield from _code_of(value)


def _code_of(function: Any) -> Iterator[str]:
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        yield _code(code)


def _code(code: CodeType) -> str:
    constants = [
        _code(value) if isinstance(value, CodeType) else _constant(value) for value in code.co_consts
    ]
    return repr((code.co_name, code.co_code, code.co_names, constants))


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _code(value)
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().numpy().tobytes()


def _sha256(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()
