"""The shapes of objects, in OpenAPI's words: what is pruned, type-checked, normalised and explained.

Custom resources bring their own schema. Kinds of resource.k8s.io are written down here as far as Kubernetes 1.36 goes;
all other built-in kinds are open below `spec` and `status`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

STRING: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
OPEN: Final[Schema] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
QUANTITY: Final[Schema] = {
    "type": "string",
    "format": "quantity",
    "x-kubernetes-int-or-string": True,
}


def record(**properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {"type": "object", "properties": properties}


def many(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def keyed(values: Schema) -> Schema:
    """An object with any keys."""
    return {"type": "object", "additionalProperties": values}


METADATA: Final[Schema] = record(
    name=STRING,
    generateName=STRING,
    namespace=STRING,
    uid=STRING,
    resourceVersion=STRING,
    selfLink=STRING,
    generation=INTEGER,
    creationTimestamp=STRING,
    deletionTimestamp=STRING,
    deletionGracePeriodSeconds=INTEGER,
    labels=keyed(STRING),
    annotations=keyed(STRING),
    finalizers=many(STRING),
    ownerReferences=many(
        record(
            apiVersion=STRING,
            kind=STRING,
            name=STRING,
            uid=STRING,
            controller=BOOLEAN,
            blockOwnerDeletion=BOOLEAN,
        )
    ),
    managedFields=many(OPEN),
)


def whole(**properties: Schema) -> Schema:
    """An API object with these fields beside apiVersion, kind and metadata."""
    return record(apiVersion=STRING, kind=STRING, metadata=METADATA, **properties)


def custom(schema: Schema) -> Schema:
    """A definition's schema, with the fields that every object has."""
    known = whole()["properties"]
    return {"type": "object", **schema, "properties": {**schema.get("properties", {}), **known}}


ANY: Final[Schema] = {
    **whole(spec=OPEN, status=OPEN),
    "x-kubernetes-preserve-unknown-fields": True,
}


def opened(**properties: Schema) -> Schema:
    """An object in which these fields have their types, and any others are welcome."""
    return {**OPEN, "properties": properties}


_CONTAINER = opened(name=STRING, resources=opened(claims=many(record(name=STRING, request=STRING))))
_STATUSES = many(opened(state=OPEN, restartCount=INTEGER, ready=BOOLEAN))
POD: Final[Schema] = whole(
    spec=opened(
        nodeName=STRING,
        schedulerName=STRING,
        terminationGracePeriodSeconds=INTEGER,
        initContainers=many(_CONTAINER),
        containers=many(_CONTAINER),
        resourceClaims=many(
            record(name=STRING, resourceClaimName=STRING, resourceClaimTemplateName=STRING)
        ),
    ),
    status=opened(phase=STRING, conditions=many(opened(type=STRING)), containerStatuses=_STATUSES),
)
NODE: Final[Schema] = whole(
    spec=OPEN, status=opened(conditions=many(opened(type=STRING, status=STRING)))
)
CUSTOM_RESOURCE_DEFINITION: Final[Schema] = whole(
    spec=opened(
        group=STRING,
        scope=STRING,
        names=opened(plural=STRING, kind=STRING, shortNames=many(STRING), categories=many(STRING)),
        versions=many(
            opened(
                name=STRING,
                schema=OPEN,
                subresources=OPEN,
                additionalPrinterColumns=many(
                    opened(name=STRING, type=STRING, jsonPath=STRING, priority=INTEGER)
                ),
            )
        ),
    ),
    status=OPEN,
)

_NODE_SELECTOR = record(
    nodeSelectorTerms=many(
        record(
            matchExpressions=many(record(key=STRING, operator=STRING, values=many(STRING))),
            matchFields=many(record(key=STRING, operator=STRING, values=many(STRING))),
        )
    )
)
_AMOUNT: Final[Schema] = {**QUANTITY, "default": "0"}
_COUNTERS = keyed(record(value=_AMOUNT))
_REQUEST_POLICY = record(
    default=QUANTITY,
    validValues=many(QUANTITY),
    validRange=record(min=QUANTITY, max=QUANTITY, step=QUANTITY),
)
_ATTRIBUTE = record(int=INTEGER, bool=BOOLEAN, string=STRING, version=STRING)
_TAINT = record(key=STRING, value=STRING, effect=STRING, timeAdded=STRING)
_DEVICE = record(
    name=STRING,
    attributes=keyed(_ATTRIBUTE),
    capacity=keyed(record(value=_AMOUNT, requestPolicy=_REQUEST_POLICY)),
    consumesCounters=many(record(counterSet=STRING, counters=_COUNTERS)),
    nodeName=STRING,
    nodeSelector=_NODE_SELECTOR,
    allNodes=BOOLEAN,
    taints=many(_TAINT),
    bindsToNode=BOOLEAN,
    bindingConditions=many(STRING),
    bindingFailureConditions=many(STRING),
    allowMultipleAllocations=BOOLEAN,
)
RESOURCE_SLICE: Final[Schema] = whole(
    spec=record(
        driver=STRING,
        pool=record(name=STRING, generation=INTEGER, resourceSliceCount=INTEGER),
        nodeName=STRING,
        nodeSelector=_NODE_SELECTOR,
        allNodes=BOOLEAN,
        perDeviceNodeSelection=BOOLEAN,
        devices=many(_DEVICE),
        sharedCounters=many(record(name=STRING, counters=_COUNTERS)),
    )
)

_SELECTORS = many(record(cel=record(expression=STRING)))
_TOLERATION = record(
    key=STRING,
    operator={**STRING, "default": "Equal"},
    value=STRING,
    effect=STRING,
    tolerationSeconds=INTEGER,
)
_OPAQUE = record(driver=STRING, parameters={"x-kubernetes-preserve-unknown-fields": True})


def _request(**more: Schema) -> Schema:
    return record(
        deviceClassName=STRING,
        selectors=_SELECTORS,
        allocationMode={**STRING, "default": "ExactCount"},
        count=INTEGER,
        tolerations=many(_TOLERATION),
        capacity=record(requests=keyed(QUANTITY)),
        **more,
    )


_CLAIM_SPEC = record(
    devices=record(
        requests=many(
            record(
                name=STRING,
                exactly=_request(adminAccess=BOOLEAN),
                firstAvailable=many(_request(name=STRING)),
            )
        ),
        constraints=many(
            record(requests=many(STRING), matchAttribute=STRING, distinctAttribute=STRING)
        ),
        config=many(record(requests=many(STRING), opaque=_OPAQUE)),
    )
)
_RESULT = record(
    request=STRING,
    driver=STRING,
    pool=STRING,
    device=STRING,
    adminAccess=BOOLEAN,
    tolerations=many(_TOLERATION),
    bindingConditions=many(STRING),
    bindingFailureConditions=many(STRING),
    shareID=STRING,
    consumedCapacity=keyed(QUANTITY),
)
_CONDITION = record(
    type=STRING,
    status=STRING,
    reason=STRING,
    message=STRING,
    lastTransitionTime=STRING,
    observedGeneration=INTEGER,
)
_CLAIM_STATUS = record(
    allocation=record(
        devices=record(
            results=many(_RESULT),
            config=many(record(source=STRING, requests=many(STRING), opaque=_OPAQUE)),
        ),
        nodeSelector=_NODE_SELECTOR,
        allocationTimestamp=STRING,
    ),
    reservedFor=many(record(apiGroup=STRING, resource=STRING, name=STRING, uid=STRING)),
    devices=many(
        record(
            driver=STRING,
            pool=STRING,
            device=STRING,
            shareID=STRING,
            conditions=many(_CONDITION),
            data=OPEN,
            networkData=record(interfaceName=STRING, ips=many(STRING), hardwareAddress=STRING),
        )
    ),
)
RESOURCE_CLAIM: Final[Schema] = whole(spec=_CLAIM_SPEC, status=_CLAIM_STATUS)
RESOURCE_CLAIM_TEMPLATE: Final[Schema] = whole(spec=record(metadata=METADATA, spec=_CLAIM_SPEC))
DEVICE_CLASS: Final[Schema] = whole(
    spec=record(
        selectors=_SELECTORS,
        config=many(record(opaque=_OPAQUE)),
        extendedResourceName=STRING,
    )
)
