"""What all analysis asks for: one aggregate of one metric over time, by the parameters of history."""

from collections.abc import Mapping, Sequence

from vibezen.metrics.errors import BadParameter
from vibezen.metrics.question import PARAMETERS, Parameters, Question, parse_question, single
from vibezen.metrics.settings import Settings
from vibezen.metrics.window_reader import HISTOGRAM


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
