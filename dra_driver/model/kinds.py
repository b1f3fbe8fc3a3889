"""The Kubernetes kinds we speak of, with what is needed to build their URLs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One served kind. `group` is empty for the core group."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """`v1` or `resource.k8s.io/v1`, as an object's apiVersion says it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The URL path below which this version of the group is served."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path of one object (`name`), or of the collection."""
        place = f"/namespaces/{namespace}" if namespace else ""
        return f"{self.root}{place}/{self.plural}" + (f"/{name}" if name else "")


def _core(kind: str, plural: str, *, namespaced: bool = True) -> Kind:
    return Kind(group="", version="v1", kind=kind, plural=plural, namespaced=namespaced)


def _resource(kind: str, plural: str, *, namespaced: bool = False) -> Kind:
    return Kind(
        group="resource.k8s.io", version="v1", kind=kind, plural=plural, namespaced=namespaced
    )


NODE = _core("Node", "nodes", namespaced=False)
NAMESPACE = _core("Namespace", "namespaces", namespaced=False)
POD = _core("Pod", "pods")
EVENT = _core("Event", "events")
LEASE = Kind(
    group="coordination.k8s.io", version="v1", kind="Lease", plural="leases", namespaced=True
)
DEVICE_CLASS = _resource("DeviceClass", "deviceclasses")
RESOURCE_CLAIM = _resource("ResourceClaim", "resourceclaims", namespaced=True)
RESOURCE_CLAIM_TEMPLATE = _resource(
    "ResourceClaimTemplate", "resourceclaimtemplates", namespaced=True
)
RESOURCE_SLICE = _resource("ResourceSlice", "resourceslices")
CUSTOM_RESOURCE_DEFINITION = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    namespaced=False,
)
