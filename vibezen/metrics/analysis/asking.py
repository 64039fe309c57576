"""What all analysis asks for and tells of it: one aggregate of one metric over time, by the parameters of history."""

from collections.abc import Mapping, Sequence

import msgspec

from vibezen.metrics.errors import BadParameter
from vibezen.metrics.gathering import Source
from vibezen.metrics.question import PARAMETERS, Parameters, Question, parse_question, single
from vibezen.metrics.settings import Settings
from vibezen.metrics.window_reader import HISTOGRAM


class Analysis(msgspec.Struct, kw_only=True, omit_defaults=True):
    """As of History: the range in whole steps, and where the numbers are from. `better` tells which way is good news,
    null: neither."""

    metric: str
    since: float = msgspec.field(name="from")
    to: float
    tz: str
    step: int
    agg: str
    unit: str
    better: str | None
    exact: bool
    sources: list[Source]
    as_of: float | None
    known: bool
    omitted: int
    similar: list[str] = []


def parse_line(
    parameters: Parameters, more: Sequence[str], settings: Settings, now: float, since: str
) -> tuple[Question, Mapping[str, str]]:
    """The question, of one aggregate, and all parameters that are given once. `more`: parameters beside those of
    history; `since`: where a range without `from` begins. Raises BadParameter."""
    texts = single(parameters, (*PARAMETERS, *more))
    known = {name: given for name, given in parameters.items() if name in PARAMETERS}
    question = parse_question({**known, "from": texts.get("from") or since}, settings, now)
    if len(question.aggregates) > 1 or HISTOGRAM in question.aggregates:
        raise BadParameter("agg", "expected one, and no histogram")
    return question, texts
