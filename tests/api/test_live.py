"""The live feed as clients see it, over a real server. It is always NOW here; the server's entry ids are real."""

import json
import random
import socket
from itertools import pairwise

import pytest
import redis
from websockets.exceptions import ConnectionClosed

from tests.support.servers import StartServer
from tests.support.serving import NOW, OPEN, Json, Served, StartDashboard, Windows, samples
from tests.support.waiting import WaitUntil
from vibezen.metrics.api import fanout, hub, tail
from vibezen.metrics.api.position import parse_position
from vibezen.metrics.live import Change
from vibezen.metrics.series import series_key

pytestmark = pytest.mark.server

SERIES = series_key("response_time", {})


def shown(message: Json, metric: str = "response_time", start: int = OPEN) -> Json | None:
    """What a message says of one cell."""
    for window in message["windows"]:
        if window["start"] == start:
            cell: Json | None = window["metrics"].get(metric)
            return cell
    return None


def count(message: Json) -> int:
    cell = shown(message)
    return 0 if cell is None else int(cell["count"])


def frames(windows: Windows, numbers: range) -> list[str]:
    """Commits in which the open window grows to each of these counts; their positions."""
    made = []
    for number in numbers:
        entry = windows.commit(OPEN, "response_time", samples(*range(1, number + 1), at=NOW))
        made.append(f"{entry}_0-0")
    return made


def test_snapshot_comes_first_and_holds_the_newest_thirty_windows(
    redis_url: str, client: redis.Redis, windows: Windows, start_dashboard: StartDashboard
) -> None:
    for age in range(40):
        windows.store(OPEN - 10 * age, "tokens", samples(age + 1, at=OPEN), shard=0, model="a")
        windows.store(OPEN - 10 * age, "tokens", samples(age + 1, at=OPEN), shard=1, model="a")
    client.set(windows.keys.shards, 2)
    served = start_dashboard(redis_url, clock=lambda: NOW)
    with served.socket() as one:
        first = one.next()
    assert (first["type"], first["width"], first["demo"]) == ("snapshot", 10, False)
    assert [window["start"] for window in first["windows"]] == [OPEN - 10 * age for age in range(29, -1, -1)]
    newest = shown(first, "tokens")
    assert newest is not None
    assert (newest["count"], newest["sum"], newest["min"], newest["max"], newest["last"]) == (2, 2, 1, 1, 1)
    assert set(newest) == {"count", "sum", "min", "max", "last", "p50", "p95", "p99"}
    assert first["realtime"] == served.get("/api/metrics/realtime")


def test_frames_say_what_changed_in_absolute_values(served: Served, windows: Windows) -> None:
    with served.socket() as one:
        assert one.next()["windows"] == []
        windows.store(OPEN - 10, "cost", samples(1, at=OPEN))
        (position,) = frames(windows, range(3, 4))
        frame = one.next()
        assert (frame["type"], frame["id"], frame["at"]) == ("frame", position, NOW)
        assert [(window["start"], list(window["metrics"])) for window in frame["windows"]] == [
            (OPEN, ["response_time"])
        ]
        assert count(frame) == 3
        assert frame["recorded"] == {"oldest": NOW, "newest": NOW}
        assert frame["realtime"] == served.get("/api/metrics/realtime")
        frames(windows, range(4, 5))
        assert count(one.next()) == 4


def test_both_transports_say_the_same(served: Served, windows: Windows) -> None:
    with served.socket() as one, served.events() as events:
        messages = [one.next()]
        frames(windows, range(1, 2))
        messages.append(one.next())
        for message in messages:
            event = next(events)
            assert (event.pop("sse_id"), event.pop("sse_event")) == (message["id"], message["type"])
            assert event == message


def test_commits_in_quick_succession_go_into_few_frames_and_nothing_is_missing(
    served: Served, windows: Windows
) -> None:
    with served.socket() as one:
        one.next()
        positions = frames(windows, range(1, 101))
        seen = one.until_id(positions[-1])
    assert len(seen) < 20
    assert [message["id"] for message in seen] == sorted({message["id"] for message in seen}, key=positions.index)
    assert count(seen[-1]) == 100


def test_window_older_than_the_snapshot_is_told_when_it_changes_late(served: Served, windows: Windows) -> None:
    late, too_late = OPEN - 1200, OPEN - 7000
    with served.socket() as one:
        one.next()
        windows.show([Change(start, SERIES, samples(7, at=start)) for start in (late, too_late)])
        frame = one.next()
        assert [window["start"] for window in frame["windows"]] == [late]
        windows.show([Change(too_late, SERIES, samples(7, 8, at=too_late))])
        (position,) = frames(windows, range(1, 2))
        assert one.next()["id"] == position, "history that comes in is no frame"


@pytest.mark.parametrize("transport", ["socket", "events"])
def test_client_resumes_after_its_last_id_in_order_and_without_doubles(
    served: Served, windows: Windows, transport: str
) -> None:
    positions = []
    with served.socket() as always:
        for number in range(1, 6):
            positions += frames(windows, range(number, number + 1))
            always.until_id(positions[-1])
    if transport == "socket":
        with served.socket(since=positions[1]) as one:
            resumed = one.next()
            positions += frames(windows, range(6, 7))
            following = one.next()
    else:
        with served.events(since=positions[1]) as events:
            resumed = next(events)
            positions += frames(windows, range(6, 7))
            following = next(events)
    assert (resumed["type"], resumed["id"], count(resumed)) == ("frame", positions[4], 5)
    assert (following["type"], following["id"], count(following)) == ("frame", positions[5], 6)


def test_client_that_missed_nothing_is_told_nothing_twice(served: Served, windows: Windows) -> None:
    with served.socket() as one:
        one.next()
        (position,) = frames(windows, range(1, 2))
        one.until_id(position)
    with served.socket(since=position) as one:
        (following,) = frames(windows, range(2, 3))
        assert one.next()["id"] == following


def test_new_process_resumes_clients_of_an_old_one(
    served: Served, windows: Windows, redis_url: str, start_dashboard: StartDashboard
) -> None:
    positions = frames(windows, range(1, 40))
    newcomer = start_dashboard(redis_url, clock=lambda: NOW)
    for since in (positions[20], positions[3], positions[30]):
        with newcomer.socket(since=since) as one:
            resumed = one.next()
            assert (resumed["type"], resumed["id"], count(resumed)) == ("frame", positions[-1], 39)


@pytest.mark.parametrize("seed", [1, 2])
def test_client_that_comes_and_goes_sees_rising_ids_and_ends_with_the_truth(
    served: Served, windows: Windows, redis_url: str, start_dashboard: StartDashboard, seed: int
) -> None:
    moods = random.Random(seed)
    processes = [served, start_dashboard(redis_url, clock=lambda: NOW)]
    seen: list[Json] = []
    total = 0
    while total < 60:
        with moods.choice(processes).socket(since=seen[-1]["id"] if seen else None) as one:
            for _ in range(moods.randrange(3)):
                grown = moods.randrange(1, 4)
                (*_, last) = frames(windows, range(total + 1, total + 1 + grown))
                total += grown
                seen += one.until_id(last)
        frames(windows, range(total + 1, total + 2))
        total += 1
    with processes[0].socket(since=seen[-1]["id"]) as one:
        seen.append(one.next())
    assert {message["type"] for message in seen[1:]} == {"frame"}
    positions = [parse_position(message["id"]) for message in seen]
    assert all(before is not None and after is not None and before < after for before, after in pairwise(positions))
    counts = [count(message) for message in seen]
    assert counts == sorted(counts)
    assert counts[-1] == total


def test_two_processes_give_the_same_ids(
    served: Served, windows: Windows, redis_url: str, start_dashboard: StartDashboard
) -> None:
    other = start_dashboard(redis_url, clock=lambda: NOW)
    with served.socket() as one, other.socket() as two:
        one.next(), two.next()
        for number in range(1, 4):
            (position,) = frames(windows, range(number, number + 1))
            assert one.next() == two.next()
            assert str(served.hub.position) == position


def test_client_ahead_of_its_new_process_is_waited_for(
    served: Served, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CATCH_UP", 20.0)
    windows.show([Change(OPEN, SERIES, samples(1, at=NOW))])
    ahead = f"{windows.show([Change(OPEN, SERIES, samples(1, 2, at=NOW))])}_0-0"
    with served.socket(since=ahead) as one:
        (position,) = frames(windows, range(3, 4))
        assert one.next()["id"] == position


def test_client_that_comes_from_a_quicker_process_sees_no_id_twice(
    served: Served, windows: Windows, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """This process has read the entry, and has not sent it yet."""
    served.hub.interval = 3.0
    (seen,) = frames(windows, range(1, 2))
    wait_until(lambda: str(served.hub.position) == seen)
    with served.socket(since=seen) as one:
        (position,) = frames(windows, range(2, 3))
        assert one.next()["id"] == position


def test_position_that_was_trimmed_is_answered_by_a_gap_and_a_snapshot(
    redis_url: str, client: redis.Redis, windows: Windows, start_dashboard: StartDashboard
) -> None:
    positions = frames(windows, range(1, 6))
    client.xtrim(windows.keys.frames, minid=positions[3].partition("_")[0], approximate=False)
    served = start_dashboard(redis_url, clock=lambda: NOW)
    with served.socket(since=positions[1]) as one:
        gap, snapshot = one.next(), one.next()
    assert gap == {"type": "gap", "id": positions[1], "from": positions[1], "to": positions[4]}
    assert (snapshot["type"], snapshot["id"], count(snapshot)) == ("snapshot", positions[4], 5)


@pytest.mark.parametrize("since", ["", "rubbish", "9-9", "1-1_0-0", "99999999999999-0_0-0"])
def test_position_that_never_was_is_answered_by_a_gap_and_a_snapshot(
    served: Served, windows: Windows, since: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CATCH_UP", 0.01)
    with served.socket(since=since) as one:
        assert [one.next()["type"], one.next()["type"]] == ["gap", "snapshot"]
    if since:
        with served.events(since=since) as events:
            assert [next(events)["type"], next(events)["type"]] == ["gap", "snapshot"]


def test_alert_part_of_the_id_follows_the_alert_stream(
    served: Served, windows: Windows, client: redis.Redis, wait_until: WaitUntil
) -> None:
    alert = client.xadd(windows.keys.transitions, {"transition": '{"what": "fired"}'})
    assert isinstance(alert, bytes)
    wait_until(lambda: served.hub.position.alert != (0, 0))
    with served.socket() as one:
        assert one.next()["id"] == f"0-0_{alert.decode()}"
        entry = windows.commit(OPEN, "response_time", samples(1, at=NOW))
        assert one.next()["id"] == f"{entry}_{alert.decode()}"


def test_frame_of_another_version_is_passed_over(served: Served, windows: Windows, client: redis.Redis) -> None:
    with served.socket() as one:
        one.next()
        client.xadd(windows.keys.frames, {"frame": b"\x07future"})
        (position,) = frames(windows, range(1, 2))
        last = one.until_id(position)[-1]
        assert count(last) == 1


def test_frame_that_was_never_sent_is_made_good_from_the_stored_windows(
    served: Served, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CHECK_INTERVAL", 0.0)
    with served.socket() as one:
        one.next()
        windows.store(OPEN - 20, "response_time", samples(1, 2, at=OPEN - 20))
        healed = one.until(lambda message: shown(message, start=OPEN - 20) is not None)[-1]
        assert healed["type"] == "snapshot"
        (position,) = frames(windows, range(1, 2))
        frame = one.until_id(position)[-1]
        assert shown(frame, start=OPEN - 20) is not None, "a client that was away just then resumes with it"


def test_windows_are_told_as_they_grow_also_while_no_frame_is_sent(
    served: Served, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(tail, "MAX_BLOCK", 0.05)
    with served.socket() as one:
        one.next()
        for number in (1, 2):
            windows.store(OPEN, "response_time", samples(*range(number), at=NOW))
            assert count(one.until(lambda message: count(message) > 0)[-1]) == number


def test_stream_that_was_emptied_is_noticed(
    served: Served, windows: Windows, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.socket() as one:
        one.next()
        positions = frames(windows, range(1, 4))
        one.until_id(positions[-1])
        monkeypatch.setattr(hub, "CHECK_INTERVAL", 0.0)
        client.flushall()
        gap, snapshot = one.until(lambda message: message["type"] == "snapshot")[-2:]
        assert (gap["type"], gap["from"]) == ("gap", positions[-1])
        assert snapshot["windows"] == []
        (position,) = frames(windows, range(1, 2))
        assert one.until_id(position)[-1]["type"] == "frame"


def test_open_streams_outlive_the_server_and_go_on_where_they_were(
    start_server: StartServer, start_dashboard: StartDashboard, wait_until: WaitUntil
) -> None:
    server = start_server()
    windows = Windows(server.client())
    served = start_dashboard(server.url, clock=lambda: NOW)
    with served.socket() as one, served.events() as events:
        one.next(), next(events)
        frames(windows, range(1, 2))
        assert one.next()["id"] == next(events)["id"]
        server.stop()
        wait_until(lambda: served.hub.trouble is not None)
        status, error = served.refused("/api/metrics/realtime")
        assert (status, error["code"]) == (503, "unavailable")
        assert served.http.get("/api/metrics/realtime").headers["retry-after"] == "2"
        assert served.http.get("/readyz").json() == {"status": "not ready", "reasons": ["no Redis or Valkey answers"]}
        assert served.http.get("/readyz").status_code == 503
        answer = served.get("/api/metrics/history", metric="cost")  # from files, which are still there
        assert {source["source"] for source in answer["sources"]} == {"events"}
        assert served.refused("/api/pipeline")[0] == 503
        assert served.http.get("/healthz").json() == {"status": "ok"}
        server.start()
        wait_until(lambda: served.hub.trouble is None)
        (position,) = frames(windows, range(2, 3))
        resumed, event = one.next(), next(events)
        assert (resumed["type"], resumed["id"], count(resumed)) == ("frame", position, 2)
        assert event["id"] == position
        assert served.get("/readyz") == {"status": "ready"}


def test_server_that_lost_its_data_is_told_as_a_gap(
    start_server: StartServer, start_dashboard: StartDashboard, wait_until: WaitUntil
) -> None:
    server = start_server(None, "--appendonly", "no")
    windows = Windows(server.client())
    served = start_dashboard(server.url, clock=lambda: NOW)
    with served.socket() as one:
        one.next()
        positions = frames(windows, range(1, 3))
        one.until_id(positions[-1])
        server.kill()
        server.start()
        gap, snapshot = one.next(), one.next()
        assert (gap["type"], gap["from"]) == ("gap", positions[-1])
        assert (snapshot["type"], snapshot["windows"]) == ("snapshot", [])
        (position,) = frames(windows, range(1, 2))
        assert one.next()["id"] == position


def test_client_may_come_before_redis_does(
    start_server: StartServer, start_dashboard: StartDashboard, wait_until: WaitUntil
) -> None:
    server = start_server()
    server.stop()
    served = start_dashboard(server.url, ready=False, clock=lambda: NOW)
    with served.socket() as one, served.events() as events:
        server.start()
        assert (one.next()["type"], next(events)["type"]) == ("snapshot", "snapshot")


def test_silence_is_broken_by_heartbeats(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, start_dashboard: StartDashboard
) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT", 0.05)
    served = start_dashboard(redis_url, clock=lambda: NOW)
    with served.socket() as one, served.events() as events:
        beat = one.until(lambda message: message["type"] == "heartbeat")[-1]
        assert beat == {"type": "heartbeat", "id": "0-0_0-0", "at": NOW}
        assert "heartbeat" in {next(events)["type"], next(events)["type"]}


def test_ping_is_answered_with_its_own_time(served: Served) -> None:
    with served.socket() as one:
        one.next()
        one.connection.send(json.dumps({"type": "ping", "t": 1234.5}))
        pong = one.next()
        assert (pong["type"], pong["t"]) == ("pong", 1234.5)
        assert set(pong) == {"type", "t", "at"}


@pytest.mark.parametrize("text", ["", "no json", "[" * 5000, '{"type":"ping"}', '{"type":"filter"}', "null", b"\xff"])
def test_what_a_client_says_that_is_not_known_is_let_pass(served: Served, text: str | bytes) -> None:
    with served.socket() as one:
        one.next()
        one.connection.send(text)
        one.connection.send(json.dumps({"type": "ping", "t": 1}))
        assert one.next()["t"] == 1


def test_oversized_message_closes_the_socket(served: Served, wait_until: WaitUntil) -> None:
    with served.socket() as one:
        one.next()
        one.connection.send("x" * 100_000)
        with pytest.raises(ConnectionClosed):
            one.next()
        assert one.connection.close_code == 1009
    wait_until(lambda: served.hub.subscribers == 0)


def test_client_that_leaves_frees_everything(served: Served, wait_until: WaitUntil) -> None:
    with served.socket() as one, served.events() as events:
        one.next(), next(events)
        assert served.hub.subscribers == 2
    wait_until(lambda: served.hub.subscribers == 0)
    assert served.http.head("/api/stream").status_code == 200
    wait_until(lambda: served.hub.subscribers == 0)
    with served.socket() as one:
        one.next()
        one.connection.socket.shutdown(socket.SHUT_RDWR)  # no goodbye
        wait_until(lambda: served.hub.subscribers == 0)


@pytest.mark.parametrize("path", ["/ws", "/api/stream"])
def test_client_that_does_not_read_is_let_go_and_slows_nobody(
    served: Served, windows: Windows, path: str, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    served.hub.interval = 0.0
    monkeypatch.setattr(fanout, "QUEUE", 4)
    # Large messages fill the kernel's buffers soon.
    windows.show([Change(OPEN, series_key(f"metric_{number}", {}), samples(1, at=NOW)) for number in range(300)])
    with socket.create_connection(("127.0.0.1", served.port)) as deaf, served.socket() as quick:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        upgrade = upgrade if path == "/ws" else ""
        deaf.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{upgrade}\r\n".encode())
        wait_until(lambda: served.hub.subscribers == 2)
        quick.next()
        sent = 0
        while served.hub.subscribers == 2:
            sent += 1
            (position,) = frames(windows, range(sent, sent + 1))
            assert quick.until_id(position)
            assert sent < 500, "it is never let go"
        assert served.hub.subscribers == 1
