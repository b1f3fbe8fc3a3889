"""Which plugin processes share a folder, told from their locks alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dra_driver.model.errors import StartError
from kubelet_plugin.instances import joined
from tests.kubelet_plugin.second_process import SecondProcess, second_process
from tests.limits import no_more_descriptors, no_more_writes


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[SecondProcess]:
    async with second_process(tmp_path) as process:
        yield process


def lock_files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("instance*")}


async def test_a_process_without_another_is_alone_and_leads(tmp_path: Path) -> None:
    """Nobody need know it yet."""
    with joined(tmp_path, "a") as mine:
        assert mine.alone()
        assert mine.leads()


async def test_a_newer_process_is_not_alone_and_leads_once_it_serves(
    tmp_path: Path, other: SecondProcess
) -> None:
    """Before, and if it never does, the older one goes on leading."""
    with joined(tmp_path, "old") as mine:
        await other.do("join", "new")
        assert not mine.alone()
        assert mine.leads()
        assert await other.do("leads") == "False"
        await other.do("announce")
        assert not mine.leads()
        assert await other.do("leads") == "True"


async def test_an_older_process_is_never_led_by_one_before_it(
    tmp_path: Path, other: SecondProcess
) -> None:
    """Whoever came last and serves leads, whatever the older one says later."""
    await other.do("join", "old")
    with joined(tmp_path, "new") as mine:
        assert not mine.leads()
        assert await other.do("leads") == "True"
        mine.announce()
        await other.do("announce")
        assert mine.leads()
        assert await other.do("leads") == "False"


@pytest.mark.parametrize("leave", [True, False], ids=["ends", "is-killed"])
async def test_the_older_process_leads_again_when_the_newer_one_is_gone(
    tmp_path: Path, other: SecondProcess, *, leave: bool
) -> None:
    """Ended or killed, its file or none: it is not counted."""
    with joined(tmp_path, "old") as mine:
        await other.do("join", "new")
        await other.do("announce")
        assert (mine.alone(), mine.leads()) == (False, False)
        await (other.do("leave") if leave else other.kill())
        assert (mine.alone(), mine.leads()) == (True, True)


async def test_peace_is_a_new_one_after_every_newcomer(
    tmp_path: Path, other: SecondProcess
) -> None:
    """A process that came and went between two looks is noticed; as long as nobody comes it is the same."""
    with joined(tmp_path, "old") as mine:
        before = mine.peace()
        assert before is not None
        assert mine.peace() == before
        await other.do("join", "new")
        assert mine.peace() is None
        await other.kill()
        after = mine.peace()
        assert after is not None
        assert after != before
        assert mine.peace() == after


async def test_a_second_process_of_the_same_name_is_refused(
    tmp_path: Path, other: SecondProcess
) -> None:
    """By the number of the one that lives, and with a way out; once that one was killed its name is free."""
    await other.do("join", "a")
    with (
        pytest.raises(StartError, match=r"instance-a\.lock is held by process \d+: .* podUid"),
        joined(tmp_path, "a"),
    ):
        pass
    with joined(tmp_path, "b") as beside:
        assert not beside.alone()
    await other.kill()
    with joined(tmp_path, "a") as mine:
        assert mine.alone()


async def test_without_a_pod_uid_there_is_one_process(tmp_path: Path) -> None:
    """A second one is refused."""
    with (
        joined(tmp_path, None),
        pytest.raises(StartError, match="serves this folder already"),
        joined(tmp_path, None),
    ):
        pass


async def test_the_files_of_those_that_died_do_not_pile_up(
    tmp_path: Path, other: SecondProcess
) -> None:
    """The next one that joins removes them, and never a live one's."""
    await other.do("join", "dead")
    await other.kill()
    async with second_process(tmp_path) as live:
        await live.do("join", "live")
        with joined(tmp_path, "mine"):
            assert lock_files(tmp_path) == {"instance-live.lock", "instance-mine.lock"}


async def test_a_newcomer_is_noticed_though_the_folder_was_emptied(
    tmp_path: Path, other: SecondProcess
) -> None:
    """Somebody removed what all share: nobody is alone until it is there again, and what was known before counts no more."""
    with joined(tmp_path, "old") as mine:
        before = mine.peace()
        (tmp_path / "arrivals").unlink()
        assert mine.peace() is None
        await other.do("join", "new")
        assert mine.peace() is None
        assert mine.leads()
        assert mine.peace() is None
        await other.kill()
        after = mine.peace()
        assert after is not None
        assert after != before
        assert mine.peace() == after


def test_who_cannot_look_for_others_goes_on_as_before(tmp_path: Path) -> None:
    """Without a descriptor: a process that led leads, one that did not does not, and none is alone beside a newcomer."""
    with joined(tmp_path, "old") as old:
        assert old.leads()
        with joined(tmp_path, "new") as new:
            new.announce()
            with no_more_descriptors():
                assert (old.leads(), new.leads()) == (True, False)
                assert old.peace() is None
            assert (old.leads(), new.leads()) == (False, True)


def test_an_announcement_that_cannot_be_written_is_made_later(tmp_path: Path) -> None:
    """Who announces it hears of no error; the others learn it as soon as the disk takes it."""
    with joined(tmp_path, "old") as old, joined(tmp_path, "new") as new:
        with no_more_writes(), capture_logs() as lines:
            new.announce()
            assert (new.leads(), old.leads()) == (True, True)
        assert [line["error"] for line in lines] == ["[Errno 27] File too large"]
        assert new.leads()
        assert not old.leads()
