"""The figures of `fraudcase bench stream`, computed from answers with known times."""

from console.bench.latency import percentiles
from console.bench.stream import sustained_rate


def test_rate_is_computed_from_the_middle_answers() -> None:
    slow_start = {0: 100, 9_000: 100}
    steady = {9_000 + 100 * number: 50 for number in range(1, 17)}
    assert sustained_rate({**slow_start, **steady}) == 500.0
    stragglers = {60_000: 20, 70_000: 30}
    assert sustained_rate({**slow_start, **steady, **stragglers}) == 500.0
    assert sustained_rate({5: 10}) == 0.0


def test_percentiles_are_values_of_the_sorted_sample() -> None:
    assert percentiles(range(1_000), ("p50", "p99", "p999")) == {"p50": 500, "p99": 990, "p999": 999}
