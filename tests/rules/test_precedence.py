from hypothesis import given
from hypothesis import strategies as st

from dra_driver.model.claim import AllocationResult, ConfigSource, OpaqueConfig
from dra_driver.rules.precedence import config_for

OURS = "gpu.dra-driver.dev"
REQUESTS = ("main", "main/small", "main/large", "mainly", "other")


def result(request: str = "main") -> AllocationResult:
    return AllocationResult(request=request, driver=OURS, pool="n1/nvidia", device="gpu-0")


def config(
    name: str, *requests: str, source: ConfigSource = "FromClaim", driver: str = OURS
) -> OpaqueConfig:
    return OpaqueConfig(driver=driver, parameters={"is": name}, requests=requests, source=source)


def test_no_entry_means_none() -> None:
    """Without an entry that applies there are no parameters: the defaults hold."""
    assert config_for(result(), [], OURS) is None
    assert config_for(result(), [config("a", "other")], OURS) is None


def test_entries_of_other_drivers_are_not_seen() -> None:
    """A claim may hold parameters for several drivers; only ours count, even if another's comes later."""
    ours, theirs = config("ours"), config("theirs", driver="gpu.example.com")
    assert config_for(result(), [ours, theirs], OURS) is ours
    assert config_for(result(), [theirs], OURS) is None


def test_claim_beats_class_wherever_it_stands() -> None:
    """What the user wrote wins over what the administrator offered, whatever the order of the list."""
    user, admin = config("user"), config("admin", source="FromClass")
    assert config_for(result(), [admin, user], OURS) is user
    assert config_for(result(), [user, admin], OURS) is user


def test_later_wins_whole() -> None:
    """The last entry of the same source wins, and nothing of the former ones is mixed in."""
    first, second = config("first"), config("second", "main")
    assert config_for(result(), [first, second], OURS) is second
    assert config_for(result(), [second, first], OURS) is first


def test_main_request_covers_its_alternatives() -> None:
    """`main` covers `main/sub`; `main/sub` covers neither `main` nor a sibling; a longer name is another request."""
    main, sub = config("main", "main"), config("sub", "main/small")
    assert config_for(result("main/small"), [main], OURS) is main
    assert config_for(result("main/small"), [sub], OURS) is sub
    assert config_for(result("main/large"), [sub], OURS) is None
    assert config_for(result("main"), [sub], OURS) is None
    assert config_for(result("mainly"), [main], OURS) is None


@given(
    request=st.sampled_from(REQUESTS),
    entries=st.lists(
        st.builds(
            OpaqueConfig,
            driver=st.sampled_from([OURS, "other.example.com"]),
            parameters=st.just({}),
            requests=st.lists(st.sampled_from(REQUESTS), max_size=2).map(tuple),
            source=st.sampled_from(["FromClass", "FromClaim"]),
        ),
        max_size=6,
    ),
)
def test_agrees_with_overwriting_in_order(request: str, entries: list[OpaqueConfig]) -> None:
    """Applying all class entries and then all claim entries, each overwriting the last, gives the same answer."""
    winner = None
    for source in ("FromClass", "FromClaim"):
        for entry in entries:
            names = entry.requests or (request,)
            covered = any(request == name or request.startswith(name + "/") for name in names)
            if entry.source == source and entry.driver == OURS and covered:
                winner = entry
    assert config_for(result(request), entries, OURS) is winner
