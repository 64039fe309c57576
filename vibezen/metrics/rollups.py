"""Rollups: the 1-minute windows of a whole UTC date in one Parquet file, beside the day part they were made from.

`rollups/1m/date=D/part-<g>.parquet` has a row per minute, metric and labels. A row's `labels` is sorted JSON text, as
in a series key; NULL: the metric as a whole, over all its series. Rows are sorted by metric, labels (NULL first) and
time, so that a question about the metric as a whole reads little else. As in series,
a gauge's row carries its producer.

| column | |
|---|---|
| `ts` | TIMESTAMP, UTC: the beginning of the minute |
| `metric`, `labels` | VARCHAR |
| `count` | DOUBLE: how many samples the lines stand for |
| `lines` | BIGINT |
| `sum`, `min`, `max`, `last` | DOUBLE; of `last`, the greatest of those at the newest time |
| `last_ts` | TIMESTAMP, microseconds |
| `zero` | DOUBLE: samples that are 0 |
| `buckets`, `weights` | INTEGER[], DOUBLE[]: buckets of the histogram (histogram.py), ascending, and samples in each |
| `negative_buckets`, `negative_weights` | the same of the values below 0 |
"""

from pathlib import Path
from typing import Final

import msgspec

from vibezen.metrics.layout import Layout, date_folder
from vibezen.metrics.parts import Part, part_name

FORMAT: Final = 1
WIDTH: Final = 60
"""Seconds of a window."""
COLUMNS: Final = (
    'ts, metric, labels, "count", lines, sum, min, max, last, last_ts, zero,'
    " buckets, weights, negative_buckets, negative_weights"
)


class RollupFooter(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a rollup says of itself, under the same key as a part's footer.

    It was made from the day part `part` (a path below the events folder), and stands for any that has the same
    `content`, one that was moved elsewhere too. `labels`: the metadata keys its series are made of. `metrics`: those
    it has whole; `totals`: those of which it has only the rows without labels. Of `others` it has nothing, since
    that would take more than a tenth of their events; a footer must name them, or all it does not have would seem to
    have no events. `gauges`: those of them whose series carry their producer.
    """

    store: str
    generation: int
    part: str
    content: str
    labels: list[str]
    metrics: list[str]
    totals: list[str]
    others: list[str]
    gauges: list[str] = []
    format: int = FORMAT

    def stands_for(self, part: Part) -> bool:
        folder, made_from = part.path.rpartition("/")[0], part_name(part.footer.rows_of)
        return (self.part, self.content) == (f"{folder}/{made_from}", part.footer.content)


def rollup_path(layout: Layout, date: int, generation: int) -> Path:
    """Where the rollup made from a day part lies. It is there as soon as it was tried; where none pays, it has none."""
    return layout.rollups / date_folder(date) / part_name(generation)


_decoder: Final = msgspec.json.Decoder(RollupFooter)


def encode_footer(footer: RollupFooter) -> str:
    return msgspec.json.encode(footer).decode()


def decode_footer(text: str | bytes) -> RollupFooter:
    """Raises msgspec.MsgspecError for what is none."""
    return _decoder.decode(text)
