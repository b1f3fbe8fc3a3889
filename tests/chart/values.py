"""What the chart's values may be: values.schema.json is made from this, so that a mistyped key is refused on install."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dra_driver.config.settings import PluginSettings

SET_BY_THE_CHART = frozenset(
    {
        "node_name",
        "pod_uid",
        "server",
        "token_file",
        "ca_file",
        "kubeconfig",
        "data_dir",
        "registry_dir",
        "pod_resources_socket",
        "cdi_dir",
        "host_root",
        "metrics_address",
        "simulation_dir",
    }
)
"""Settings of the plugin that nobody has to choose in a pod."""


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class Image(_Values):
    """Which image runs."""

    repository: str = Field(min_length=1)
    tag: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"]


class Switch(_Values):
    """Whether a part of the chart is installed."""

    create: bool


class Drain(_Values):
    """What `helm uninstall` waits for."""

    on_uninstall: bool
    timeout: str = Field(pattern=r"^(\d+h)?(\d+m)?(\d+s)?$", min_length=2)


class Metrics(_Values):
    """Where metrics and probes are served."""

    port: int = Field(ge=1, le=65535)
    scrape_annotations: bool


class Values(_Values):
    """All values. Those that Kubernetes defines are passed on as they are, and checked by the API server."""

    image: Image
    image_pull_secrets: list[dict[str, str]]
    settings: dict[str, Any]
    kubelet_dir: str = Field(pattern="^/")
    cdi_dir: str = Field(pattern="^/")
    node_selector: dict[str, str]
    affinity: dict[str, Any]
    tolerations: list[dict[str, Any]]
    priority_class_name: str
    resources: dict[str, Any]
    pod_labels: dict[str, str]
    pod_annotations: dict[str, str]
    metrics: Metrics
    device_classes: Switch
    admission_policy: Switch
    drain: Drain


def values_schema() -> dict[str, Any]:
    """The JSON schema of the values; `settings` is the plugin's settings file, less what the chart sets."""
    schema = Values.model_json_schema()
    schema["properties"]["settings"] = _settings_schema()
    schema["properties"]["global"] = {"type": "object"}  # Helm hands it to every chart
    del schema["required"]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _settings_schema() -> dict[str, Any]:
    schema = PluginSettings.model_json_schema()
    hidden = {to_camel(name) for name in SET_BY_THE_CHART}
    open_to_users = {
        name: {key: value for key, value in one.items() if key != "default"}
        for name, one in schema["properties"].items()
        if name not in hidden
    }
    return {"type": "object", "additionalProperties": False, "properties": open_to_users}
