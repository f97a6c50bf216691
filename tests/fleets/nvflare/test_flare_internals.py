"""The private parts of FLARE that sheaf depends on; each failure names the module of sheaf to change."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.job_launcher_spec import JobReturnCode
from nvflare.app_common.job_launcher.process_launcher import ProcessHandle
from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer
from nvflare.collab import collab
from nvflare.collab.api.context import get_call_context, set_call_context
from nvflare.private.fed.server.client_manager import ClientManager

from sheaf.fleets.nvflare import processes, site_config
from sheaf.fleets.nvflare.kits import Kit
from sheaf.fleets.nvflare.launcher import Handle

FORMATS = "site_config.py: FLARE has changed the format of its files"


@pytest.fixture
def sites(tmp_path: Path) -> tuple[Path, Path]:
    """The workspaces of a cloud and of a device, with empty keys."""
    for name in ("server.key", "server.crt", "rootCA.pem"):
        (tmp_path / name).write_text("")
    site_config.write_cloud(tmp_path / "cloud", tmp_path, "localhost", 8002, ["shop-2"])
    pem = "-----BEGIN X-----\n"
    kit = Kit(edge="shop-1", host="localhost", port=8002, authority=pem, certificate=pem, key=pem)
    site_config.write_edge(tmp_path / "edge", kit)
    return tmp_path / "cloud", tmp_path / "edge"


def components(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the class name and the arguments of each component in a configuration."""
    if isinstance(config, dict):
        if "path" in config:
            yield config["path"], config.get("args", {})
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from components(item)


def test_the_version_is_the_tested_one() -> None:
    assert version("nvflare") == "2.9.0", "run tests/end_to_end/test_real_fleet.py and benchmarks.faults"


@pytest.mark.parametrize("module", [processes.SERVER, processes.CLIENT])
def test_the_processes_accept_the_arguments(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    for option in ("-m", "-s", "--set"):
        assert option in done.stdout, f"processes.py: {module} has no option {option}"


def test_a_devices_heartbeat_can_be_set() -> None:
    spec = importlib.util.find_spec(processes.CLIENT)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    assert '"heart_beat_interval"' in source, "processes.py: FLARE has renamed heart_beat_interval"


def test_a_disabled_client_is_rejected_with_the_expected_text(sites: tuple[Path, Path]) -> None:
    manager = ClientManager("sheaf", 1)
    manager.set_disabled_clients_file(str(sites[0] / "disabled_clients.json"))
    assert manager.disabled_clients == {"shop-2"}, FORMATS
    pattern, _ = processes.REJECTIONS[0]
    source = inspect.getsource(ClientManager)
    assert pattern.search(source), "processes.py: FLARE's message for a disabled client has changed"


def test_all_components_exist_and_accept_their_arguments(sites: tuple[Path, Path], tmp_path: Path) -> None:
    site_config.write_job(tmp_path / "job", "job", ["shop-1"])
    config = tmp_path / "job" / "app" / "config"
    files = [site / "local" / "resources.json" for site in sites]
    files += [config / "config_fed_server.json", config / "config_fed_client.json"]
    seen = set()
    for file in files:
        for name, arguments in components(json.loads(file.read_text())):
            module, _, attribute = name.rpartition(".")
            cls = getattr(importlib.import_module(module), attribute)
            inspect.signature(cls).bind(**arguments)
            seen.add(name)
    assert seen >= {site_config.CONTROLLER, site_config.RELAY, site_config.EXECUTOR, site_config.EDGE}


def test_the_class_allow_list_is_enforced(sites: tuple[Path, Path]) -> None:
    for site, own in zip(sites, (site_config.RELAY, site_config.EDGE), strict=True):
        resources = json.loads((site / "local" / "resources.json").read_text())
        allowed, mode, uses_default = ComponentPathAuthorizer()._get_policy_from_resources(resources)
        assert (mode.value, uses_default) == ("enforce", False), FORMATS
        assert own in allowed, FORMATS
        assert len(allowed) == 2, FORMATS


def test_a_killed_process_is_reported_as_unknown() -> None:
    def handle(code: str) -> Handle:
        command = [sys.executable, "-c", code]  # FLARE terminates the process group
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        return Handle(ProcessHandle(process=process))

    killed = handle("import os; os.kill(os.getpid(), 9)")
    failed, running = handle("1/0"), handle("import time; time.sleep(60)")
    killed.wait()
    failed.wait()
    message = "launcher.py: FLARE's ProcessHandle has changed"
    assert killed._process.poll() == JobReturnCode.EXECUTION_ERROR, "launcher.py is no longer needed"
    assert killed.poll() == JobReturnCode.UNKNOWN, message
    assert failed.poll() == JobReturnCode.EXECUTION_ERROR, message
    running.terminate()
    running.wait()


def test_the_call_context_belongs_to_a_thread() -> None:
    """The relay passes the context of its main thread on to its other threads."""
    contexts = []
    set_call_context("context")
    try:
        for given in (None, "context"):

            def run(given: str | None = given) -> None:
                if given is not None:
                    set_call_context(given)
                contexts.append(get_call_context())

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    finally:
        set_call_context(None)
    assert contexts == [None, "context"], "relay.py: FLARE's call context is no longer thread-local"


def test_the_collab_facade_has_the_names_in_use() -> None:
    for name in ("main", "init", "publish"):
        assert callable(getattr(collab, name)), "relay.py, device_app.py: FLARE's Collab API has changed"
    for name in ("caller", "clients", "is_aborted"):
        assert name in vars(collab), "relay.py, device_app.py: FLARE's Collab API has changed"
