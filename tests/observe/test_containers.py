"""Processes and their containers, as /proc of hosts with each kind of cgroup names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.observe.containers import Container, Containers

UID = "3b9aee5a-1f0c-4d5e-8a51-0a6c5b9f1d20"
UNIT = UID.replace("-", "_")
ID = "0123456789abcdef" * 4


def host(folder: Path, *, own_pids: str = "77", **cgroups: str) -> Containers:
    """A host's /proc with these processes' cgroup files, of which this process is one with these numbers."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/status").write_text(f"Name:\tpython\nNSpid:\t{own_pids}\n")
    for pid, text in cgroups.items():
        process = folder / "proc" / pid.removeprefix("p")
        process.mkdir()
        (process / "cgroup").write_text(text)
    return Containers(folder)


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNIT}.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-pod{UNIT}.slice/crio-{ID}.scope",
        f"/kubepods.slice/kubepods-pod{UNIT}.slice/crio-{ID}.scope/container",
        f"/kubepods/besteffort/pod{UID}/{ID}",
        f"/kubepods/besteffort/pod{UID}/crio-{ID}",
        f"/system.slice/containerd.service/kubepods-besteffort-pod{UNIT}.slice:cri-containerd:{ID}",
        f"/kubelet/kubepods/pod{UID}/{ID}/nested",
        f"/../../kubepods-burstable-pod{UNIT}.slice/cri-containerd-{ID}.scope",
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_pods_process_is_found(tmp_path: Path, path: str, version: int) -> None:
    """Whoever named the cgroup, and however deep the container has made its own below."""
    lines = [f"0::{path}"] if version == 2 else [f"4:memory:{path}", f"1:name=systemd:{path}"]
    containers = host(tmp_path, p42="".join(f"{line}\n" for line in lines))
    assert containers.of(42) == Container(pod_uid=UID, id=ID)


def test_a_static_pods_process_is_found(tmp_path: Path) -> None:
    """Its UID is a hash without dashes."""
    uid = "0123456789abcdef" * 2
    containers = host(tmp_path, p42=f"0::/kubepods/burstable/pod{uid}/{ID}\n")
    assert containers.of(42) == Container(pod_uid=uid, id=ID)


@pytest.mark.parametrize(
    "text",
    [
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        "0::/\n",
        f"0::/system.slice/docker-{ID}.scope\n",
        f"0::/kubepods/burstable/pod{UID}\n",
        "",
    ],
)
def test_a_process_of_no_pod_has_no_container(tmp_path: Path, text: str) -> None:
    """A user's, the kernel's, a container's that the kubelet does not know."""
    assert host(tmp_path, p42=text).of(42) is None


def test_names_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    """A container may name its own cgroups as it likes."""
    containers = host(tmp_path, p42="")
    path = f"0::/kubepods/pod{UID}/{ID}/".encode()
    (tmp_path / "proc/42/cgroup").write_bytes(path + b"\xff\xfe\n")
    assert containers.of(42) == Container(pod_uid=UID, id=ID)


def test_a_process_that_is_gone_has_no_container(tmp_path: Path) -> None:
    """The driver's list may be older than /proc."""
    assert host(tmp_path).of(42) is None


@pytest.mark.parametrize("own", ["77 1", ""])
def test_without_the_hosts_pids_nothing_is_said(tmp_path: Path, own: str) -> None:
    """The numbers that the driver gives then belong to nobody, or to somebody else."""
    containers = host(tmp_path, own_pids=own, p42=f"0::/kubepods/pod{UID}/{ID}\n")
    assert containers.of(42) is None
    assert not containers.are_seen


def test_a_host_that_is_not_mounted_says_nothing(tmp_path: Path) -> None:
    """No folder, no answer."""
    assert Containers(tmp_path).of(1) is None
