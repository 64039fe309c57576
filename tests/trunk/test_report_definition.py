"""Definitions of reports: the built-in ones are sound, and every mistake is one line that says where it is."""

from pathlib import Path

import pytest

from vibezen.metrics import config
from vibezen.metrics.errors import BadParameter, ConfigError
from vibezen.metrics.reports import definition, definition_file, library
from vibezen.metrics.settings import Settings

SETTINGS = Settings()
SECTION = "{title: Cost, show: figures, numbers: [{metric: cost}]}"


def parse(text: str) -> definition.Definition:
    return definition_file.parse(text, "mine.yaml", SETTINGS)


def test_built_in_reports_are_sound() -> None:
    assert library.names(SETTINGS) == ["cost_analysis", "quality_trends", "system_performance", "weekly_summary"]
    for name in library.names(SETTINGS):
        found = library.load(name, SETTINGS)
        assert definition.unknown_metrics(found, SETTINGS) == []


def test_numbers_are_named_by_what_they_are() -> None:
    section = parse(
        "title: T\nsections:\n- {title: S, show: table, group_by: provider, where: phase=review, numbers: "
        "[{metric: cost}, {metric: response_time}, {metric: response_time, agg: [p50, p95], name: Time}, "
        "{metric: cost, per: {metric: api_calls}, name: Per call}, "
        "{metric: tokens, where: type=input, per: {metric: tokens}, name: Input, better: higher}]}"
    ).sections[0]
    found = definition.numbers(section, SETTINGS)
    assert [(one.name, one.unit, one.better) for one in found] == [
        ("Cost", "USD", "lower"),
        ("Response time, p50", "ms", "lower"),
        ("Time, p50", "ms", "lower"),
        ("Time, p95", "ms", "lower"),
        ("Per call", "USD", "lower"),
        ("Input", "share", "higher"),
    ]
    assert [len(one.of.where) for one in found] == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping"),
        ("[1]", "expected a mapping"),
        ("title: [", "line 1, column 9: not valid YAML"),
        ("\x00", "not valid YAML"),
        ("title: 2026-13-45", "not valid YAML: month must be in 1..12"),
        (f"sections: [{SECTION}]", "title: missing"),
        ("title: T", "sections: missing"),
        ("title: T\nsections: []", "sections"),
        ("title: 3\nsections: []", "title = 3: expected `str`, got `int`"),
        ("1: 2", "every key must be text"),
        (f"title: T\nwhat: 1\nsections: [{SECTION}]", "what: unknown key; known are title, text, period, sections"),
        (f"title: T\nperiod: fortnight\nsections: [{SECTION}]", "period = 'fortnight': expected 24h, 7d"),
        (
            "title: T\nsections: [{title: S, show: pie}]",
            "sections[0].show = 'pie': expected one of text, figures, lines",
        ),
        ("title: T\nsections: [{title: S, topp: 1}]", "sections[0].topp: unknown key; known are title, text, show"),
        ("title: T\nsections: [{title: S, top: 0}]", "sections[0].top = 0: expected `int` >= 1"),
        ("title: T\nsections: [{title: S}]", "sections[0].show = 'text': expected `text`"),
        ("title: T\nsections: [{title: S, show: lines}]", "sections[0].numbers: expected at least one number"),
        (
            "title: T\nsections: [{title: S, show: figures, numbers: [{metric: Cost}]}]",
            "sections[0].numbers[0].metric = 'Cost': expected a metric's name",
        ),
        (
            "title: T\nsections: [{title: S, show: figures, numbers: [{metric: cost, agg: median}]}]",
            "sections[0].numbers[0].agg = 'median': expected one of count, sum",
        ),
        (
            "title: T\nsections: [{title: S, show: figures, numbers: [{metric: cost, agg: []}]}]",
            "sections[0].numbers[0].agg: expected at least one",
        ),
        (
            "title: T\nsections: [{title: S, show: figures, numbers: [{metric: cost, better: more}]}]",
            "sections[0].numbers[0].better = 'more': expected one of lower, higher, neither",
        ),
        (
            "title: T\nsections: [{title: S, show: figures, numbers: [{metric: cost, per: {metric: cost, agg: x}}]}]",
            "sections[0].numbers[0].per.agg = 'x': expected one of",
        ),
        (
            "title: T\nsections: [{title: S, show: figures, numbers: [{metric: cost, per: {metrik: cost}}]}]",
            "sections[0].numbers[0].per.metrik: unknown key; known are metric, agg, where",
        ),
        (
            "title: T\nsections: [{title: S, show: figures, numbers: [{metric: cost, where: provider}]}]",
            "sections[0].numbers[0].where: 'provider': expected key=value",
        ),
        (
            "title: T\nsections: [{title: S, show: table, group_by: Colour!, numbers: [{metric: cost}]}]",
            "sections[0].group_by = 'Colour!': expected a metadata key",
        ),
        (
            "title: T\nsections: [{title: S, show: table, group_by: [model, model], numbers: [{metric: cost}]}]",
            "sections[0].group_by: a key is there twice",
        ),
        (
            "title: T\nsections: [{title: S, show: table, numbers: [{metric: cost}]}]",
            "sections[0].group_by: expected at least one label",
        ),
        (
            "title: T\nsections: [{title: S, show: figures, group_by: model, numbers: [{metric: cost}]}]",
            "sections[0].group_by: 'figures' shows no groups",
        ),
        (
            "title: T\nsections:\n- {title: S, show: bars, group_by: model, numbers: [{metric: cost}, {metric: x}]}",
            "sections[0].numbers: expected one number",
        ),
        (
            "title: T\nsections: [{title: S, show: lines, numbers: [{metric: cost}, {metric: tokens}]}]",
            "sections[0].numbers: units USD, tokens in one chart",
        ),
        (
            "title: T\nsections: [{title: S, show: columns, numbers: [{metric: response_time, agg: p95}]}]",
            "sections[0].numbers: columns are stacked; expected agg sum or count",
        ),
    ],
)
def test_mistake_is_one_line_with_file_and_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    told = str(caught.value)
    assert told.startswith("mine.yaml: ")
    assert message in told
    assert "\n" not in told


def test_metric_nobody_declared_and_key_that_is_no_label_are_allowed_and_told() -> None:
    found = parse(
        "title: T\nsections: [{title: S, show: table, group_by: [model, repo], numbers: "
        "[{metric: my.own, per: {metric: other}}]}]"
    )
    assert definition.unknown_metrics(found, SETTINGS) == ["my.own", "other"]
    assert definition.unknown_labels(found, SETTINGS) == ["repo"]


def test_reports_of_ones_own_stand_beside_the_built_in_ones(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "mine.yaml").write_text(f"title: Mine\nsections: [{SECTION}]")
    (folder / "cost_analysis.yml").write_text(f"title: Ours\nsections: [{SECTION}]")
    (folder / "README.md").write_text("no report")
    (folder / ".hidden.yaml").write_text("nor this")
    path = tmp_path / "vibezen.yaml"
    path.write_text("vibezen: {metrics: {reports: {dir: ./reports}}}")
    settings = config.load(path, environ={})
    assert settings.reports.dir == folder
    assert library.names(settings) == [
        "cost_analysis",
        "mine",
        "quality_trends",
        "system_performance",
        "weekly_summary",
    ]
    assert library.load("cost_analysis", settings).title == "Ours"


@pytest.mark.parametrize("name", ["nothing", "../mine", "types/cost_analysis", "", "/etc/passwd", "x" * 500, "\n"])
def test_unknown_report_names_those_that_there_are(name: str) -> None:
    with pytest.raises(BadParameter, match="there are cost_analysis, quality_trends") as caught:
        library.load(name, SETTINGS)
    assert caught.value.field == "type"
    assert len(str(caught.value)) < 400


def test_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        definition_file.read(tmp_path / "none.yaml", SETTINGS)
    large = tmp_path / "large.yaml"
    large.write_text("#" * (definition_file.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="more than 256 KB"):
        definition_file.read(large, SETTINGS)
