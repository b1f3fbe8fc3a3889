"""What `dra doctor` looks at, gathered once: a fact that cannot be had is unknown, never a crash."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from dra_driver.kube.codec import slice_from_json, slice_to_json
from dra_driver.model.errors import KubeError, NotFound
from dra_driver.model.kinds import DEVICE_CLASS, NODE, RESOURCE_CLAIM, RESOURCE_SLICE, Kind
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject, KubeApi
from dra_driver.rules.pool_diff import is_same
from dra_driver.rules.publish import probe_slices

T = TypeVar("T")

DAEMON_SET = Kind(
    group="apps", version="v1", kind="DaemonSet", plural="daemonsets", namespaced=True
)
ACCESS_REVIEW = Kind(
    group="authorization.k8s.io",
    version="v1",
    kind="SubjectAccessReview",
    plural="subjectaccessreviews",
    namespaced=False,
)
OUR_LABELS = "app.kubernetes.io/name=dra-driver,app.kubernetes.io/component=kubelet-plugin"
_RESOURCE_API = "resource.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One thing that the plugin must be allowed to do. `name` where only one object of that name is meant."""

    group: str
    resource: str
    verb: str
    subresource: str = ""
    name: str = ""

    def __str__(self) -> str:
        resource = "/".join(filter(None, (self.resource, self.subresource)))
        return f"{self.verb} {resource}"


PLUGIN_RIGHTS = (
    *(
        Right(group=_RESOURCE_API, resource="resourceslices", verb=verb)
        for verb in ("get", "list", "watch", "create", "update", "patch", "delete")
    ),
    *(Right(group=_RESOURCE_API, resource="resourceclaims", verb=verb) for verb in ("get", "list")),
    Right(group=_RESOURCE_API, resource="resourceclaims", subresource="status", verb="patch"),
    *(
        Right(
            group=_RESOURCE_API,
            resource="resourceclaims",
            subresource="driver",
            verb=f"associated-node:{verb}",
            name=DRIVER_NAME,
        )
        for verb in ("update", "patch")
    ),
    *(Right(group="", resource="events", verb=verb) for verb in ("create", "patch")),
    Right(group="", resource="nodes", verb="get"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The cluster as it is now. Objects are plain JSON; `unknown` says of what could not be had, why.

    `keeps_counters`: whether the API server stores partitions with their counters, tried by a dry run.
    `refused`: rights that the chart's service account lacks; None where the chart is not installed.
    """

    now: datetime
    version: tuple[int, int, int] | None = None
    keeps_counters: bool | None = None
    classes: Sequence[JsonObject] = ()
    nodes: Sequence[JsonObject] = ()
    slices: Sequence[JsonObject] = ()
    claims: Sequence[JsonObject] = ()
    daemon_sets: Sequence[JsonObject] = ()
    refused: Sequence[Right] | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def our_slices(self) -> list[JsonObject]:
        """Those of our driver."""
        return [item for item in self.slices if item["spec"]["driver"] == DRIVER_NAME]


async def gather(api: KubeApi) -> Facts:
    """Look at everything."""
    unknown: dict[str, str] = {}

    async def known(name: str, read: Callable[[], Awaitable[T]], otherwise: T) -> T:
        try:
            return await read()
        except NotFound:  # a server that lacks the kind has none of it
            return otherwise
        except KubeError as error:
            unknown[name] = str(error)
            return otherwise

    async def listed(kind: Kind, labels: str = "") -> Sequence[JsonObject]:
        selectors = {"labelSelector": labels} if labels else {}
        return (await api.list(kind, selectors=selectors)).items

    nothing: Sequence[JsonObject] = ()
    daemon_sets = await known("daemonset", lambda: listed(DAEMON_SET, OUR_LABELS), nothing)
    nodes = await known("nodes", lambda: listed(NODE), nothing)
    return Facts(
        now=datetime.now(UTC),
        version=await known("version", api.server_version, None),
        keeps_counters=await known("gates", lambda: _keeps_counters(api, nodes), None),
        classes=await known("classes", lambda: listed(DEVICE_CLASS), nothing),
        nodes=nodes,
        slices=await known("slices", lambda: listed(RESOURCE_SLICE), nothing),
        claims=await known("claims", lambda: listed(RESOURCE_CLAIM), nothing),
        daemon_sets=daemon_sets,
        refused=await known("rights", lambda: _refused(api, daemon_sets), None),
        unknown=unknown,
    )


async def _keeps_counters(api: KubeApi, nodes: Sequence[JsonObject]) -> bool | None:
    """A dry run of two slices with every field that partitions need; None without any node to say them of."""
    if not nodes:
        return None
    for probe in probe_slices(nodes[0]["metadata"]["name"]):
        answer = await api.create(RESOURCE_SLICE, slice_to_json(probe), dry_run=True)
        if not is_same(slice_from_json(answer), probe):
            return False
    return True


async def _refused(api: KubeApi, daemon_sets: Sequence[JsonObject]) -> Sequence[Right] | None:
    if not daemon_sets:
        return None
    namespace = daemon_sets[0]["metadata"]["namespace"]
    name = daemon_sets[0]["spec"]["template"]["spec"]["serviceAccountName"]
    user = f"system:serviceaccount:{namespace}:{name}"
    return [right for right in PLUGIN_RIGHTS if not await _is_granted(api, user, right)]


async def _is_granted(api: KubeApi, user: str, right: Right) -> bool:
    attributes = {
        "group": right.group,
        "resource": right.resource,
        "subresource": right.subresource,
        "verb": right.verb,
        "name": right.name,
    }
    review = {"metadata": {}, "spec": {"user": user, "resourceAttributes": attributes}}
    answer = await api.create(ACCESS_REVIEW, review)
    return bool(answer["status"]["allowed"])
