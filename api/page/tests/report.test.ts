/** What a report's script makes of the data in its file. */

import { expect, test } from "vitest";
import { text } from "../src/format";
import { middles, stack } from "../src/report/data";
import { unitOf } from "../src/report/units";

test("a piece of a column begins where the piece below ends, and a gap leaves no room", () => {
  const { tops, floors } = stack([
    [1, 2, null],
    [10, null, 5],
    [100, 3, null],
  ]);
  expect(tops).toEqual([
    [1, 2, null],
    [11, null, 5],
    [111, 5, null],
  ]);
  expect(floors).toEqual([
    [0, 0, 0],
    [1, 2, 0],
    [11, 2, 5],
  ]);
  expect(stack([])).toEqual({ tops: [], floors: [] });
});

test("a column is pointed at in its middle", () => {
  const chart = { unit: "1", stacked: true, starts: [0, 100], stops: [100, 160], labels: [], lines: [] };
  expect(middles(chart)).toEqual([50, 130]);
});

/** The same pairs stand in tests/trunk/test_report_formats.py. */
test.each([
  [null, "ms", "–"],
  [152.4, "ms", "152 ms"],
  [1520, "ms", "1.52 s"],
  [90_000, "ms", "1.5 min"],
  [1, "share", "100%"],
  [1234.5, "USD", "$1,234.50"],
  [15_234, "tokens", "15.2K"],
  [52_400_000, "tokens", "52.4M"],
  [1520, "1", "1,520"],
  [0.8156, "0-1", "0.816"],
  [12, "widgets", "12 widgets"],
  [3, "/s", "3/s"],
] as const)("%s %s is shown as %s", (value, unit, shown) => expect(text(value, unitOf(unit))).toBe(shown));
