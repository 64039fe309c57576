"""SQL over a store: it sees what is committed, and can read nothing else and change nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from tests.support.feeding import event
from tests.support.stored import compact_day, compact_hour, sweep
from tests.support.stores import Store
from vibezen.metrics import sandbox
from vibezen.metrics.clock import DAY
from vibezen.metrics.errors import SqlError, StoreError
from vibezen.metrics.event import Event
from vibezen.metrics.event_reader import EventReader, Wanted
from vibezen.metrics.part_files import read_footers
from vibezen.metrics.parts import KEY, Footer, Part
from vibezen.metrics.rollups import RollupFooter, encode_footer, rollup_path
from vibezen.metrics.sandbox import Question, answered

START = 1_763_985_600
LABELS = ("provider", "model")
ALL = Wanted(0.0, 1e12)

Ask = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.add([event(n, START + 600 * n + 0.123456, provider="ab"[n % 2], turn=n) for n in range(12)])
    return store


@pytest.fixture
def ask(store: Store) -> Ask:
    def ask(text: str, wanted: Wanted = ALL, seconds: float = 20.0) -> list[tuple[Any, ...]]:
        with answered(EventReader(store.layout), Question(text, wanted, LABELS, seconds)) as answer:
            rows = [row for some in answer.rows() for row in some]
            assert len(rows) == answer.count
            assert all(len(row) == len(answer.columns) for row in rows)
            return rows

    return ask


def refusal(ask: Ask, text: str) -> str:
    with pytest.raises(SqlError) as caught:
        ask(text)
    return str(caught.value)


def test_events_have_their_fields_labels_and_metadata(ask: Ask) -> None:
    assert ask("SELECT * FROM events ORDER BY ts LIMIT 1") == [
        ("2025-11-24T12:00:00.123456", "response_time", 0.0, 1.0, 1, "a", None, '{"provider":"a","turn":0}')
    ]
    assert [row[:2] for row in ask("DESCRIBE events")] == [
        *(("ts", "TIMESTAMP"), ("metric", "VARCHAR"), ("value", "DOUBLE"), ("sample_rate", "DOUBLE")),
        *(("count", "BIGINT"), ("provider", "VARCHAR"), ("model", "VARCHAR"), ("metadata", "JSON")),
    ]


def test_only_committed_lines_are_seen(store: Store, ask: Ask) -> None:
    store.add([event(100, START)], closed=False, behind=b'{"metric":"x","value":1,"ts":1763985600}\n{"metr')
    assert ask("SELECT count(*), max(value) FROM events") == [(13, 100.0)]


def test_only_the_range_that_is_wanted_is_seen(ask: Ask) -> None:
    assert ask("SELECT count(*), min(value) FROM events", Wanted(START + 1200, START + 3600)) == [(4, 2.0)]
    assert ask("SELECT count(*) FROM events", Wanted(START + 86_400, START + 90_000)) == [(0,)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WITH a AS (SELECT value AS v FROM events) SELECT sum(v) FROM a", [(66.0,)]),
        ("FROM events SELECT provider, count(*) GROUP BY ALL ORDER BY ALL", [("a", 6), ("b", 6)]),
        ("VALUES (1, 'x')", [(1, "x")]),
        ("SELECT date_trunc('hour', ts) AS h, quantile_cont(value, 0.5) FROM events GROUP BY h ORDER BY h;", None),
        ("PIVOT events ON provider IN ('a', 'b') USING count(*) GROUP BY metric", [("response_time", 6, 6)]),
        ("SELECT sum((metadata->>'turn')::INT) FROM events -- all of them", [(66,)]),
        ("SELECT count(*) FROM rollups", [(0,)]),
        ("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT max(i) FROM n", [(3,)]),
        ("SELECT unnest([1, 2])", [(1,), (2,)]),
        ("SELECT count(*) FROM range(5), events", [(60,)]),
        ("SELECT column_name FROM information_schema.columns WHERE table_name = 'rollups' LIMIT 1", [("ts",)]),
        ("SELECT 1, 1", [(1, 1)]),
        ("SELECT count(*) FROM events WHERE metric = $$response_time$$", [(12,)]),
    ],
)
def test_whatever_reads_is_answered(ask: Ask, text: str, expected: list[tuple[Any, ...]] | None) -> None:
    found = ask(text)
    assert found == expected or expected is None


def test_values_of_every_type_have_a_form(ask: Ask) -> None:
    (row,) = ask(
        "SELECT 1::HUGEINT << 100, 1.5, true, NULL, INTERVAL 1 MONTH, [1, 2], {'a': 'x'}, DATE '2026-01-02',"
        " TIMESTAMPTZ '2026-01-02 03:04:05+01', TIMESTAMP '2026-01-02 03:04:05', 'x'::BLOB, MAP {'k': 1}"
    )
    assert row == (
        *(1 << 100, 1.5, True, None, "1 month", "[1,2]", '{"a":"x"}', "2026-01-02"),
        *("2026-01-02T02:04:05Z", "2026-01-02T03:04:05", "x", '{"k":1}'),
    )


def test_rows_keep_their_order(ask: Ask) -> None:
    values = [value for (value,) in ask("SELECT a.range AS n FROM range(50000) AS a ORDER BY n DESC")]
    assert values == list(range(49_999, -1, -1))


PASSWD = "/etc/passwd"


@pytest.mark.parametrize(
    "text",
    [
        f"FROM read_csv('{PASSWD}')",
        f"FROM read_text('{PASSWD}')",
        f"SELECT * FROM read_blob('{PASSWD}')",
        "FROM read_text('{store}/spool/x')",
        "FROM read_text('{store}/STORE')",
        "FROM read_json('{segment}')",
        "FROM '{segment}'",
        'FROM "{segment}"',
        "FROM read_text('{link}')",
        "FROM '{link}'",
        "FROM glob('{store}/*')",
        f"FROM '{PASSWD}'",
        f"DESCRIBE '{PASSWD}.csv'",
        f"SUMMARIZE '{PASSWD}.csv'",
        f"SELECT (SELECT content FROM read_text('{PASSWD}'))",
        f"SELECT * FROM events WHERE metric IN (SELECT content FROM read_text('{PASSWD}'))",
        f"WITH a AS (FROM read_text('{PASSWD}')) FROM a",
        f"FROM query('FROM read_text(''{PASSWD}'')')",
        "FROM query_table('events')",
        "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "FROM 'https://127.0.0.1:1/x.csv'",
        "FROM read_csv('https://127.0.0.1:1/x.csv')",
        "FROM read_parquet('s3://bucket/x.parquet')",
        f"FROM sniff_csv('{PASSWD}')",
        "FROM parquet_metadata('{segment}')",
        "FROM duckdb_secrets()",
        "FROM duckdb_settings()",
        "FROM duckdb_settings",
        "FROM enable_logging()",
        "FROM checkpoint()",
        "SELECT getenv('HOME')",
        "COPY (SELECT 1) TO '{store}/x.csv'",
        "COPY events TO '{store}/x.csv'",
        "EXPORT DATABASE '{store}/x'",
        "IMPORT DATABASE '{store}/x'",
        "ATTACH '{store}/x.db'",
        "DETACH memory",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{store}/x.duckdb_extension'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "RESET memory_limit",
        "PRAGMA enable_external_access = true",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "CREATE TABLE x AS SELECT 1",
        "CREATE MACRO f() AS 1",
        "CREATE SECRET (TYPE s3)",
        "INSERT INTO events SELECT * FROM events",
        "DELETE FROM events",
        "DROP VIEW events",
        "UPDATE events SET value = 1",
        "BEGIN",
        "CHECKPOINT",
        "USE memory",
        "PREPARE x AS SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "SET VARIABLE x = 1",
        "VACUUM",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW events",
        "SELECT 1) TO '{store}/x.csv' --",
        "",
        ";",
        "-- nothing",
        "SELECT * FROM store",
        "SELECT * FROM ask",
    ],
)
def test_whatever_does_more_than_read_events_is_refused_in_one_line(store: Store, ask: Ask, text: str) -> None:
    segment = next(store.layout.segments())
    link = segment.with_name("9-9-9.jsonl")
    link.symlink_to(PASSWD)
    before = {path: path.stat().st_mtime_ns for path in store.layout.root.rglob("*.*")}
    told = refusal(
        ask,
        text.replace("{store}", str(store.layout.root)).replace("{segment}", str(segment)).replace("{link}", str(link)),
    )
    first = told.splitlines()[0]
    assert first
    assert all(line.startswith(("LINE ", " ")) for line in told.splitlines()[1:]), told
    assert {path: path.stat().st_mtime_ns for path in store.layout.root.rglob("*.*")} == before


@pytest.mark.parametrize(
    "text", [f"FROM read_text('{PASSWD}')", f"FROM '{PASSWD}.csv'", "FROM read_text('{segment}x')"]
)
def test_database_itself_is_shut_in_as_well(store: Store, ask: Ask, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a statement ever get past the first check."""
    monkeypatch.setattr(sandbox, "only_statement", lambda _, given: given)
    segment = next(store.layout.segments())
    assert "only the store's own events" in refusal(ask, text.replace("{segment}", str(segment)))
    for change in ("SET enable_external_access = true", "RESET lock_configuration"):
        with pytest.raises(SqlError):
            ask(f"SELECT 1; {change}")


def test_mistakes_are_told_as_duckdb_tells_them_with_the_place(ask: Ask) -> None:
    assert refusal(ask, "SELECT provder\nFROM events") == (
        'Referenced column "provder" not found in FROM clause!\nLINE 1: SELECT provder\n               ^^^^^^^'
    )
    assert refusal(ask, "SELEC 1").startswith('syntax error at or near "SELEC"\nLINE 1: SELEC 1\n')
    assert refusal(ask, "SELECT\n  error('mine') FROM events") == "mine"
    assert "Could not convert" in refusal(ask, "SELECT metric::INT FROM events")
    assert refusal(ask, "SELECT * FROM event") == "event: there is no such table; there are events and rollups"
    assert refusal(ask, "SELECT 1; SELECT 2") == "2 statements where one is expected"


def test_too_much_time_and_too_much_memory_are_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "SELECT count(*) FROM range(1000000000) AS a, range(1000000000) AS b WHERE a.range % 7 = b.range % 5"
    with pytest.raises(SqlError, match="took longer than"):
        ask(endless, seconds=0.2)
    monkeypatch.setattr(sandbox, "MEMORY", "64MB")
    monkeypatch.setattr(sandbox, "room", lambda _: "1MB")
    assert "needs more than 64MB" in refusal(ask, "SELECT list(range) FROM range(100000000)")


def test_what_memory_does_not_hold_goes_to_disk_and_away_again(
    store: Store, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MEMORY", "100MB")
    assert ask("SELECT count(DISTINCT md5(range::VARCHAR)) FROM range(3000000)") == [(3_000_000,)]
    assert list(store.layout.exports.iterdir()) == []


def test_paths_with_signs_are_no_sql(tmp_path: Path) -> None:
    store = Store(tmp_path / "it's [a] $store; --'x")
    store.add([Event("cost", 1.5, START)])
    question = Question("SELECT sum(value) FROM events", ALL, LABELS, 20.0)
    with answered(EventReader(store.layout), question) as answer:
        assert list(answer.rows()) == [[(1.5,)]]


def test_damaged_lines_are_left_out_and_told(store: Store, ask: Ask, caplog: Any) -> None:
    path = next(store.layout.segments())
    path.write_bytes(path.read_bytes().replace(b'{"metric"', b"{{", 1))
    assert ask("SELECT count(*) FROM events") == [(11,)]
    assert "some lines in the files are no events" in caplog.text
    caplog.clear()
    assert "mine" in refusal(ask, "SELECT error('mine') FROM events")


def test_file_that_is_gone_is_an_error_of_the_store(store: Store, ask: Ask) -> None:
    next(store.layout.segments()).unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        ask("SELECT count(*) FROM events")


def test_parts_and_segments_beside_them_are_one_table(store: Store, ask: Ask) -> None:
    text = "SELECT ts, metric, value, sample_rate, count, provider, metadata FROM events ORDER BY ALL"
    before = ask(text)
    day = START // DAY * DAY
    compact_hour(store.layout, START)
    assert ask(text) == before
    compact_day(store.layout, day)
    sweep(store.layout)
    assert not list(store.layout.segments())
    assert ask(text) == before
    store.add([event(50, START + 30, provider="late")])
    assert ask("SELECT count(*), max(value) FROM events WHERE provider = 'late'") == [(1, 50.0)]
    assert len(ask(text)) == len(before) + 1
    with pytest.raises(SqlError, match="not allowed"):
        ask(f"FROM read_parquet('{store.layout.events}/date=2025-11-24/part-1.parquet')")


def test_rollups_are_those_that_stand_for_their_day(store: Store, ask: Ask) -> None:
    day = START // DAY * DAY
    compact_day(store.layout, day)
    with duckdb.connect() as connection:
        (part,) = [Part("date=2025-11-24/part-1.parquet", footer) for footer in footers(store)]
        told = RollupFooter("s", 1, part.path, part.footer.content, ["provider"], ["response_time"], [], [])
        for generation, footer in ((1, told), (2, msgspec.structs.replace(told, content="other"))):
            path = rollup_path(store.layout, day, generation)
            path.parent.mkdir(parents=True, exist_ok=True)
            connection.execute(
                f"COPY (SELECT make_timestamp({START}000000) AS ts, 'response_time' AS metric, NULL AS labels,"
                " 10.0 AS count, 10 AS lines, 45.0 AS sum, 0.0 AS min, 9.0 AS max, 9.0 AS last,"
                f" make_timestamp({START}000000) AS last_ts, 1.0 AS zero) TO '{path}'"
                f" (FORMAT parquet, KV_METADATA {{{KEY}: $footer}})",
                {"footer": encode_footer(footer)},
            )
    assert ask("SELECT ts, metric, labels, count, sum FROM rollups") == [
        ("2025-11-24T12:00:00", "response_time", None, 10.0, 45.0)
    ]
    assert ask("SELECT count(*) FROM rollups", Wanted(START + 60, START + 3600)) == [(0,)]
    rollup_path(store.layout, day, 2).rename(rollup_path(store.layout, day, 1))
    assert ask("SELECT count(*) FROM rollups") == [(0,)]


def footers(store: Store) -> list[Footer]:
    return list(read_footers(sorted(store.layout.events.glob("date=*/part-*.parquet"))).values())


def test_answer_of_many_rows_does_not_stand_in_memory(store: Store) -> None:
    question = Question("SELECT range AS n FROM range(300000)", ALL, LABELS, 20.0)
    with answered(EventReader(store.layout), question) as answer:
        assert answer.count == 300_000
        first = next(answer.rows())
        assert len(first) == sandbox.BLOCK_ROWS
    assert json.dumps(first[0]) == "[0]"
