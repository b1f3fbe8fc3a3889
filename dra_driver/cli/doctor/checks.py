"""One function for each thing that `dra doctor` checks: from facts to findings, without asking anybody."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

import deviceclasses
from dra_driver.cli.doctor.facts import Facts
from dra_driver.model.device import Vendor
from dra_driver.model.names import DRIVER_NAME
from dra_driver.rules.coexistence import MIG_MANAGER_STATE, VENDOR_DRIVERS, offered_resource
from dra_driver.rules.draining import DRAIN_ANNOTATION
from dra_driver.rules.publish import LIMITED_ANNOTATION
from dra_driver.rules.upstream_bugs import bugs_of

OLDEST = (1, 34)
COUNTERS_BY_DEFAULT = (1, 36)
LONG = timedelta(minutes=10)


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the answer; `fix` says what to do, where there is something to do."""

    status: Status
    message: str
    fix: str = ""


Check = Callable[[Facts], Iterator[Finding]]


def check_version(facts: Facts) -> Iterator[Finding]:
    """Old enough versions lack resource.k8s.io/v1, or have bugs that somebody else has fixed."""
    if facts.version is None:
        return
    text = ".".join(map(str, facts.version))
    if facts.version < OLDEST:
        yield _fail(f"Kubernetes {text} has no resource.k8s.io/v1", "upgrade to 1.34 or newer")
        return
    yield _ok(f"Kubernetes {text}")
    for bug in bugs_of(facts.version):
        message = f"kubernetes/kubernetes#{bug.number}: {bug.what}; {bug.answer}"
        if bug.fixed_in is None:
            yield _ok(f"{message} (not fixed upstream)")
        else:
            yield _warn(message, f"upgrade to {'.'.join(map(str, bug.fixed_in))} or newer")


def check_gates(facts: Facts) -> Iterator[Finding]:
    """Whether partitions can be published."""
    if facts.keeps_counters:
        yield _ok("the API server keeps counters and taints: partitions are published")
    elif facts.keeps_counters is False:
        fix = "turn on DRAPartitionableDevices and DRADeviceTaints"
        old = facts.version is not None and facts.version < COUNTERS_BY_DEFAULT
        yield _warn(
            "the API server drops counters or taints: only what exists on the hardware is published",
            f"upgrade to 1.36, or {fix}" if old else fix,
        )


def check_classes(facts: Facts) -> Iterator[Finding]:
    """Our DeviceClasses, as this version ships them."""
    stored = {one["metadata"]["name"]: one["spec"] for one in facts.classes}
    shipped = {one["metadata"]["name"]: one["spec"] for one in deviceclasses.load_all()}
    missing = sorted(shipped.keys() - stored.keys())
    changed = sorted(
        name for name in shipped.keys() & stored.keys() if shipped[name] != stored[name]
    )
    if missing:
        yield _warn(f"missing: {', '.join(missing)}", "install the chart with deviceClasses.create")
    if changed:
        yield _warn(
            f"not as this version ships them: {', '.join(changed)}",
            "upgrade the chart, or keep your own under another name",
        )
    if not missing and not changed:
        yield _ok(f"all {len(shipped)} are there")


def check_rights(facts: Facts) -> Iterator[Finding]:
    """What the chart's service account may do."""
    if facts.refused is None:
        if "rights" not in facts.unknown:
            yield _ok("not installed by the chart: nothing to compare with")
    elif facts.refused:
        yield _fail(
            f"the plugin may not {', '.join(map(str, facts.refused))}",
            "upgrade the chart's release",
        )
    else:
        yield _ok("the plugin has all it needs")


def check_daemon_set(facts: Facts) -> Iterator[Finding]:
    """Whether the plugin runs where it should."""
    for one in facts.daemon_sets:
        name = f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        status = one.get("status", {})
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        if ready < wanted:
            logs = f"kubectl -n {one['metadata']['namespace']} logs daemonset/{one['metadata']['name']}"
            yield _fail(f"{name}: {ready} of {wanted} pods are ready", f"look at `{logs}`")
        else:
            yield _ok(f"{name}: {ready} pods are ready")


def check_slices(facts: Facts) -> Iterator[Finding]:
    """Whether each pool is complete: the scheduler takes nothing from one that is not."""
    newest: dict[str, int] = {}
    for pool in (item["spec"]["pool"] for item in facts.our_slices):
        newest[pool["name"]] = max(pool["generation"], newest.get(pool["name"], 0))
    current = [
        item["spec"]["pool"]
        for item in facts.our_slices
        if item["spec"]["pool"]["generation"] == newest[item["spec"]["pool"]["name"]]
    ]
    counts = Counter(pool["name"] for pool in current)
    wanted = {pool["name"]: pool["resourceSliceCount"] for pool in current}
    short = sorted(name for name in wanted if counts[name] != wanted[name])
    for name in short:
        yield _fail(
            f"pool {name} has {counts[name]} of {wanted[name]} slices",
            "look at the log of the plugin of that node: it says why it cannot publish",
        )
    if not counts:
        yield _warn("no node publishes devices", "see docs/user/troubleshooting.md")
    elif not short:
        yield _ok(f"{len(counts)} pools, all complete")


def check_modes(facts: Facts) -> Iterator[Finding]:
    """Nodes that publish only what exists on their hardware."""
    why = {
        item["spec"]["nodeName"]: reason
        for item in facts.our_slices
        if (reason := item["metadata"].get("annotations", {}).get(LIMITED_ANNOTATION))
    }
    for node, reason in sorted(why.items()):
        yield _warn(
            f"node {node} publishes no partitions: {reason}",
            "mend that, and restart the node's plugin",
        )


def check_drains(facts: Facts) -> Iterator[Finding]:
    """Nodes that give nothing out because somebody said so."""
    drained = {
        item["spec"]["nodeName"]
        for item in facts.our_slices
        if DRAIN_ANNOTATION in item["metadata"].get("annotations", {})
    }
    for node in sorted(drained):
        yield _warn(
            f"node {node} is drained", f"`dra drain --undo {node}` gives its devices out again"
        )


def check_nodes(facts: Facts) -> Iterator[Finding]:
    """Whether kubelet and runtime of the nodes with our devices can hand them to containers."""
    ours = {item["spec"].get("nodeName") for item in facts.our_slices}
    good = 0
    for node in facts.nodes:
        name = node["metadata"]["name"]
        info = node.get("status", {}).get("nodeInfo", {})
        if name not in ours or not info:
            continue
        kubelet, runtime = info.get("kubeletVersion", ""), info.get("containerRuntimeVersion", "")
        problem = _kubelet_problem(name, kubelet) or _runtime_problem(name, runtime)
        if problem:
            yield problem
        else:
            good += 1
    if good:
        yield _ok(f"kubelet and runtime of {good} nodes can do CDI")


def check_rivals(facts: Facts) -> Iterator[Finding]:
    """Whether somebody else gives the same GPUs out."""
    ours = {item["spec"].get("nodeName") for item in facts.our_slices}
    for node in facts.nodes:
        name = node["metadata"]["name"]
        allocatable = node.get("status", {}).get("allocatable", {})
        offered = [one for one in map(partial(offered_resource, allocatable), Vendor) if one]
        if name in ours and offered:
            yield _warn(
                f"node {name} also offers {', '.join(offered)}, by a device plugin",
                "remove the device plugin from this node: each would give out the other's GPUs",
            )
        if name in ours and MIG_MANAGER_STATE in node["metadata"].get("labels", {}):
            yield _warn(
                f"node {name} is managed by NVIDIA's MIG manager",
                "remove its label nvidia.com/mig.config and the manager from this node: it destroys the partitions of running pods",
            )
    for item in facts.slices:
        driver, name = item["spec"]["driver"], item["spec"].get("nodeName")
        if driver in VENDOR_DRIVERS.values() and name in ours:
            yield _warn(
                f"node {name} also publishes devices of {driver}",
                "let one driver have the node: each would give out the other's GPUs",
            )


def check_claims(facts: Facts) -> Iterator[Finding]:
    """Claims that hold our devices and cannot end by themselves."""
    nodes = {node["metadata"]["name"] for node in facts.nodes}
    for claim in facts.claims:
        where = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
        allocation = claim.get("status", {}).get("allocation") or {}
        results = allocation.get("devices", {}).get("results") or ()
        pools = {one["pool"] for one in results if one["driver"] == DRIVER_NAME}
        gone = {pool.rpartition("/")[0] for pool in pools} - nodes
        if gone and "nodes" not in facts.unknown:
            yield _warn(
                f"claim {where} holds devices of node {min(gone)}, which is gone",
                "delete the pods that use it, and the claim",
            )
        since = claim["metadata"].get("deletionTimestamp")
        if pools and since and facts.now - datetime.fromisoformat(since) > LONG:
            yield _warn(
                f"claim {where} has been going away since {since}",
                "end the pods in its status.reservedFor; if they are gone, look at the plugin's log",
            )


CHECKS: tuple[tuple[str, Check], ...] = (
    ("version", check_version),
    ("gates", check_gates),
    ("classes", check_classes),
    ("rights", check_rights),
    ("daemonset", check_daemon_set),
    ("slices", check_slices),
    ("modes", check_modes),
    ("drains", check_drains),
    ("nodes", check_nodes),
    ("rivals", check_rivals),
    ("claims", check_claims),
)
"""In the order in which they are printed. A check has the name of the fact that it needs most."""


def _kubelet_problem(node: str, version: str) -> Finding | None:
    numbers = _numbers(version)
    if numbers and numbers < OLDEST:
        message = f"kubelet {version} of node {node} does not speak DRA v1"
        return _fail(message, "upgrade it to 1.34 or newer")
    return None


def _runtime_problem(node: str, runtime: str) -> Finding | None:
    name, _, version = runtime.partition("://")
    numbers = _numbers(version)
    if name != "containerd" or not numbers or numbers >= (2, 0):
        return None
    if numbers < (1, 7):
        message = f"containerd {version} of node {node} knows no CDI: containers get no devices"
        return _fail(message, "upgrade it to 2.0 or newer")
    message = f"containerd {version} of node {node} has CDI off by default"
    return _warn(message, "upgrade it to 2.0, or set enable_cdi in its configuration")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _ok(message: str) -> Finding:
    return Finding(status=Status.OK, message=message)


def _warn(message: str, fix: str) -> Finding:
    return Finding(status=Status.WARN, message=message, fix=fix)


def _fail(message: str, fix: str) -> Finding:
    return Finding(status=Status.FAIL, message=message, fix=fix)
