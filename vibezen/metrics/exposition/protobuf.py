"""The protobuf format: messages `io.prometheus.client.MetricFamily`, each behind its length. It alone has native
histograms.

Written by hand, since these are seven small messages and nothing else here needs protobuf. Numbers of fields are those
of <https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto>.

Our buckets are those of native histograms of schema SCALE, but for their number: our bucket i is theirs i + 1.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from vibezen.metrics.exposition.family import Family, Histogram, Type
from vibezen.metrics.histogram import SCALE, Weight
from vibezen.metrics.window import Window

_GAUGE_HISTOGRAM: Final = 5
_TYPE: Final = {Type.COUNTER: 0, Type.GAUGE: 1, Type.INFO: 1}
_VALUE_FIELD: Final = {Type.COUNTER: 3, Type.GAUGE: 2, Type.INFO: 2}

_ZERO_THRESHOLD: Final = math.ulp(0.0)
"""Our zeros are zeros; but without a threshold Prometheus takes a histogram of weighted samples for a classic one."""

_VARINT, _FIXED64, _BYTES = 0, 1, 2


def protobuf(families: Iterable[Family], histograms: Iterable[Histogram]) -> bytes:
    messages = [*map(_family, families), *map(_histogram_family, histograms)]
    return b"".join(_varint(len(each)) + each for each in messages)


def _family(family: Family) -> bytes:
    field = _VALUE_FIELD[family.type]
    metrics = [_metric(sample.labels, field, _double(1, sample.value)) for sample in family.samples]
    return _whole(family.sample_name, family.help, _TYPE[family.type], metrics)


def _histogram_family(histogram: Histogram) -> bytes:
    return _whole(histogram.name, histogram.help, _GAUGE_HISTOGRAM, [_metric({}, 7, _histogram(histogram.window))])


def _whole(name: str, help_: str, type_: int, metrics: Iterable[bytes]) -> bytes:
    about = _text(1, name) + _text(2, help_) + _number(3, type_)
    return about + b"".join(_message(4, metric) for metric in metrics)


def _metric(labels: Mapping[str, str], field: int, value: bytes) -> bytes:
    pairs = b"".join(_message(1, _text(1, name) + _text(2, told)) for name, told in labels.items())
    return pairs + _message(field, value)


def _histogram(window: Window) -> bytes:
    """In whole numbers where all samples are; those that stand for several by a sampling rate may be none."""
    whole = isinstance(window.count, int)
    count = _number(1, int(window.count)) if whole else _double(4, window.count)
    zero = _number(7, int(window.zero)) if whole else _double(8, window.zero)
    return b"".join(
        (
            count,
            _double(2, window.sum),
            _number(5, _zigzag(SCALE)),
            _double(6, _ZERO_THRESHOLD),
            zero,
            _buckets(window.negative, 9, whole=whole),
            _buckets(window.positive, 12, whole=whole),
        )
    )


def _buckets(buckets: Mapping[int, Weight], field: int, *, whole: bool) -> bytes:
    """Spans at `field`, then either each count's difference to the one before, or the counts."""
    if not buckets:
        return b""
    ordered = sorted(buckets)
    spans = b"".join(
        _message(field, _number(1, _zigzag(offset)) + _number(2, length)) for offset, length in _spans(ordered)
    )
    counts = [buckets[bucket] for bucket in ordered]
    if not whole:
        return spans + _message(field + 2, struct.pack(f"<{len(counts)}d", *counts))
    steps = [after - before for before, after in zip([0, *counts], counts, strict=False)]
    return spans + _message(field + 1, b"".join(_varint(_zigzag(int(step))) for step in steps))


def _spans(ordered: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of neighbouring buckets: (how far from the end of the run before, how many); the first one's is its number
    there."""
    spans: list[tuple[int, int]] = []
    end = -1
    for bucket in ordered:
        if spans and bucket == end:
            offset, length = spans[-1]
            spans[-1] = (offset, length + 1)
        else:
            spans.append((bucket - end, 1))
        end = bucket + 1
    return spans


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _zigzag(number: int) -> int:
    return number * 2 if number >= 0 else -number * 2 - 1


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _number(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _key(field, _FIXED64) + struct.pack("<d", value)


def _message(field: int, body: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(body)) + body


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())
