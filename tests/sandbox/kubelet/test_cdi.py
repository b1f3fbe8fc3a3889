from __future__ import annotations

import json
from pathlib import Path

import pytest

from dra_driver.model.edits import ContainerEdits, DeviceNode, Mount
from dra_driver.ports import JsonObject
from dra_driver.sandbox.kubelet.cdi import UnresolvableDevice, resolve


def write_spec(
    folder: Path, name: str, kind: str, shared: JsonObject, **devices: JsonObject
) -> None:
    folder.mkdir(exist_ok=True)
    listed = [{"name": device, "containerEdits": edits} for device, edits in devices.items()]
    spec = {"cdiVersion": "0.5.0", "kind": kind, "containerEdits": shared, "devices": listed}
    (folder / name).write_text(json.dumps(spec))


def test_edits_are_merged_in_order_and_the_shared_ones_come_once(tmp_path: Path) -> None:
    """First what the file says for all its devices, then each device; a later one of the same name wins."""
    node = {"path": "/dev/a", "hostPath": "/host/a", "permissions": "rw"}
    mount = {"hostPath": "/lib", "containerPath": "/usr/lib", "options": ["ro"]}
    write_spec(
        tmp_path,
        "a.json",
        "v.io/gpu",
        {"env": ["WHO=all", "LAST=all"]},
        one={"env": ["LAST=one"], "deviceNodes": [node]},
        two={"env": ["EQUALS=a=b"], "deviceNodes": [{"path": "/dev/b"}], "mounts": [mount]},
    )
    assert resolve(["v.io/gpu=one", "v.io/gpu=two"], [tmp_path]) == ContainerEdits(
        env=(("WHO", "all"), ("LAST", "one"), ("EQUALS", "a=b")),
        device_nodes=(
            DeviceNode(path="/dev/a", host_path="/host/a", permissions="rw"),
            DeviceNode(path="/dev/b", permissions="rwm"),
        ),
        mounts=(Mount(host_path="/lib", container_path="/usr/lib", options=("ro",)),),
    )


def test_only_json_files_count(tmp_path: Path) -> None:
    """Half-written files have other names, and a folder may be missing."""
    write_spec(tmp_path, ".a.json.tmp", "v.io/gpu", {}, one={})
    with pytest.raises(
        UnresolvableDevice, match=r"unresolvable CDI device v\.io/gpu=one: no spec file"
    ):
        resolve(["v.io/gpu=one"], [tmp_path, tmp_path / "missing"])


def test_a_later_folder_wins(tmp_path: Path) -> None:
    """As /var/run/cdi does over /etc/cdi."""
    write_spec(tmp_path / "etc", "a.json", "v.io/gpu", {}, one={"env": ["FROM=etc"]})
    write_spec(tmp_path / "run", "a.json", "v.io/gpu", {}, one={"env": ["FROM=run"]})
    edits = resolve(["v.io/gpu=one"], [tmp_path / "etc", tmp_path / "run"])
    assert edits.env == (("FROM", "run"),)


def test_a_broken_spec_is_skipped(tmp_path: Path) -> None:
    """Its neighbours work."""
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"kind": "v.io/gpu"}')
    write_spec(tmp_path, "c.json", "v.io/gpu", {}, one={"env": ["GOOD=1"]})
    assert resolve(["v.io/gpu=one"], [tmp_path]).env == (("GOOD", "1"),)
