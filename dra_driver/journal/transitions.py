"""A claim's life as entries: intent, step, result, releasing; folded in this order and no other into its record.

A note is intent and steps in a single entry, kept outside of the journal: from it they can be written anew.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    texts,
)
from dra_driver.model.claim import ClaimRef
from dra_driver.model.errors import RecordError, RecordNewer
from dra_driver.model.record import ClaimRecord, Preparation
from dra_driver.ports import JsonObject


def intent(record: ClaimRecord) -> JsonObject:
    """The first entry: whose claim, what it is granted, and the steps that are going to be taken."""
    return _entry("intent", **_plan(record))


def step(identity: str) -> JsonObject:
    """The next step is done and made this."""
    return _entry("step", identity=identity)


def result(preparation: Preparation) -> JsonObject:
    """Every step is done, and this is the outcome."""
    return _entry("result", preparation=encode_preparation(preparation))


def releasing(*, refused: bool = False) -> JsonObject:
    """From here on the claim is only undone; if the missing step was `refused`, there is nothing of it to undo."""
    return _entry("releasing", **({"refused": True} if refused else {}))


def note(record: ClaimRecord) -> JsonObject:
    """What was planned and which steps are done; `entries_of` gives it back as entries."""
    return _entry("note", **_plan(record), identities=list(record.identities))


def entries_of(note: JsonObject) -> tuple[JsonObject, ...]:
    """The intent and the steps that a note stands for, with fields of a newer release; RecordError if it is none."""
    _check_version(note)
    if note.get("transition") != "note":
        raise RecordError(f"{note.get('transition')!r} is no note")
    try:
        identities = texts(note, "identities")
    except (KeyError, TypeError) as error:
        raise RecordError(f"the note cannot be understood: {error!r}") from error
    first = {key: value for key, value in note.items() if key != "identities"}
    return (first | {"transition": "intent"}, *map(step, identities))


def fold(entries: Iterable[JsonObject]) -> ClaimRecord:
    """The record that the entries make; RecordError unless all of them are understood and in turn."""
    record: ClaimRecord | None = None
    for entry in entries:
        record = follow(record, entry)
    if record is None:
        raise RecordError("it holds no intent")
    return record


def follow(record: ClaimRecord | None, entry: JsonObject) -> ClaimRecord:
    """The record after one more entry; RecordError if the entry is foreign or comes out of turn."""
    _check_version(entry)
    try:
        return _first(entry) if record is None else _next(record, entry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{entry.get('transition')!r} cannot be understood: {error!r}") from error


def _plan(record: ClaimRecord) -> JsonObject:
    return {
        "claim": {
            "namespace": record.claim.namespace,
            "name": record.claim.name,
            "uid": record.claim.uid,
        },
        "bootId": record.boot_id,
        "owner": record.owner,
        "grants": [encode_grant(grant) for grant in record.grants],
        "steps": [encode_step(step) for step in record.steps],
    }


def _check_version(entry: JsonObject) -> None:
    version = entry.get("v")
    if type(version) is not int or version < FORMAT_VERSION:  # in Python, True is 1
        raise RecordError(f"format version {version!r} is not {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise RecordNewer(
            f"format version {version} was written by a newer release, and this one reads {FORMAT_VERSION};"
            " run that release again: it can release the claim"
        )


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
            is_refused = entry.get("refused") is True
            steps = record.steps[: len(record.identities)] if is_refused else record.steps
            return replace(record, steps=steps, releasing=True)
        case "step" if missing and not record.releasing:
            return replace(record, identities=(*record.identities, text(entry, "identity")))
        case "result" if not missing and not record.releasing and record.preparation is None:
            return replace(record, preparation=decode_preparation(entry["preparation"]))
        case transition:
            raise RecordError(
                f"{transition!r} comes out of turn: {missing} of {len(record.steps)} steps are missing,"
                f" finished: {record.preparation is not None}, releasing: {record.releasing}"
            )
