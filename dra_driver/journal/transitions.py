"""A claim's life as entries: intent, step, result, releasing; folded in this order and no other into its record."""

from __future__ import annotations

from dataclasses import replace

from dra_driver.journal.encoding import (
    FORMAT_VERSION,
    decode_grant,
    decode_preparation,
    decode_step,
    encode_grant,
    encode_preparation,
    encode_step,
    text,
)
from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import RecordError
from dra_driver.model.record import ClaimRecord, Preparation
from dra_driver.ports import JsonObject


def intent(record: ClaimRecord) -> JsonObject:
    """The first entry: whose claim, what it is granted, and the steps that are going to be taken."""
    return _entry(
        "intent",
        claim={
            "namespace": record.claim.namespace,
            "name": record.claim.name,
            "uid": record.claim.uid,
        },
        bootId=record.boot_id,
        owner=record.owner,
        grants=[encode_grant(grant) for grant in record.grants],
        steps=[encode_step(step) for step in record.steps],
    )


def step(identity: str) -> JsonObject:
    """The next step is done and made this."""
    return _entry("step", identity=identity)


def result(preparation: Preparation) -> JsonObject:
    """Every step is done, and this is the outcome."""
    return _entry("result", preparation=encode_preparation(preparation))


def releasing() -> JsonObject:
    """From here on the claim is only undone."""
    return _entry("releasing")


def follow(record: ClaimRecord | None, entry: JsonObject) -> ClaimRecord:
    """The record after one more entry; RecordError if the entry is foreign or comes out of turn."""
    if entry.get("v") != FORMAT_VERSION:
        raise RecordError(
            f"format version {entry.get('v')!r} is not {FORMAT_VERSION}, the one that this release reads:"
            " run the release that wrote it"
        )
    try:
        return _first(entry) if record is None else _next(record, entry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{entry.get('transition')!r} cannot be understood: {error!r}") from error


def _entry(transition: str, **fields: object) -> JsonObject:
    return {"v": FORMAT_VERSION, "transition": transition, **fields}


def _first(entry: JsonObject) -> ClaimRecord:
    if entry["transition"] != "intent":
        raise RecordError(f"{entry['transition']!r} comes before the intent")
    claim = entry["claim"]
    return ClaimRecord(
        claim=ClaimRef(
            namespace=text(claim, "namespace"), name=text(claim, "name"), uid=text(claim, "uid")
        ),
        boot_id=text(entry, "bootId"),
        owner=text(entry, "owner"),
        grants=tuple(decode_grant(grant) for grant in entry["grants"]),
        steps=tuple(decode_step(step) for step in entry["steps"]),
    )


def _next(record: ClaimRecord, entry: JsonObject) -> ClaimRecord:
    missing = len(record.steps) - len(record.identities)
    match entry["transition"]:
        case "releasing":
            return replace(record, releasing=True)
        case "step" if missing and not record.releasing:
            return replace(record, identities=(*record.identities, text(entry, "identity")))
        case "result" if not missing and not record.releasing and record.preparation is None:
            return replace(record, preparation=decode_preparation(entry["preparation"]))
        case transition:
            raise RecordError(
                f"{transition!r} comes out of turn: {missing} of {len(record.steps)} steps are missing,"
                f" finished: {record.preparation is not None}, releasing: {record.releasing}"
            )
