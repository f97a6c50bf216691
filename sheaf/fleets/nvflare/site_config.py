"""The files that NVIDIA FLARE reads at a site, and those of a job.

A site's files are rewritten at each start of the cloud or the device; nothing in them comes from the other
side. Both sides speak mutual TLS only, and accept only jobs of the fleet's administrator, without code. On
each side, a job may name two classes: one of FLARE's Collab API, and ``Relay`` or ``Edge``.

Private parts of FLARE: the formats of all these files, and the names of its classes in them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sheaf.fleets.nvflare.kits import Kit, write_private
from sheaf.fleets.nvflare.processes import PROJECT

ADMIN = "admin@sheaf.local"
"""The administrator's name."""

RELAY = "sheaf.fleets.nvflare.relay.Relay"
EDGE = "sheaf.fleets.nvflare.device_app.Edge"
CONTROLLER = "nvflare.collab.runtime.controller.CollabController"
EXECUTOR = "nvflare.collab.runtime.executor.CollabExecutor"

PROCESS_START_TIMEOUT = 120
"""Seconds in which a job's processes on the devices must start; a Raspberry Pi takes long to import torch."""

AUTHORIZATION = {
    "format_version": "1.0",
    "permissions": {
        "project_admin": {
            "submit_job": "any",
            "clone_job": "none",
            "manage_job": "any",
            "download_job": "none",
            "view": "any",
            "operate": "any",
            "shell_commands": "none",
            "byoc": "none",
            "server-predeployed-flwr": "none",
        }
    },
}
"""Permissions by role: administrators may run jobs without code (``byoc``); no other role exists."""

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {
            "()": "nvflare.fuel.utils.log_utils.BaseFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s: %(message)s",
        }
    },
    "handlers": {
        "file": {
            "class": "logging.handlers.RotatingFileHandler",
            "level": "INFO",
            "formatter": "plain",
            "filename": "log.txt",
            "mode": "a",
            "maxBytes": 5_000_000,
            "backupCount": 2,
        }
    },
    "loggers": {
        "root": {"level": "WARNING", "handlers": ["file"]},
        "sheaf": {"level": "INFO"},
        "nvflare.private.fed.server.client_manager": {"level": "INFO"},
        "nvflare.private.fed.client.communicator": {"level": "INFO"},
    },
}


def write_cloud(workspace: Path, kit: Path, host: str, port: int, removed: Sequence[str]) -> None:
    """Write the files of the cloud.

    Args:
        workspace: folder of FLARE's server.
        kit: folder with the server's certificate and key.
        host, port: address of the server.
        removed: devices that the server rejects.
    """
    jobs = workspace / "jobs"
    shutil.rmtree(jobs, ignore_errors=True)  # old jobs are not resumed: the run's journal is
    server = {
        "name": PROJECT,
        "service": {"target": f"{host}:{port}", "scheme": "grpc"},
        "admin_server": host,
        "admin_port": port,
        "ssl_private_key": "server.key",
        "ssl_cert": "server.crt",
        "ssl_root_cert": "rootCA.pem",
        "connection_security": "mtls",
    }
    limits = {
        "admin_storage": "transfer",
        "max_num_clients": 10_000,
        "heart_beat_timeout": 60,
        "admin_timeout": 10.0,
    }
    storage = "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"
    resources = _resources([CONTROLLER, RELAY]) | {
        "servers": [limits],
        "snapshot_persistor": {
            "path": "nvflare.app_common.state_persistors.storage_state_persistor.StorageStatePersistor",
            "args": {
                "uri_root": "/",
                "storage": {"path": storage, "args": {"root_dir": str(jobs / "snapshots"), "uri_root": "/"}},
            },
        },
        "components": [
            _component(
                "job_scheduler",
                "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
                max_jobs=64,
                min_schedule_interval=1.0,
            ),
            _component(
                "job_manager",
                "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
                uri_root=str(jobs / "store"),
                job_store_id="job_store",
            ),
            _component("job_store", storage),
            _component(
                "process_launcher",
                "nvflare.app_common.job_launcher.server_process_launcher.ServerProcessJobLauncher",
            ),
            _component("memory_trim", "sheaf.fleets.nvflare.server_memory.MemoryTrim"),
            _component("presence", "sheaf.fleets.nvflare.server_presence.PresenceRecord"),
        ],
    }
    _write(workspace, "fed_server.json", {"format_version": 2, "servers": [server]}, resources)
    write_private(workspace / "disabled_clients.json", json.dumps({"disabled_clients": list(removed)}))
    for name in ("server.key", "server.crt", "rootCA.pem"):
        write_private(workspace / "startup" / name, (kit / name).read_text())


def write_edge(workspace: Path, kit: Kit) -> None:
    """Write the files of the device with this kit."""
    client = {
        "format_version": 2,
        "servers": [
            {
                "name": PROJECT,
                "service": {"target": f"{kit.host}:{kit.port}", "scheme": "grpc"},
                "identity": kit.host,
            }
        ],
        "client": {
            "ssl_private_key": "client.key",
            "ssl_cert": "client.crt",
            "ssl_root_cert": "rootCA.pem",
            "fqsn": kit.edge,
            "is_leaf": True,
            "connection_security": "mtls",
        },
    }
    gpus = "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager"
    resources = _resources([EXECUTOR, EDGE]) | {
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "None"},
        "components": [
            _component("resource_manager", gpus, num_of_gpus=0, mem_per_gpu_in_GiB=0),
            _component(
                "resource_consumer",
                "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer",
            ),
            _component("process_launcher", "sheaf.fleets.nvflare.launcher.CrashTolerantLauncher"),
        ],
    }
    _write(workspace, "fed_client.json", client, resources)
    for name, text in (
        ("client.key", kit.key),
        ("client.crt", kit.certificate),
        ("rootCA.pem", kit.authority),
    ):
        write_private(workspace / "startup" / name, text)


def write_job(folder: Path, name: str, sites: Sequence[str]) -> None:
    """Write a job that starts ``Relay`` on the cloud and ``Edge`` on ``sites``."""
    config = folder / "app" / "config"
    config.mkdir(parents=True)
    meta = {
        "name": name,
        "min_clients": 1,
        "resource_spec": {},
        "deploy_map": {"app": ["server", *sites]},
    }
    args = {"server_obj_id": "cloud", "sync_task_timeout": PROCESS_START_TIMEOUT}
    server = {
        "format_version": 2,
        "workflows": [{"id": "relay", "path": CONTROLLER, "args": args}],
        "components": [_component("cloud", RELAY)],
        "task_data_filters": [],
        "task_result_filters": [],
    }
    client = {
        "format_version": 2,
        "executors": [{"tasks": ["*"], "executor": {"path": EXECUTOR, "args": {"client_obj_id": "edge"}}}],
        "components": [_component("edge", EDGE)],
        "task_data_filters": [],
        "task_result_filters": [],
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    (config / "config_fed_server.json").write_text(json.dumps(server))
    (config / "config_fed_client.json").write_text(json.dumps(client))


def _resources(classes: list[str]) -> dict[str, Any]:
    return {"format_version": 2, "class_list_enforcement_mode": "enforce", "class_allow_list": classes}


def _component(name: str, path: str, **arguments: Any) -> dict[str, Any]:
    return {"id": name, "path": path, "args": arguments}


def _write(workspace: Path, start: str, config: dict[str, Any], resources: dict[str, Any]) -> None:
    for folder in (workspace, workspace / "startup", workspace / "local", workspace / "transfer"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {
        f"startup/{start}": config,
        "local/authorization.json": AUTHORIZATION,
        "local/resources.json": resources,
        "local/log_config.json": LOGGING,
    }
    for name, content in files.items():
        write_private(workspace / name, json.dumps(content, indent=1))
