"""Kits and the folder of a fleet: permissions, and refused files and names."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support import one_line

from sheaf.core.errors import DataError, FleetError, SettingError
from sheaf.fleets.nvflare import provision
from sheaf.fleets.nvflare.join import configure_device
from sheaf.fleets.nvflare.kits import Kit


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet") / "fleet"
    provision.init(folder, "cloud.example.org", 8002, ["shop-1", "shop-2"])
    return folder


def test_all_files_are_private_to_their_owner(fleet: Path) -> None:
    for path in [fleet, *fleet.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path} has mode {mode:o}"


def test_kits_contain_the_clouds_address_and_different_keys(fleet: Path) -> None:
    one, other = (Kit.read(fleet / "kits" / f"shop-{n}.kit") for n in (1, 2))
    assert (one.edge, one.host, one.port) == ("shop-1", "cloud.example.org", 8002)
    assert one.authority == other.authority
    assert len({one.key, other.key, (fleet / "authority" / "server" / "server.key").read_text()}) == 3


def test_a_kit_that_others_can_read_is_refused(fleet: Path, tmp_path: Path) -> None:
    kit = tmp_path / "shop-1.kit"
    kit.write_text((fleet / "kits" / "shop-1.kit").read_text())
    for mode in (0o604, 0o640, 0o644, 0o660):
        kit.chmod(mode)
        with pytest.raises(FleetError, match="chmod 600") as error:
            configure_device(kit, tmp_path, None, tmp_path / "state")
        one_line(error)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"edge": "../x"},
        {"edge": "cloud"},
        {"host": "a b"},
        {"port": 0},
        {"key": "none"},
        {"run": "rm -rf /"},
    ],
)
def test_a_kit_with_a_wrong_value_is_refused(fleet: Path, tmp_path: Path, change: dict[str, object]) -> None:
    content = json.loads((fleet / "kits" / "shop-1.kit").read_text())
    kit = tmp_path / "bad.kit"
    kit.write_text(json.dumps({"kit": content["kit"] | change}))
    kit.chmod(0o600)
    with pytest.raises(FleetError, match="is not a kit") as error:
        Kit.read(kit)
    one_line(error)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"kit": 3}', "\x00"])
def test_a_file_that_is_not_a_kit_is_refused(tmp_path: Path, content: str) -> None:
    kit = tmp_path / "bad.kit"
    kit.write_text(content)
    kit.chmod(0o600)
    with pytest.raises(FleetError, match="is not a kit"):
        Kit.read(kit)


def test_a_device_writes_its_policy_without_the_kit(fleet: Path, tmp_path: Path) -> None:
    name, state = configure_device(fleet / "kits" / "shop-1.kit", tmp_path, None, tmp_path / "state")
    assert name == "shop-1"
    for path in state.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    resources = json.loads((state / "flare" / "local" / "resources.json").read_text())
    assert resources["class_list_enforcement_mode"] == "enforce"
    assert resources["class_allow_list"] == [
        "nvflare.collab.runtime.executor.CollabExecutor",
        "sheaf.fleets.nvflare.device_app.Edge",
    ]
    rights = json.loads((state / "flare" / "local" / "authorization.json").read_text())["permissions"]
    assert list(rights) == ["project_admin"]
    assert (rights["project_admin"]["byoc"], rights["project_admin"]["shell_commands"]) == ("none", "none")
    client = json.loads((state / "flare" / "startup" / "fed_client.json").read_text())
    assert client["client"]["connection_security"] == "mtls"
    assert client["servers"][0]["service"] == {"target": "cloud.example.org:8002", "scheme": "grpc"}


def test_edge_toml_is_read_strictly(fleet: Path, tmp_path: Path) -> None:
    own = tmp_path / "edge.toml"
    for text, message in (
        ("[edge]\nwidths = 1.0", "edge.widths"),
        ("[share]\nmax_fraction = 2.0", "share.max_fraction"),
        ("[edge]\nallow = 'all'", "edge.allow"),
        ("[edge", "cannot be read as TOML"),
    ):
        own.write_text(text)
        with pytest.raises(SettingError) as error:
            configure_device(fleet / "kits" / "shop-1.kit", tmp_path, own, tmp_path / "state")
        assert message in one_line(error)
    with pytest.raises(DataError, match="does not exist; name a folder"):
        configure_device(fleet / "kits" / "shop-1.kit", tmp_path / "nowhere", None, tmp_path / "state")


def test_devices_are_added_and_removed_permanently(fleet: Path) -> None:
    before = (fleet / "kits" / "shop-1.kit").read_text()
    kit = provision.add(fleet, "shop-3")
    assert Kit.read(kit).authority == Kit.read(fleet / "kits" / "shop-1.kit").authority
    assert (fleet / "kits" / "shop-1.kit").read_text() == before
    with pytest.raises(FleetError, match="is already in the fleet"):
        provision.add(fleet, "shop-3")
    provision.remove(fleet, "shop-3")
    assert not kit.exists()
    assert provision.read(fleet).edges == ("shop-1", "shop-2")
    with pytest.raises(FleetError, match="was once in the fleet; choose another name"):
        provision.add(fleet, "shop-3")
    with pytest.raises(FleetError, match="is not in the fleet; its devices: shop-1, shop-2"):
        provision.remove(fleet, "shop-3")
    workspace = provision.write_workspace(fleet, provision.read(fleet))
    disabled = json.loads((workspace / "disabled_clients.json").read_text())
    assert disabled == {"disabled_clients": ["shop-3"]}


@pytest.mark.parametrize(
    ("host", "port", "edges", "message"),
    [
        ("a b", 8002, ["x"], "host"),
        ("a", 0, ["x"], "port"),
        ("a", 8002, [], "edges"),
        ("a", 8002, ["x", "x"], "two edges are named 'x'"),
        ("a", 8002, ["cloud"], "cannot be named 'cloud'"),
        ("a", 8002, ["server"], "cannot be named 'server'"),
        ("a", 8002, ["../x"], "cannot be named"),
    ],
)
def test_an_invalid_fleet_is_refused_and_leaves_no_folder(
    tmp_path: Path, host: str, port: int, edges: list[str], message: str
) -> None:
    with pytest.raises((FleetError, SettingError)) as error:
        provision.init(tmp_path / "new", host, port, edges)
    assert message in one_line(error)
    assert not (tmp_path / "new").exists()
