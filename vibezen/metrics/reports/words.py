"""Numbers, times and changes as people read them. api/page/src/format.ts shows them the same way."""

import math
from collections.abc import Sequence
from datetime import datetime

from vibezen.metrics.clock import DAY
from vibezen.metrics.reports.comparison import Verdict
from vibezen.metrics.reports.period import Period
from vibezen.metrics.reports.report import Changes, Figure, Report, Span
from vibezen.metrics.reports.units import PER_SECOND, SHARE
from vibezen.metrics.window_reader import Number as Value
from vibezen.metrics.zone import zone_of

NOTHING = "–"
NO_LABEL = "(none)"
"""What a group is called that has no such label."""
EMPTY_LABEL = "(empty)"
_BARE = frozenset({"1", "0-1", "tokens", "lines", "steps", "revisions"})
"""Units that a number's name says already."""
_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def shown(value: Value, unit: str) -> str:
    """`152 ms`, `1.52 s`, `94.3%`, `$1.24`, `15.2K tokens`; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if unit == SHARE:
        return percent(value)
    if unit == "USD":
        return ("-" if value < 0 else "") + f"${_money(abs(value))}"
    if unit == "ms":
        return _milliseconds(value)
    if unit == "s":
        return _seconds(value)
    if unit == PER_SECOND:
        return f"{short(value)}/s"
    return short(value) if unit in _BARE else f"{short(value)} {unit}"


def short(value: float) -> str:
    """Three significant digits: 0.042, 1.52, 152, 1,520, 15.2K."""
    size = abs(value)
    if size >= 9_999.5:
        for power, suffix in _SUFFIXES:
            if size >= power * 0.9995:
                return f"{_digits(value / power)}{suffix}"
    return f"{value:,.0f}" if size >= 999.5 else _digits(value)


def _digits(value: float) -> str:
    if not value:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(places, 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(value: float) -> str:
    scaled = value * 100
    places = 2 if scaled and abs(scaled) < 1 else 1 if abs(scaled) < 1000 else 0
    text = f"{scaled:,.{places}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}%"


def _money(value: float) -> str:
    if value >= 9_999.5:
        return short(value)
    return f"{value:,.2f}" if value >= 0.1 or not value else f"{value:#.2g}" if value >= 1e-4 else f"{value:.1g}"


def _milliseconds(value: float) -> str:
    size = abs(value)
    if size < 999.5:
        return f"{_digits(value)} ms"
    return _seconds(value / 1000)


def _seconds(value: float) -> str:
    size = abs(value)
    if size < 59.95:
        return f"{_digits(value)} s"
    return f"{_digits(value / 60)} min" if size < 5970 else f"{short(value / 3600)} h"


def change(figure: Figure) -> str:
    """`+12%`, `-3.1%`, `×4.2`; empty where there is nothing to compare with."""
    if figure.relative is None:
        return "" if figure.change is None else signed(figure.change, figure.unit)
    if figure.relative >= 9.995:
        return f"×{short(figure.relative + 1)}"
    size = abs(figure.relative) * 100
    text = f"{size:.0f}" if size >= 9.95 else f"{size:.1f}".removesuffix(".0")
    if text == "0":
        return "±0%"
    return f"{'+' if figure.relative > 0 else '−'}{text}%"


def signed(value: float, unit: str) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else '±'}{shown(abs(value), unit)}"


def sentence(figure: Figure) -> str:
    """`Response time, p95: 1.24 s, was 1.51 s (−18%)`."""
    now = shown(figure.value, figure.unit)
    if figure.value is None and figure.previous is None:
        return f"{figure.name}: nothing recorded"
    if figure.previous is None:
        return f"{figure.name}: {now}, nothing recorded before"
    if figure.value is None:
        return f"{figure.name}: nothing recorded, was {shown(figure.previous, figure.unit)}"
    return f"{figure.name}: {now}, was {shown(figure.previous, figure.unit)} ({change(figure)})"


VERDICT_WORDS = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.UNCHANGED: "unchanged",
    Verdict.HIGHER: "higher",
    Verdict.LOWER: "lower",
    Verdict.TOO_LITTLE_DATA: "too little data",
}


def moment(ts: float, zone: str) -> str:
    """`Tue Nov 3 2026, 14:02`."""
    when = datetime.fromtimestamp(ts, zone_of(zone).rules)
    return f"{when:%a %b} {when.day} {when:%Y, %H:%M}"


def day(ts: float, zone: str) -> str:
    when = datetime.fromtimestamp(ts, zone_of(zone).rules)
    return f"{when:%a %b} {when.day} {when:%Y}"


def _is_midnight(ts: int, zone: str) -> bool:
    when = datetime.fromtimestamp(ts, zone_of(zone).rules)
    return not (when.hour or when.minute)


def span(since: int, to: int, zone: str) -> str:
    """Whole days by their first and last; else with times."""
    if _is_midnight(since, zone) and _is_midnight(to, zone):
        first, last = day(since, zone), day(to - 1, zone)
        return first if first == last else f"{first} – {last}"
    return f"{moment(since, zone)} – {moment(to, zone)}"


def about(period: Span) -> str:
    """The period, its zone, and whether it still goes on."""
    so_far = " so far" if period.so_far else ""
    return f"{span(period.since, period.to, period.zone)} ({period.zone}){so_far}"


def compared_with(period: Span) -> str:
    return span(period.previous_from, period.previous_to, period.zone)


def length_note(period: Period) -> str | None:
    """What is done about periods of unequal length."""
    if period.stretch == 1:
        return None
    days, before = period.seconds / DAY, (period.before_stop - period.before) / DAY
    return (
        f"The period before is {before:.3g} days long, this one {days:.3g}: its sums and counts are shown "
        f"multiplied by {period.stretch:.3f}."
    )


def day_number(ts: int, zone: str) -> str:
    """`2026-11-03`."""
    return f"{datetime.fromtimestamp(ts, zone_of(zone).rules):%Y-%m-%d}"


def label(value: str | None) -> str:
    """A label's value, or that there is none."""
    return NO_LABEL if value is None else value or EMPTY_LABEL


def speaks(verdict: Verdict) -> bool:
    """Whether there is a change to be told."""
    return verdict not in (Verdict.UNCHANGED, Verdict.TOO_LITTLE_DATA)


def changes(told: Changes) -> list[tuple[str, list[str]]]:
    """Those kinds of changes that there are, with their heading."""
    every = (
        ("Better", told.better),
        ("Worse", told.worse),
        ("Changed", told.other),
        ("Unchanged, or no more than chance", told.unchanged),
        ("Too little data to tell", told.too_little_data),
    )
    return [(name, sentences) for name, sentences in every if sentences]


def in_short(told: Changes) -> str:
    """`Of 15 numbers 2 got better and 3 worse; 8 are unchanged, of 2 there is too little data.`"""
    counts = [len(one) for one in (told.better, told.worse, told.other, told.unchanged, told.too_little_data)]
    better, worse, other, unchanged, little = counts
    if little == sum(counts):
        return "There is too little data to tell what changed."
    parts = [f"{better or 'none'} got better and {worse or 'none'} worse"]
    parts += [f"{other} changed in a way that is neither"] if other else []
    parts += [f"{unchanged} {'is' if unchanged == 1 else 'are'} unchanged"] if unchanged else []
    parts += [f"of {little} there is too little data to tell"] if little else []
    return f"Of {sum(counts)} numbers {'; '.join(parts)}."


def origin(report: Report) -> str:
    """Where the numbers are from, and how exact they are."""
    made = f"Made {moment(report.made_at, report.period.zone)} ({report.period.zone})."
    if not report.sources:
        return made
    kinds = " and ".join(dict.fromkeys(source.source for source in report.sources))
    exact = "exact" if report.exact else "percentiles within 1.1 %"
    newest = "" if report.as_of is None else f", newest event {moment(report.as_of, report.period.zone)}"
    return f"From {kinds}, {exact}{newest}. {made}"


def two_lines(day: str) -> str:
    """A day that may be broken behind its weekday, and nowhere else."""
    weekday, _, rest = day.partition(" ")
    return f"{weekday} {rest.replace(' ', chr(0xA0))}"


def labels(values: Sequence[str | None]) -> str:
    """A group by its labels' values."""
    return " / ".join(map(label, values))


def bar(value: Value, most: Value) -> float:
    """How long a bar is, in per cent of the longest."""
    return round(100 * max(0.0, value) / most, 2) if value and most else 0.0
