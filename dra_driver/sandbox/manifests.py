"""Manifests as a user keeps them: a folder of YAML files, applied in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from dra_driver.model import kinds
from dra_driver.model.errors import InputError, NotFound
from dra_driver.model.kinds import Kind
from dra_driver.ports import JsonObject, KubeApi

_KINDS = {
    (kind.api_version, kind.kind): kind
    for kind in (
        kinds.NAMESPACE,
        kinds.POD,
        kinds.DEVICE_CLASS,
        kinds.RESOURCE_CLAIM,
        kinds.RESOURCE_CLAIM_TEMPLATE,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One object of one file."""

    file: str
    kind: Kind
    body: JsonObject

    @property
    def name(self) -> str:
        """The object's name."""
        name: str = self.body["metadata"]["name"]
        return name

    @property
    def namespace(self) -> str | None:
        """Where the object lives; None for kinds without namespaces."""
        if not self.kind.namespaced:
            return None
        namespace: str = self.body["metadata"].get("namespace", "default")
        return namespace

    def __str__(self) -> str:
        return f"{self.kind.kind}/{self.name}"


def read_manifests(folder: Path) -> tuple[Manifest, ...]:
    """All objects of the folder's .yaml files; InputError names the file and what is wrong with it."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise InputError(
            f"demo folder {folder} holds no .yaml files; name one that does, such as demo/quickstart"
        )
    return tuple(manifest for file in files for manifest in _objects(file))


async def create(api: KubeApi, manifest: Manifest) -> JsonObject:
    """Create the object."""
    return await api.create(manifest.kind, manifest.body, namespace=manifest.namespace)


async def delete(api: KubeApi, manifest: Manifest) -> None:
    """Delete the object; one that is gone already is fine."""
    try:
        await api.delete(manifest.kind, manifest.name, namespace=manifest.namespace)
    except NotFound:
        return


def _objects(file: Path) -> Iterator[Manifest]:
    try:
        documents = list(yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"manifest {file} cannot be read: {error}") from error
    for document in documents:
        key = (document.get("apiVersion"), document.get("kind"))
        if key not in _KINDS:
            known = ", ".join(kind for _, kind in _KINDS)
            raise InputError(
                f"manifest {file} has a {key[1]} of {key[0]}; the demo applies {known}"
            )
        yield Manifest(file=file.name, kind=_KINDS[key], body=document)
