"""Fractions in percent."""

from tfcxr import percentages


def test_values_differences_and_intervals():
    assert [percentages.percent(value) for value in (0.7128, 1.0, 0.0, None)] == ["71.3", "100.0", "0.0", "–"]
    assert [percentages.signed(value) for value in (0.014, -0.2, None)] == ["+1.4", "-20.0", "–"]
    assert percentages.interval((0.1234, 0.5)) == "12.3–50.0"
    assert percentages.interval([-0.035, 0.032]) == "-3.5 to 3.2"
    assert percentages.interval(None) == "–"
