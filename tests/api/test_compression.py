"""Answers compressed for who wants it, and only such as get smaller by it."""

import gzip
import zlib
from pathlib import Path

import pytest
import redis
from starlette.types import Message, Receive, Scope, Send

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from tests.support.serving import OPEN, Served, Windows, dashboard_in_thread, samples
from vibezen.metrics.serving.compression import MIN_SIZE, Compression, accepts_gzip


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP, deflate, br", True),
        ("deflate, br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.5", True),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=0.5, identity;q=0.1", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("br;q=1.0, *;q=0.1", True),
        ("x-gzip", True),
        ("gzip;q=nonsense", False),
        ("gzip;q=nan", False),
    ],
)
def test_weights_of_the_client_are_kept(header: str, wanted: bool) -> None:
    assert accepts_gzip(header) == wanted


async def sent(headers: dict[str, str], *bodies: bytes, accept: str = "gzip", status: int = 200) -> list[Message]:
    """What goes out where the application answers in these pieces."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    async def nothing() -> Message:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "headers": [(b"accept-encoding", accept.encode())]}
    await Compression(app)(scope, nothing, keep)
    return messages


def told(messages: list[Message]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in messages[0]["headers"]}


JSON = {"content-type": "application/json", "etag": '"abc"', "content-length": "5000"}


@pytest.mark.anyio
async def test_whole_answer_is_compressed_and_its_tag_weak() -> None:
    body = b'{"a":1}' * 1000
    messages = await sent(JSON, body)
    headers = told(messages)
    assert gzip.decompress(messages[1]["body"]) == body
    assert (headers["content-encoding"], headers["vary"]) == ("gzip", "Accept-Encoding")
    assert (headers["etag"], headers["content-length"]) == ('W/"abc"', str(len(messages[1]["body"])))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "body", "accept", "status"),
    [
        (JSON, b"x" * (MIN_SIZE - 1), "gzip", 200),
        (JSON, b"x" * 5000, "br", 200),
        (JSON, b"x" * 5000, "gzip", 206),
        ({**JSON, "content-encoding": "br"}, b"x" * 5000, "gzip", 200),
        ({**JSON, "content-type": "application/vnd.apache.parquet"}, b"x" * 5000, "gzip", 200),
        ({**JSON, "content-type": "image/png"}, b"x" * 5000, "gzip", 200),
    ],
)
async def test_what_is_left_as_it_is(headers: dict[str, str], body: bytes, accept: str, status: int) -> None:
    messages = await sent(headers, body, accept=accept, status=status)
    assert messages[1]["body"] == body
    assert (told(messages)["etag"], told(messages)["content-length"]) == ('"abc"', "5000")


@pytest.mark.anyio
async def test_stream_of_events_is_never_held_back() -> None:
    events = [b"data: %d\n\n" % number for number in range(3)] + [b""]
    messages = await sent({"content-type": "text/event-stream; charset=utf-8"}, *events)
    assert [message["body"] for message in messages[1:]] == events


@pytest.mark.anyio
async def test_pieces_go_out_as_they_come_in() -> None:
    """Of an export of any size no more than a piece is kept."""
    pieces = [bytes(str(number), "ascii") * 20_000 for number in range(50)]
    messages = await sent({"content-type": "text/csv"}, *pieces, b"")
    assert "content-length" not in told(messages)
    assert len(messages) == 1 + len(pieces) + 1
    unpacked = zlib.decompressobj(31)
    assert b"".join(unpacked.decompress(message["body"]) for message in messages[1:]) == b"".join(pieces)
    assert unpacked.eof


@pytest.mark.server
def test_compressed_answer_is_revalidated_by_its_weak_tag(served: Served, windows: Windows) -> None:
    windows.store(OPEN, "cost", samples(2.5, at=OPEN))
    params = {"metric": "cost", "step": "10s"}
    packed = served.http.get("/api/metrics/history", params=params)
    plain = served.http.get("/api/metrics/history", params=params, headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    assert packed.headers["etag"] == "W/" + plain.headers["etag"]
    for tag in (packed.headers["etag"], plain.headers["etag"]):
        known = served.http.get("/api/metrics/history", params=params, headers={"if-none-match": tag})
        assert (known.status_code, known.content) == (304, b"")
        assert (known.headers["etag"], known.headers["vary"]) == (packed.headers["etag"], "Accept-Encoding")


@pytest.mark.server
@pytest.mark.parametrize(("kind", "packed"), [("csv", "gzip"), ("jsonl", "gzip"), ("parquet", None)])
def test_export_is_compressed_but_for_what_is_already(
    kind: str, packed: str | None, client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    Pipeline(client, redis_url, tmp_path).take_in([event(number, provider="x") for number in range(100)])
    with dashboard_in_thread(redis_url, tmp_path) as served:
        answer = served.http.get("/api/metrics/export", params={"format": kind})
        plain = served.http.get("/api/metrics/export", params={"format": kind}, headers={"accept-encoding": "identity"})
    assert (answer.status_code, answer.headers.get("content-encoding")) == (200, packed)
    assert kind == "parquet" or answer.text == plain.text
