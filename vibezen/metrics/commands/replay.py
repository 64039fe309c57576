"""`vibezen-metrics replay`"""

import re
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings, need
from vibezen.metrics.commands.process import stop_event
from vibezen.metrics.commands.query import Where, see_the_store
from vibezen.metrics.errors import BadParameter

if TYPE_CHECKING:
    from vibezen.metrics.producers.importer_report import Balance
    from vibezen.metrics.producers.replay import Order
    from vibezen.metrics.settings import Settings

_MOVING = re.compile(r"now[^/]*\Z")
_SHIFT = re.compile(r"-?\d{1,11}\Z", re.ASCII)


def replay(
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="ISO 8601 (UTC), Unix seconds or yesterday.")],
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="Where the range ends.")],
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    metric: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this metric. May be repeated.")] = None,
    where: Where = None,
    into_prefix: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Append the events under this prefix, never the store's own.")
    ] = None,
    print_: Annotated[bool, typer.Option("--print", help="Write the events to standard output, as NDJSON.")] = False,
    speed: Annotated[
        str, typer.Option(metavar="N", help="Seconds of the recording in one of ours, 1 to 1000, or max.")
    ] = "max",
    shift: Annotated[
        str,
        typer.Option(metavar="SECONDS|now", help="Move all times; now: so that the range ends (speed 1: begins) now."),
    ] = "0",
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Names the replay. Without: the range and what is chosen of it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Recorded events once more, into another prefix; Ctrl-C, and the same command goes on."""
    stop = stop_event()
    need("server", "replay")
    if print_ == (into_prefix is not None):
        raise BadParameter("--into-prefix", "where to? Give --into-prefix, or --print, and not both")
    if into_prefix is not None:
        _check_prefix(into_prefix)
    settings = load_settings(config, redis_url, storage_dir)
    order = _order(since, until, metric or [], where or [], speed, shift, idempotency_key)
    if into_prefix is not None and idempotency_key is None:
        for name, text in (("from", since), ("to", until)):
            if _MOVING.match(text):
                raise BadParameter(name, f"{text!r} is another time whenever it is run; give a fixed one")
    from vibezen.metrics.layout import Layout

    see_the_store(Layout(settings.storage_dir))
    if into_prefix is None:
        raise typer.Exit(0 if _print(settings, order, stop) else 1)
    balance = _append(settings, order, stop, into_prefix, as_json=as_json)
    _tell(balance, into_prefix, as_json=as_json)
    raise typer.Exit(0 if balance.complete else 1)


def _check_prefix(prefix: str) -> None:
    from vibezen.metrics.settings import PREFIX

    if not re.match(PREFIX, prefix):  # no consumer could be told to read there
        raise BadParameter("--into-prefix", "expected up to 64 letters, digits, '_', '.', ':' and '-'")


def _order(
    since: str, until: str, metrics: list[str], where: list[str], speed: str, shift: str, key: str | None
) -> "Order":
    """Raises BadParameter."""
    from vibezen.metrics.clock import wall
    from vibezen.metrics.export import parse_export
    from vibezen.metrics.pace import parse_speed
    from vibezen.metrics.producers.replay import NOW, Order

    asked = {"format": "jsonl", "metric": ",".join(metrics), "where": where, "from": since, "to": until}
    try:
        pace = parse_speed(speed)
    except ValueError as error:
        raise BadParameter("speed", str(error)) from None
    if shift != NOW and not _SHIFT.match(shift):
        raise BadParameter("shift", "expected whole seconds, or now")
    return Order(parse_export(asked, (), wall()).wanted, pace, shift if shift == NOW else int(shift), key)


def _print(settings: "Settings", order: "Order", stop: threading.Event) -> bool:
    from vibezen.metrics.event_reader import EventReader
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.producers.replay import Replayer

    def take(lines: bytes) -> None:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()

    reader = EventReader(Layout(settings.storage_dir))
    return Replayer(reader, order, stop, lambda done, total: None).show(take)


def _append(settings: "Settings", order: "Order", stop: threading.Event, prefix: str, *, as_json: bool) -> "Balance":
    from vibezen.metrics.commands.export_screen import Screen
    from vibezen.metrics.event_reader import EventReader
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.producers.replay import Replayer

    with Screen(quiet=as_json) as screen:
        reader = EventReader(Layout(settings.storage_dir))
        replayer = Replayer(reader, order, stop, screen.progress)
        return replayer.append(settings, prefix, lambda line: print(line, file=sys.stderr))


def _tell(balance: "Balance", prefix: str, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        told = {"prefix": prefix, "key": balance.key, "producer": balance.producer, "events": balance.events}
        told |= {"appended": balance.appended, "already_there": balance.already_there, "complete": balance.complete}
        print(msgspec.json.format(msgspec.json.encode(told)).decode())
        return
    there = balance.appended + balance.already_there
    if balance.complete:
        print(f"{prefix}: {balance.appended:,} events appended, {balance.already_there:,} there already")
    else:
        print(f"interrupted: {there:,} events are in the stream; run the same command again to go on", file=sys.stderr)
