from random import Random

from tests.journal.every_byte import all_cases, check_all


def test_any_damaged_byte_is_repaired_refused_or_harmless() -> None:
    """R6, 2,000 of all flips and cuts (`every_byte` runs the rest): the same record, or that claim alone, rebuilt or refused."""
    cases = all_cases()
    lines = [case for case in cases if case.place < 2_000]
    random = Random(4)
    verdicts = check_all(random.sample(lines, 1_500) + random.sample(cases, 500))
    assert verdicts.total() == 2_000
    assert verdicts["rebuilt"] > 1_000
    assert verdicts["refused: nothing was promised yet"] > 500
