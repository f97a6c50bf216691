"""Train one model across edge devices and the cloud.

``sheaf.run("default")`` runs an experiment and returns the finished run. The other names are the building
blocks of your own methods, merges, partitions, models and datasets. Import them from here: the modules below
are private and may move.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from sheaf.core.openmp import limit_spinning

if TYPE_CHECKING:
    from sheaf.api.comparison import Comparison as Comparison
    from sheaf.api.comparison import compare as compare
    from sheaf.api.finished_run import Run as Run
    from sheaf.api.run import load as load
    from sheaf.api.run import resume as resume
    from sheaf.api.run import run as run
    from sheaf.api.sites import Sites as Sites
    from sheaf.api.sites import sites as sites
    from sheaf.core.cut import Cut as Cut
    from sheaf.core.dataset import Dataset as Dataset
    from sheaf.core.dataset import Samples as Samples
    from sheaf.core.errors import SheafError as SheafError
    from sheaf.core.fleet import Fleet as Fleet
    from sheaf.core.recipe import FromStatistics as FromStatistics
    from sheaf.core.recipe import Privacy as Privacy
    from sheaf.core.recipe import Recipe as Recipe
    from sheaf.core.recipe import Ridge as Ridge
    from sheaf.core.recipe import Share as Share
    from sheaf.core.recipe import Statistic as Statistic
    from sheaf.core.settings import settings as settings
    from sheaf.core.site_names import CLOUD as CLOUD
    from sheaf.core.task import Absence as Absence
    from sheaf.core.task import Cost as Cost
    from sheaf.core.task import Task as Task
    from sheaf.core.task import Update as Update
    from sheaf.core.tensor_file import Blob as Blob
    from sheaf.core.types import Params as Params
    from sheaf.data.load import load_dataset as load_dataset
    from sheaf.data.settings import DataSettings as DataSettings
    from sheaf.experiments.compare import Summary as Summary
    from sheaf.experiments.config import Experiment as Experiment
    from sheaf.experiments.config import load_experiment as load_experiment
    from sheaf.export.current_model import CurrentModel as CurrentModel
    from sheaf.fleets.local.fleet import LocalFleet as LocalFleet
    from sheaf.merges.merge import Merge as Merge
    from sheaf.merges.server_optimizer import ServerOptimizer as ServerOptimizer
    from sheaf.methods._training_budget import TrainingBudget as TrainingBudget
    from sheaf.methods.ecavg import ECAvg as ECAvg
    from sheaf.models.build import ModelSettings as ModelSettings
    from sheaf.models.build import build_model as build_model
    from sheaf.report.page import write_report as write_report
    from sheaf.runtime.cloud import Cloud as Cloud
    from sheaf.runtime.edge_tensors import EdgeTensors as EdgeTensors
    from sheaf.runtime.edges import Edges as Edges
    from sheaf.runtime.log import Log as Log
    from sheaf.runtime.observer import Observer as Observer
    from sheaf.runtime.result import Result as Result
    from sheaf.runtime.worker import Worker as Worker
    from sheaf.submodels.scheme import Scheme as Scheme
    from sheaf.submodels.scheme import SiteNeeds as SiteNeeds
    from sheaf.submodels.structure import ChannelStructure as ChannelStructure
    from sheaf.training.network import Network as Network
    from sheaf.training.step import LossContext as LossContext

_PUBLIC = {
    "CLOUD": "core.site_names",
    "Absence": "core.task",
    "Blob": "core.tensor_file",
    "ChannelStructure": "submodels.structure",
    "Cloud": "runtime.cloud",
    "Comparison": "api.comparison",
    "Cost": "core.task",
    "CurrentModel": "export.current_model",
    "Cut": "core.cut",
    "DataSettings": "data.settings",
    "Dataset": "core.dataset",
    "ECAvg": "methods.ecavg",
    "EdgeTensors": "runtime.edge_tensors",
    "Edges": "runtime.edges",
    "Experiment": "experiments.config",
    "Fleet": "core.fleet",
    "LocalFleet": "fleets.local.fleet",
    "Log": "runtime.log",
    "LossContext": "training.step",
    "Merge": "merges.merge",
    "ModelSettings": "models.build",
    "Network": "training.network",
    "Observer": "runtime.observer",
    "Params": "core.types",
    "Recipe": "core.recipe",
    "Result": "runtime.result",
    "FromStatistics": "core.recipe",
    "Privacy": "core.recipe",
    "Ridge": "core.recipe",
    "Run": "api.finished_run",
    "Samples": "core.dataset",
    "Scheme": "submodels.scheme",
    "ServerOptimizer": "merges.server_optimizer",
    "Share": "core.recipe",
    "SheafError": "core.errors",
    "SiteNeeds": "submodels.scheme",
    "Sites": "api.sites",
    "Statistic": "core.recipe",
    "Summary": "experiments.compare",
    "Task": "core.task",
    "TrainingBudget": "methods._training_budget",
    "Update": "core.task",
    "Worker": "runtime.worker",
    "build_model": "models.build",
    "compare": "api.comparison",
    "load": "api.run",
    "load_dataset": "data.load",
    "load_experiment": "experiments.config",
    "resume": "api.run",
    "run": "api.run",
    "settings": "core.settings",
    "sites": "api.sites",
    "write_report": "report.page",
}
"""Public name -> the module below ``sheaf`` that defines it."""

__all__ = ["__version__", *_PUBLIC]

limit_spinning(os.environ)  # before torch is imported


def __getattr__(name: str) -> Any:
    # Names are imported on first use: importing torch takes seconds, and `sheaf list` needs none of it.
    if name == "__version__":
        return importlib.import_module("sheaf.core.optional_imports").installed_version()
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sheaf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sheaf.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
