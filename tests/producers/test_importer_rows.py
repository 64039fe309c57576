"""From a file's bytes to events: the same whatever way a chunk goes, every row accounted for, lines as in the file."""

import gzip
import json
import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibezen.metrics.errors import BadParameter, ImportStopped
from vibezen.metrics.producers.importer_mapping import Mapping, parse_event
from vibezen.metrics.producers.importer_order import key_of, prepare
from vibezen.metrics.producers.importer_rows import Refused
from vibezen.metrics.producers.importer_source import Source

NOW = 1_800_000_000.0
TOKENS = Mapping(events=(parse_event("tokens={n},type=input,model={model}"), parse_event("response_time={s}*1000")))
Made = tuple[bytes, list[Refused], int, int]


def read(path: Path, mapping: Mapping, size: int = 1000) -> Made:
    """(lines, refused, rows, empty) of a file that is read `size` rows at a time."""
    lines, refused, rows, empty = b"", list[Refused](), 0, 0
    with closing(Source(str(path), threading.Event())) as source:
        prepared = prepare(source, mapping)
        while chunk := prepared.rows.read(size):
            outcome = prepared.convert(chunk, NOW)
            assert outcome.ahead is None
            lines += b"".join(batch.payload for batch in outcome.batches)
            assert sum(batch.n for batch in outcome.batches) == sum(b.payload.count(b"\n") for b in outcome.batches)
            refused += outcome.refused
            rows, empty = rows + outcome.rows, empty + outcome.empty
    return lines, refused, rows, empty


def events(made: Made) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made[0].splitlines()]


def why(made: Made) -> list[tuple[int, str, str]]:
    return [(one.line, one.field, one.reason) for one in made[1]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


cells = st.sampled_from(["1", "2.5", "-0", "1e3", "", " 7 ", "nan", "x", "1_0", "٣", "1e400"])
rows = st.lists(
    st.tuples(st.sampled_from(["2023-11-16 18:17:03", "1700158623", "", "soon"]), cells, cells, st.sampled_from("ab ")),
    max_size=30,
)


@given(rows, st.integers(1, 7))
def test_what_a_row_becomes_depends_on_the_row_alone(
    tmp_path_factory: pytest.TempPathFactory, rows: Sequence[Sequence[str]], size: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "data.csv"
    path.write_text("ts,n,s,model\n" + "".join(",".join(row) + "\n" for row in rows))
    whole, pieces, single = (read(path, TOKENS, size) for size in (1000, size, 1))
    assert whole == pieces == single
    _, refused, count, empty = whole
    assert count == len(rows)
    assert (count - len(refused)) * 2 == len(events(whole)) + empty


@given(st.lists(st.sampled_from([1, 2.5, None, True, "3", "x", [1], 10**400]), max_size=12), st.integers(1, 5))
def test_the_same_holds_for_fields_of_json(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], size: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "data.ndjson"
    mapping = Mapping(time="at", events=(parse_event("m={a.b},label={a.c}"),))
    path.write_text(
        "".join(json.dumps({"at": 1.7e9, "a": {"b": value, "c": value == 1 or "x"}}) + "\n" for value in values)
    )
    assert read(path, mapping) == read(path, mapping, size) == read(path, mapping, 1)


def test_a_value_of_json_is_a_number_or_one_in_text(tmp_path: Path) -> None:
    path = tmp_path / "data.ndjson"
    values = [1, 2.5, "3", None, True, [1], {"a": 1}, "x", 10**400]
    path.write_text(
        "".join(json.dumps({"ts": 1.7e9, "v": value}) + "\n" for value in values) + '{"ts": 1.7e9}\n[]\n{\n'
    )
    made = read(path, Mapping(events=(parse_event("m={v}"),)))
    assert [event["value"] for event in events(made)] == [1, 2.5, 3]
    assert [line for line, *_ in why(made)] == [5, 6, 7, 8, 9, 11, 12]
    assert made[2:] == (12, 2)


def test_one_row_gives_its_events_in_order_with_the_same_time(file: Path) -> None:
    file.write_text("TIMESTAMP,n,s,model\n2023-11-16 18:17:03.9799600,4808,0.25,gpt\n")
    assert events(read(file, TOKENS)) == [
        {"metric": "tokens", "value": 4808, "ts": 1700158623.97996, "metadata": {"type": "input", "model": "gpt"}},
        {"metric": "response_time", "value": 250, "ts": 1700158623.97996},
    ]


def test_an_empty_value_gives_no_event_and_an_empty_label_is_absent(file: Path) -> None:
    file.write_text("ts,n,s,model\n1700000000,,1,gpt\n1700000000,5, ,\n")
    made = read(file, TOKENS)
    assert [event.get("metadata") for event in events(made)] == [None, {"type": "input"}]
    assert made[1:] == ([], 2, 2)


def test_a_quote_left_open_and_foreign_bytes_are_told_in_words(file: Path) -> None:
    file.write_bytes(b'ts,n,s,model\n1700000000,1,1,"a\n1700000000,2,1,b\n1700000000,3,1,"c\n1700000000,4,1,\xfc\n')
    reasons = [reason for _, _, reason in why(read(file, TOKENS))]
    assert "3 lines were read as this one row: is a quote left open?" in reasons[0]
    assert reasons[1] == "bytes that are no text in this encoding; --encoding names another"


def test_a_row_is_rejected_whole_with_field_and_reason(file: Path) -> None:
    file.write_text("ts,n,s,model\n1700000000,1,nan,a\n1700000000,x,1,a\n,1,1,a\n1700000000,1\n1999-12-31,1,1,a\n")
    made = read(file, TOKENS)
    assert made[0] == b""
    assert why(made) == [
        (2, "s", "'nan' is not a finite number"),
        (3, "n", "'x' is not a number"),
        (4, "ts", "has no time; history needs one"),
        (5, "row", "2 cells instead of 4"),
        (6, "ts", "946598400.0 is before 2000-01-01; expected Unix seconds"),
    ]


def test_lines_are_those_of_the_file_behind_quoted_line_ends(file: Path) -> None:
    file.write_bytes(
        b'ts,n,s,model\r\n\r\n1700000000,1,1,"two\r\nlines"\r\n1700000000,bad,1,"x\ny"\n\n1700000000,1,"1"1,a\n1700000000,no,,'
    )
    made = read(file, TOKENS)
    assert made[2] == 4
    assert [(one.line, one.field, one.row) for one in made[1]] == [
        (5, "n", '1700000000,bad,1,"x\ny"\n'),
        (8, "row", '1700000000,1,"1"1,a\n'),
        (9, "n", "1700000000,no,,"),
    ]
    assert events(made)[0]["metadata"]["model"] == "two\r\nlines"
    assert read(file, TOKENS, 1) == made


def test_a_quote_that_never_closes_is_a_rejected_row(file: Path) -> None:
    file.write_text('ts,n,s,model\n1700000000,1,1,a\n1700000000,1,1,"b\n')
    made = read(file, TOKENS)
    assert (len(events(made)), why(made)) == (2, [(3, "row", "not CSV: unexpected end of data")])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "cp1252"])
def test_encodings_and_their_marks_are_understood(file: Path, encoding: str) -> None:
    file.write_bytes("ts,n,s,model\n1700000000,1,1,Müller\n".encode(encoding))
    asked = encoding.removesuffix("-sig")
    (event, _) = events(read(file, Mapping(encoding=asked, events=TOKENS.events)))
    assert event["metadata"]["model"] == "Müller"


def test_bytes_that_are_no_text_spoil_only_rows_that_use_them(file: Path) -> None:
    file.write_bytes(b"ts,n,s,model,other\n1700000000,1,1,a,\xff\n1700000000,1,1,\xff,a\n1700000000,\xff,1,b,a\n")
    made = read(file, TOKENS)
    assert len(events(made)) == 2
    assert [(line, field) for line, field, _ in why(made)] == [(3, "metadata"), (4, "n")]


def test_damaged_gzip_gives_what_precedes_the_damage(file: Path) -> None:
    path = file.with_suffix(".csv.gz")
    path.write_bytes(gzip.compress(b"ts,n,s,model\n" + b"1700000000,1,1,a\n" * 100_000)[:-20])
    with closing(Source(str(path), threading.Event())) as source:
        prepared = prepare(source, TOKENS)
        assert prepared.rows.read(1000) is not None
        with pytest.raises(ImportStopped, match=r"cannot be read after line \d+: Compressed file ended"):
            list(iter(partial(prepared.rows.read, 1000), None))


def test_a_missing_or_doubled_column_is_told_with_those_there_are(file: Path) -> None:
    file.write_text("ts,n,n,model\n")
    with pytest.raises(BadParameter, match=r"^\{n\}: 2 columns have this name; the columns are ts, n, n, model$"):
        read(file, TOKENS)
    file.write_text("ts;n;s\n")
    with pytest.raises(BadParameter, match=r"^\{ts\}: there is no such column; .* is the delimiter ';'"):
        read(file, Mapping(time="ts", events=TOKENS.events))
    file.write_text("")
    with pytest.raises(ImportStopped, match="is empty: there is no header line"):
        read(file, TOKENS)


def test_columns_can_be_named_and_parted_otherwise(file: Path) -> None:
    tsv = file.with_suffix(".tsv")
    tsv.write_text("1700000000\t5\n")
    assert events(read(tsv, Mapping(columns=("ts", "n"), events=(parse_event("m={n}"),))))[0]["value"] == 5
    file.write_text("ts;n\n1700000000;5\n")
    assert events(read(file, Mapping(delimiter=";", events=(parse_event("m={n}"),))))[0]["value"] == 5


def test_a_csv_of_our_own_events_needs_no_mapping(file: Path) -> None:
    file.write_text(
        "ts,metric,value,count,sample_rate,model\n1.7e9,tokens,5,3,0.5,a\n1.7e9,Tokens,5,,,\n1.7e9,m,5,,,\n"
    )
    made = read(file, Mapping())
    first = {"metric": "tokens", "value": 5, "ts": 1.7e9, "count": 3, "sample_rate": 0.5, "metadata": {"model": "a"}}
    assert events(made) == [first, {"metric": "m", "value": 5, "ts": 1.7e9}]
    assert [(line, field) for line, field, _ in why(made)] == [(3, "metric")]


def test_lines_that_are_events_go_on_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    good = b'{"value":1,"metric":"m","ts":1700000000.25}\n{"metric":"m","value":2.0,"ts":1700000001,"metadata":{}}\n'
    path.write_bytes(b"\xef\xbb\xbf" + good)
    assert read(path, Mapping()) == (good, [], 2, 0)
    path.write_bytes(good.replace(b"\n", b"\r\n"))
    assert read(path, Mapping())[0] == good
    path.write_bytes(
        good + b'\n{"metric":"m","value":1}\n{"metric":"m","value":true,"ts":1700000000}\n[]\n' + good[:-1]
    )
    made = read(path, Mapping())
    assert made == read(path, Mapping(), 1)
    assert made[0] == good + good
    assert [line for line, *_ in why(made)] == [4, 5, 6]
    assert why(made)[0] == (4, "ts", "is missing; history needs a time")


def test_the_key_follows_from_mapping_header_and_first_row_alone(file: Path) -> None:
    def key(text: str, mapping: Mapping = TOKENS) -> str:
        file.write_text(text)
        with closing(Source(str(file), threading.Event())) as source:
            prepared = prepare(source, mapping)
            return key_of(prepared, prepared.rows.read(1000))

    head, row = "ts,n,s,model\n", "1700000000,1,1,a\n"
    same = key(head + row)
    assert key(head + row + "broken\n" * 3 + row * 5000) == same
    assert key(head + row.replace(",a", ',"a"')) == same
    assert key((head + row).replace(",", ";"), Mapping(delimiter=";", events=TOKENS.events)) == same
    others = [key(head + "1700000001,1,1,a\n"), key(head.replace("ts", "time") + row), key(head)]
    others += [key(head + row, Mapping(events=TOKENS.events, set={"host": "b"}))]
    assert len({same, *others}) == 5
