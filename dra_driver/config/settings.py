"""The node plugin's settings, each declared once: flag, environment variable, file key, help and documentation derive from it.

How the sources are laid over one another is told in `layers`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dra_driver.model.names import is_dns_subdomain

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["json", "text"]
PublishChoice: TypeAlias = Literal["auto", "full", "plain"]
CoexistenceChoice: TypeAlias = Literal["refuse", "ignore"]
BrokenEffect: TypeAlias = Literal["NoSchedule", "NoExecute"]
PassthroughChoice: TypeAlias = Literal["refuse", "offer"]

_COMPUTE_INSTANCE = re.compile(r"([12])c\.([1-9])g\.\d+gb([+-][a-z.]+)?")
"""One or two compute slices of a partition: more of them in one are not offered."""

OFF = "off"
"""Instead of an address: listen nowhere."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("is not an absolute path; begin it with /")
    return path


def _node_name(text: str) -> str:
    if not is_dns_subdomain(text):
        raise ValueError("is not a node's name; write it as `kubectl get nodes` shows it")
    return text


def _listen_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text != OFF and not (host and port.isdecimal() and int(port) < 2**16):
        raise ValueError("is no address to listen at; write it like 127.0.0.1:8080, or off")
    return text


def _compute_instances(text: str) -> str:
    for name in text.split(","):
        match = _COMPUTE_INSTANCE.fullmatch(name)
        if match is None:
            raise ValueError(
                f"names {name!r}, which is no profile of MIG compute instances; write them like 1c.3g.40gb,2c.4g.40gb"
            )
        if int(match[1]) >= int(match[2]):
            raise ValueError(
                f"names {name!r}, which is all of a {match[2]}g partition or more; that is had without splitting"
            )
    return text


AbsolutePath: TypeAlias = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3600)]


class PluginSettings(BaseModel):
    """What `dra-kubelet-plugin run` can be told. The driver's name is none of it: claims and classes rely on it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True
    )

    node_name: Annotated[str, AfterValidator(_node_name)] = Field(
        description="The Node on which the plugin runs."
    )
    server: Annotated[str, Field(pattern=r"^https?://")] | None = Field(
        None,
        description="URL of the API server. Without it: the kubeconfig, else the pod's service account, else `$KUBECONFIG` or `~/.kube/config`.",
    )
    token_file: AbsolutePath | None = Field(
        None, description="File with the bearer token for `server`, read again whenever it changes."
    )
    ca_file: AbsolutePath | None = Field(
        None, description="File with the certificates that `server` is to be trusted by."
    )
    kubeconfig: AbsolutePath | None = Field(
        None, description="Kubeconfig file; its current context is used."
    )
    pod_uid: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z-]{0,62}$")] | None = Field(
        None,
        description="UID of the plugin's pod. With it the sockets' names are the pod's own, so that its successor serves beside it.",
    )
    data_dir: AbsolutePath = Field(
        Path("/var/lib/kubelet/plugins/gpu.dra-driver.dev"),
        description="Folder for the plugin's socket and the claims' records; it must survive the plugin.",
    )
    registry_dir: AbsolutePath = Field(
        Path("/var/lib/kubelet/plugins_registry"),
        description="Folder in which the kubelet looks for plugins' registration sockets.",
    )
    cdi_dir: AbsolutePath = Field(
        Path("/var/run/cdi"),
        description="Folder from which the container runtime reads CDI specs that do not outlive a boot.",
    )
    pod_resources_socket: AbsolutePath = Field(
        Path("/var/lib/kubelet/pod-resources/kubelet.sock"),
        description="Socket at which the kubelet says which claims its pods use.",
    )
    host_root: AbsolutePath = Field(
        Path("/"),
        description="Where the plugin sees the host's root, to read its /proc and /sys and to load its drivers' libraries.",
    )
    nvidia_driver_root: AbsolutePath | None = Field(
        None,
        description="Where the NVIDIA driver's files lie on the host. Without it: where NVML is, on the host itself, in the GPU operator's driver container or in Google's folder.",
    )
    nvidia_ctk_path: AbsolutePath | None = Field(
        None,
        description="NVIDIA's `nvidia-ctk` on the host. Without it: where its packages and the GPU operator put it.",
    )
    machine: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Simulate this machine: one that we ship, by name, or a .yaml file. Without it: the real hardware.",
    )
    simulation_dir: AbsolutePath = Field(
        Path("/var/lib/kubelet/plugins/gpu.dra-driver.dev/simulation"),
        description="Folder in which simulated hardware keeps its state, as real hardware would, between two starts.",
    )
    publish_mode: PublishChoice = Field(
        "auto",
        description="`full`: everything a GPU can become; `plain`: what it is now; `auto`: full where the cluster can do it.",
    )
    devices_per_gpu: Annotated[int, Field(ge=1, le=64)] = Field(
        64, description="How many devices one GPU may have in ResourceSlices, 64 at most."
    )
    coexistence: CoexistenceChoice = Field(
        "refuse",
        description="GPUs that a device plugin or another DRA driver offers on this node, too, or that the MIG manager is changing. `refuse`: they are not published; `ignore`: they are.",
    )
    broken_gpu_effect: BrokenEffect = Field(
        "NoSchedule",
        description="The taint on devices of a broken GPU that answers. `NoSchedule`: no new claim gets them; `NoExecute`: their pods are evicted, whatever PodDisruptionBudgets say.",
    )
    passthrough: PassthroughChoice = Field(
        "refuse",
        description="Whole GPUs for virtual machines, through vfio-pci. `offer`: those that have an IOMMU group of their own; `refuse`: none.",
    )
    mig_compute_instances: Annotated[str, AfterValidator(_compute_instances)] | None = Field(
        None,
        description="MIG partitions to split between claims that share their memory: profiles like `1c.3g.40gb`, with commas; a GPU takes the first that it has. Without it: none.",
    )
    sdk_timeout_s: Seconds = Field(
        25.0, description="Seconds after which a call to a vendor's library counts as hung."
    )
    stop_timeout_s: Seconds = Field(
        20.0,
        description="Seconds that calls under way may still take once the plugin is told to stop.",
    )
    metrics_address: Annotated[str, AfterValidator(_listen_address)] = Field(
        OFF,
        description="Where `/metrics`, `/healthz` and `/readyz` are served: `HOST:PORT`, or `off`. Prefer loopback or the pod's IP.",
    )
    activity_interval_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        10.0,
        description="Seconds between two measurements of what GPUs do; six times as many for GPUs on which nothing runs. 0: never.",
    )
    log_level: LogLevel = Field("info", description="The least severe messages that are logged.")
    log_format: LogFormat = Field(
        "json", description="`json`: an object a line, for collectors; `text`: for people."
    )
