from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from dra_driver.cli.main import main

Objects = dict[str, Any]
Dra = Callable[..., Result]


class Cluster(ThreadingHTTPServer):
    """Answers GET from `answers` (path: object, list of objects, or HTTP status) and remembers the queries."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: dict[str, Any] = {"/version": {"gitVersion": "v1.36.2"}}
        self.queries: dict[str, dict[str, list[str]]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Cluster

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.queries[url.path] = parse_qs(url.query)
        answer = self.server.answers.get(url.path, 404)
        if isinstance(answer, int):
            body: Objects = {"kind": "Status", "reason": "Refused", "message": f"no {url.path}"}
        elif isinstance(answer, list):
            body = {"kind": "List", "metadata": {"resourceVersion": "7"}, "items": answer}
        else:
            body = answer
        content = json.dumps(body).encode()
        self.send_response(answer if isinstance(answer, int) else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it so)
        pass


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes with two GPUs each; on node-a one half of gpu-0 is allocated and gpu-1 is tainted."""
    with Cluster() as server:
        server.answers |= {
            "/api/v1/nodes": [node("node-b", ready=False), node("node-a")],
            "/apis/resource.k8s.io/v1/resourceslices": [
                *slices("node-b"),
                *slices("node-a", {"key": "gpu.dra-driver.dev/unhealthy", "effect": "NoSchedule"}),
            ],
            "/apis/resource.k8s.io/v1/resourceclaims": [claim()],
            "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims": [claim()],
            "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims/train": claim(),
        }
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def dra(cluster: Cluster) -> Dra:
    """Runs `dra ...` against the cluster."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--server", cluster.url])

    return run


def created(**ago: int) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(name: str, *, ready: bool = True) -> Objects:
    return {
        "metadata": {"name": name, "creationTimestamp": created(days=3, hours=4, minutes=1)},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "nodeInfo": {"kubeletVersion": "v1.36.2"},
        },
    }


def device(name: str, gpu: str, amount: int, taint: Objects | None = None) -> Objects:
    is_whole = amount == 8
    return {
        "name": name,
        "attributes": {
            "type": {"string": "gpu" if is_whole else "partition"},
            "parent": {"string": gpu},
            "profile": {"string": "" if is_whole else "3g.40gb"},
            "sharing": {"string": "exclusive"},
            "driverVersion": {"version": "580.95.5"},
        },
        "capacity": {"memory": {"value": f"{amount}0Gi"}},
        "consumesCounters": [
            {"counterSet": gpu, "counters": {"memory-slices": {"value": str(amount)}}}
        ],
        **({"taints": [taint]} if taint else {}),
    }


def slices(node: str, taint: Objects | None = None) -> list[Objects]:
    """A counter slice and a device slice; the taint is on gpu-1."""
    pool = {"name": f"{node}/nvidia", "generation": 1, "resourceSliceCount": 2}
    spec = {"driver": "gpu.dra-driver.dev", "nodeName": node, "pool": pool}
    sets = [
        {"name": gpu, "counters": {"memory-slices": {"value": "8"}}} for gpu in ("gpu-0", "gpu-1")
    ]
    devices = [
        device("gpu-0-half-0", "gpu-0", 4),
        device("gpu-0-half-4", "gpu-0", 4),
        device("gpu-0", "gpu-0", 8),
        device("gpu-1", "gpu-1", 8, taint),
    ]
    return [
        {"metadata": {"name": f"0-{node}"}, "spec": {**spec, "sharedCounters": sets}},
        {"metadata": {"name": f"1-{node}"}, "spec": {**spec, "devices": devices}},
    ]


def claim() -> Objects:
    """Half of gpu-0, for a pod; made while the test runs, as its age is looked at."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "namespace": "default",
            "name": "train",
            "uid": "c1",
            "creationTimestamp": created(hours=5, minutes=30, seconds=10),
        },
        "spec": {
            "devices": {
                "requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.dra-driver.dev"}}]
            }
        },
        "status": {
            "allocation": {
                "devices": {
                    "results": [
                        {
                            "request": "gpu",
                            "driver": "gpu.dra-driver.dev",
                            "pool": "node-a/nvidia",
                            "device": "gpu-0-half-0",
                        }
                    ]
                }
            },
            "reservedFor": [{"resource": "pods", "name": "trainer", "uid": "p1"}],
        },
    }
