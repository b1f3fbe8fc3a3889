"""Custom resources: served by their definition, shaped by its schema, gone with it."""

from __future__ import annotations

from typing import Any

import pytest

from dra_driver.model.errors import Invalid, NotFound
from dra_driver.model.kinds import CUSTOM_RESOURCE_DEFINITION, Kind
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import LocalApi

WIDGET = Kind(
    group="example.com", version="v1alpha1", kind="Widget", plural="widgets", namespaced=False
)


@pytest.fixture
async def widgets(api: LocalApi, definition: JsonObject) -> LocalApi:
    await api.create(CUSTOM_RESOURCE_DEFINITION, definition)
    return api


def widget(name: str = "w", **spec: Any) -> JsonObject:
    return {
        "apiVersion": "example.com/v1alpha1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": spec,
    }


async def test_nothing_is_served_before_its_definition(api: LocalApi) -> None:
    """Without a definition the kind is 404."""
    with pytest.raises(NotFound, match="could not find the requested resource"):
        await api.list(WIDGET)


async def test_custom_objects_follow_their_schema(widgets: LocalApi) -> None:
    """Unknown fields are pruned; a wrong type or value is 422."""
    stored = await widgets.create(WIDGET, widget(size=2, colour="red"))
    assert stored["spec"] == {"size": 2}
    with pytest.raises(Invalid, match="must be of type integer"):
        await widgets.create(WIDGET, widget("x", size="2"))
    with pytest.raises(Invalid, match="greater than or equal to 1"):
        await widgets.create(WIDGET, widget("x", size=0))


async def test_custom_status_is_a_subresource(widgets: LocalApi) -> None:
    """Status and spec are written apart, and status changes leave the generation."""
    stored = await widgets.create(WIDGET, widget(size=2) | {"status": {"phase": "Ready"}})
    assert "status" not in stored
    patched = await widgets.patch(WIDGET, "w", {"status": {"phase": "Ready"}}, subresource="status")
    assert patched["status"] == {"phase": "Ready"}
    assert patched["metadata"]["generation"] == 1
    grown = await widgets.patch(WIDGET, "w", {"spec": {"size": 3}})
    assert (grown["metadata"]["generation"], grown["status"]) == (2, {"phase": "Ready"})


async def test_custom_objects_go_with_their_definition(
    widgets: LocalApi, definition: JsonObject
) -> None:
    """Deleting the definition deletes its objects; defining it again starts empty."""
    await widgets.create(WIDGET, widget(size=2))
    watch = widgets.watch(WIDGET, resource_version=(await widgets.list(WIDGET)).resource_version)
    await widgets.delete(CUSTOM_RESOURCE_DEFINITION, "widgets.example.com")
    with pytest.raises(NotFound):
        await anext(watch)
    await widgets.create(CUSTOM_RESOURCE_DEFINITION, definition)
    assert (await widgets.list(WIDGET)).items == ()


async def test_a_definition_must_make_sense(api: LocalApi, definition: JsonObject) -> None:
    """Name, scope, names and versions are checked."""
    definition["metadata"]["name"] = "gadgets.example.com"
    definition["spec"]["scope"] = "Galaxy"
    definition["spec"]["versions"][0]["storage"] = False
    with pytest.raises(Invalid) as caught:
        await api.create(CUSTOM_RESOURCE_DEFINITION, definition)
    for complaint in ("widgets.example.com", "Galaxy", "exactly one version"):
        assert complaint in str(caught.value)
