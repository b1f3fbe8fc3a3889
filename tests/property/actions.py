"""What may happen to a GPU with MIG, and random orders of it."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

ACTIONS = ("take", "overreach", "give_back", "crash", "intrude", "withdraw", "switch")
"""Each a method of `mig_life.MigLife`."""
LONGEST = 20


class Action(NamedTuple):
    """What happens next. `pick` chooses among what is possible, `turns` is when the process dies, `flag` is each action's own."""

    what: str
    pick: int
    turns: int
    flag: bool


lives = st.lists(
    st.builds(
        Action,
        what=st.sampled_from(ACTIONS),
        pick=st.integers(0, 63),
        turns=st.integers(0, 80),
        flag=st.booleans(),
    ),
    min_size=1,
    max_size=LONGEST,
)
