import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.journal import transitions
from dra_driver.model.claim import ClaimRef
from dra_driver.model.device import (
    BindPassthrough,
    CreateStage,
    Placement,
    SetMode,
    UnbindPassthrough,
)
from dra_driver.model.edits import ContainerEdits, DeviceNode, Mount
from dra_driver.model.errors import RecordError
from dra_driver.model.record import ClaimRecord, Grant, Preparation, PreparedDevice, Step
from dra_driver.ports import JsonObject

TEXT = st.text(max_size=12)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
PLACEMENTS = st.builds(Placement, st.integers(0, 15), st.integers(1, 8))
CHANGES = st.one_of(
    st.builds(SetMode, gpu=TEXT, mode=TEXT),
    st.builds(BindPassthrough, gpu=TEXT),
    st.builds(UnbindPassthrough, gpu=TEXT),
    st.builds(
        CreateStage,
        gpu=TEXT,
        profile=TEXT,
        placement=PLACEMENTS,
        stage=TEXT,
        parent=st.none() | TEXT,
    ),
)
GRANTS = st.builds(
    Grant,
    device=TEXT,
    pool=TEXT,
    requests=TEXTS,
    gpu=TEXT,
    profile=st.none() | TEXT,
    placement=st.none() | PLACEMENTS,
    share_id=st.none() | TEXT,
    monitor=st.booleans(),
)
EDITS = st.builds(
    ContainerEdits,
    env=st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
    device_nodes=st.lists(
        st.builds(DeviceNode, path=TEXT, host_path=st.none() | TEXT, permissions=TEXT), max_size=2
    ).map(tuple),
    mounts=st.lists(
        st.builds(Mount, host_path=TEXT, container_path=TEXT, options=TEXTS), max_size=2
    ).map(tuple),
)
PREPARATIONS = st.builds(
    Preparation,
    devices=st.lists(
        st.builds(
            PreparedDevice,
            requests=TEXTS,
            pool=TEXT,
            device=TEXT,
            cdi_ids=TEXTS,
            share_id=st.none() | TEXT,
        ),
        max_size=2,
    ).map(tuple),
    edits=st.lists(st.tuples(TEXT, EDITS), max_size=2).map(tuple),
)
RECORDS = st.builds(
    ClaimRecord,
    claim=st.builds(ClaimRef, namespace=TEXT, name=TEXT, uid=TEXT),
    boot_id=TEXT,
    owner=TEXT,
    grants=st.lists(GRANTS, max_size=3).map(tuple),
    steps=st.lists(st.builds(Step, device=TEXT, change=CHANGES), max_size=4).map(tuple),
)

GRANT = {"device": "d", "pool": "p", "requests": [], "gpu": "g"}


def stored(entry: JsonObject) -> JsonObject:
    """The entry as it comes back from a file."""
    again: JsonObject = json.loads(json.dumps(entry))
    return again


@given(record=RECORDS, preparation=PREPARATIONS, identity=TEXT)
def test_every_transition_survives_json(
    record: ClaimRecord, preparation: Preparation, identity: str
) -> None:
    """Whatever record is written, each of its transitions reads back as the very same values."""
    read = transitions.follow(None, stored(transitions.intent(record)))
    assert read == record
    for _ in record.steps:
        read = transitions.follow(read, stored(transitions.step(identity)))
    assert read == replace(record, identities=(identity,) * len(record.steps))
    read = transitions.follow(read, stored(transitions.result(preparation)))
    assert read.preparation == preparation
    read = transitions.follow(read, stored(transitions.releasing()))
    assert read.releasing


@given(record=RECORDS, identities=st.lists(TEXT, max_size=4))
def test_a_refused_step_leaves_nothing_to_undo(record: ClaimRecord, identities: list[str]) -> None:
    """The steps that were taken stay, the one that was refused and those after it are gone; saying it again changes nothing."""
    record = replace(record, identities=tuple(identities[: len(record.steps)]))
    read = transitions.follow(record, stored(transitions.releasing(refused=True)))
    taken = record.steps[: len(record.identities)]
    assert read == replace(record, steps=taken, releasing=True)
    assert transitions.follow(read, stored(transitions.releasing())) == read


@given(record=RECORDS, identities=st.lists(TEXT, max_size=4))
def test_a_note_stands_for_intent_and_steps(record: ClaimRecord, identities: list[str]) -> None:
    """Whatever record is noted, with however many steps done, the note's entries make the same record."""
    record = replace(record, identities=tuple(identities[: len(record.steps)]))
    note = transitions.note(record)
    assert transitions.fold(transitions.entries_of(stored(note))) == record
    assert transitions.entries_of(stored(note))[0] == stored(transitions.intent(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": "intent"}, "'intent' is no note"),
        ({"identities": None}, "identities is None, not a list"),
        ({"identities": ["whole", 7]}, "not a list of strings"),
        ({"v": 2}, "newer release"),
    ],
)
def test_foreign_notes_are_refused(record: ClaimRecord, change: JsonObject, message: str) -> None:
    """Another version, something that is no note, or no identities: refused, and the message says which."""
    with pytest.raises(RecordError, match=message):
        transitions.entries_of(transitions.note(record) | change)


def test_order_is_kept(record: ClaimRecord, preparation: Preparation) -> None:
    """Intent first and once, a step only where one is missing, one result after the last, nothing but releasing at the end."""
    intent, step = transitions.intent(record), transitions.step("gi-3")
    result, releasing = transitions.result(preparation), transitions.releasing()
    for wrong in (
        [step],
        [releasing],
        [intent, intent],
        [intent, result],
        [intent, step, result],
        [intent, step, step, step],
        [intent, step, step, result, result],
        [intent, step, step, result, step],
        [intent, releasing, step],
        [intent, step, step, releasing, result],
    ):
        with pytest.raises(RecordError, match=r"comes (before|out of turn)"):
            transitions.fold(map(stored, wrong))
    for right in ([intent, step, step, result, releasing, releasing], [intent, step, releasing]):
        transitions.fold(map(stored, right))


def test_fields_of_a_newer_release_are_passed_over(record: ClaimRecord) -> None:
    """A field that this release does not know, at any depth, changes nothing of what it reads."""

    def extended(value: object) -> object:
        if isinstance(value, dict):
            return {key: extended(item) for key, item in value.items()} | {"new": {"in": [1]}}
        return [extended(item) for item in value] if isinstance(value, list) else value

    entry = extended(transitions.intent(record))
    assert isinstance(entry, dict)
    assert transitions.follow(None, stored(entry)) == record


def test_fields_that_an_older_release_lacked_have_defaults(record: ClaimRecord) -> None:
    """Optional fields may be absent."""
    entry = stored(transitions.intent(record))
    for optional in ("profile", "placement", "shareId", "monitor"):
        del entry["grants"][0][optional]
    read = transitions.follow(None, entry)
    assert read.grants == (replace(record.grants[0], profile=None, placement=None),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": 2}, "format version 2 was written by a newer release"),
        ({"v": 0}, "format version 0 is not 1"),
        ({"v": None}, "format version None"),
        ({"v": True}, "format version True"),
        ({"transition": "hibernate"}, "'hibernate' comes before the intent"),
        ({"owner": 7}, "owner is 7, not a string"),
        ({"grants": [{}]}, "KeyError"),
        ({"grants": [GRANT | {"monitor": "false"}]}, "monitor is 'false', not true or false"),
        (
            {"grants": [GRANT | {"placement": {"start": 1.0, "size": 1}}]},
            "start is 1.0, not a whole",
        ),
        ({"grants": [GRANT | {"placement": {"start": True, "size": 1}}]}, "start is True"),
        ({"grants": None}, "TypeError"),
        ({"claim": "ml/a"}, "TypeError"),
        ({"steps": [{"device": "d", "change": {"kind": "melt", "gpu": "g"}}]}, "melt"),
    ],
)
def test_foreign_entries_are_refused(record: ClaimRecord, change: JsonObject, message: str) -> None:
    """Another format version, an unknown transition or a field of another type is refused, and the message says which."""
    with pytest.raises(RecordError, match=message):
        transitions.follow(None, transitions.intent(record) | change)
