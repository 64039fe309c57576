"""What a commit shows to the live feed: after it and outside it, since a frame lost here is made good by the next."""

from redis import Redis
from redis.exceptions import RedisError

from vibezen.metrics.consumers.windows import Gathered
from vibezen.metrics.keys import Keys
from vibezen.metrics.live import FIELD, KEPT_SECONDS, SHOWN_SECONDS, Change, Frame, encode_frame


def changes(changed: Gathered, width: int, now: float) -> list[Change]:
    """What of a commit the feed shows: recent windows of the finest width."""
    shown_since = now - SHOWN_SECONDS - width
    return [
        Change(start, key, window)
        for (found, start), windows in changed.items()
        if found == width and start > shown_since
        for key, window in windows.items()
    ]


def show(client: Redis, keys: Keys, frame: Frame, now: float) -> None:
    """Add a frame, unless it is empty or the server is full: the page then catches up from the windows."""
    if not frame.changes:
        return
    oldest_kept = int((now - KEPT_SECONDS) * 1000)
    try:
        client.xadd(keys.frames, {FIELD: encode_frame(frame)}, minid=oldest_kept, approximate=True)
    except RedisError as error:
        if not str(error).startswith(("OOM", "command not allowed when used memory")):
            raise
