"""Every statement of docs/sql-and-export.md runs as it stands."""

import re
from pathlib import Path

import pytest

from tests.support.feeding import event
from tests.support.stores import Store
from vibezen.metrics.event_reader import EventReader, Wanted
from vibezen.metrics.sandbox import Question, answered
from vibezen.metrics.series import DEFAULT_LABELS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "sql-and-export.md").read_text()
RECIPES = re.findall(r"^```sql\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
RECIPES += re.findall(r'^vibezen-metrics sql "(.*)"$', TEXT, re.MULTILINE)
START = 1_763_985_600.0


@pytest.mark.parametrize("text", RECIPES)
def test_recipe_has_an_answer(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    made = {"provider": "openai", "model": "m", "session": "s"}
    store.add([event(120.0, START, "response_time", **made), event(0.5, START, "cost", **made)])
    store.add([event(900.0, START + 5, "tokens", type="input", **made)])
    with answered(EventReader(store.layout), Question(text, Wanted(0.0, 1e12), DEFAULT_LABELS, 20.0)) as answer:
        assert answer.count > 0
