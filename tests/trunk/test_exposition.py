import pytest

from tests.support.prometheus import complaints
from vibezen.metrics.exposition.family import Family, Histogram, Sample, counter, gauge, info, name_of
from vibezen.metrics.exposition.format import Format, best
from vibezen.metrics.exposition.protobuf import protobuf
from vibezen.metrics.exposition.text import openmetrics_text, prometheus_text
from vibezen.metrics.window import window_of

WILD = 'a "quoted"\nline\\'
FAMILIES = [
    counter("appended_events", "Appended\nto a \\ stream.", Sample(7, {"shard": "0", "name": WILD})),
    gauge("free_bytes", 'Space, "free".', Sample(0.25), unit="bytes"),
    info("build", "This one.", {"version": "1.2"}),
]


def test_text_escapes_what_it_must_and_promtool_reads_it() -> None:
    text = prometheus_text(FAMILIES)
    assert text.decode().splitlines() == [
        r"# HELP vibezen_appended_events_total Appended\nto a \\ stream.",
        "# TYPE vibezen_appended_events_total counter",
        r'vibezen_appended_events_total{shard="0",name="a \"quoted\"\nline\\"} 7',
        '# HELP vibezen_free_bytes Space, "free".',
        "# TYPE vibezen_free_bytes gauge",
        "vibezen_free_bytes 0.25",
        "# HELP vibezen_build_info This one.",
        "# TYPE vibezen_build_info gauge",
        'vibezen_build_info{version="1.2"} 1',
    ]
    assert complaints(text) == ""


def test_openmetrics_has_units_types_of_its_own_and_an_end() -> None:
    assert openmetrics_text(FAMILIES).decode().splitlines() == [
        "# TYPE vibezen_appended_events counter",
        r"# HELP vibezen_appended_events Appended\nto a \\ stream.",
        r'vibezen_appended_events_total{shard="0",name="a \"quoted\"\nline\\"} 7',
        "# TYPE vibezen_free_bytes gauge",
        "# UNIT vibezen_free_bytes bytes",
        r"# HELP vibezen_free_bytes Space, \"free\".",
        "vibezen_free_bytes 0.25",
        "# TYPE vibezen_build info",
        "# HELP vibezen_build This one.",
        'vibezen_build_info{version="1.2"} 1',
        "# EOF",
    ]


def test_protobuf_writes_the_messages_of_the_client_model() -> None:
    family = Family("n", FAMILIES[1].type, "h", [Sample(1.0, {"k": "v"})])
    labels = bytes.fromhex("0a06 0a016b 120176")
    value = bytes.fromhex("1209 09 000000000000f03f")
    metric = labels + value
    whole = b"\x0a\x01n\x12\x01h\x18\x01\x22" + bytes([len(metric)]) + metric
    assert protobuf([family], []) == bytes([len(whole)]) + whole


def test_buckets_are_numbered_by_their_upper_bound_and_told_by_differences() -> None:
    # Schema 5: 1 is the upper bound of bucket 0, 2 of bucket 32, 2.04… of bucket 33.
    window = window_of([1.0, 1.0, 2.0, 2.03, 2.03, 2.03], [0.0] * 6)
    told = protobuf([], [Histogram("n", "h", window)])
    spans = bytes.fromhex("62 04 0800 1001" + "62 04 083e 1002")  # (0, 1 long), (31 further, 2 long)
    deltas = bytes.fromhex("6a 03 04 01 04")  # +2, -1, +2
    assert told.endswith(spans + deltas)


@pytest.mark.parametrize(
    ("accept", "format_"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/html, application/xml;q=0.9", Format.TEXT),
        ("text/plain;version=0.0.4", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("application/openmetrics-text; version=0.0.1", Format.TEXT),
        ('application/openmetrics-text;version="1.0.0";q=0.2,text/plain;q=0.5', Format.TEXT),
        ("application/openmetrics-text;q=0, text/plain;q=nonsense", Format.TEXT),
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format.OPENMETRICS,
        ),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
            "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format.PROTOBUF,
        ),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", Format.TEXT),
    ],
)
def test_scraper_gets_what_it_likes_best_of_what_there_is(accept: str, format_: Format) -> None:
    assert best(accept) is format_


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("response_time", "vibezen_response_time"),
        ("gen_ai.client.operation.duration", "vibezen_gen_ai_client_operation_duration"),
        ("vibezen.events_dropped", "vibezen_events_dropped"),
    ],
)
def test_names_have_no_dots_and_one_prefix(metric: str, name: str) -> None:
    assert name_of(metric) == name
