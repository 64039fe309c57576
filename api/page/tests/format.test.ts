import { describe, expect, test } from "vitest";
import { axisLabel, change, duration, figure, period, short, text, UNITS } from "../src/format";

test.each([
  [0, "0"],
  [0.04213, "0.0421"],
  [1.5249, "1.52"],
  [20, "20"],
  [152.1, "152"],
  [999.6, "1,000"],
  [1520.4, "1,520"],
  [15_234, "15.2K"],
  [2_345_678, "2.35M"],
  [-3.14159, "-3.14"],
])("%d has three digits: %s", (value, said) => expect(short(value)).toBe(said));

describe("a raw value becomes what people read", () => {
  test.each([
    ["ms", 0.42, "0.42 ms"],
    ["ms", 152.13, "152 ms"],
    ["ms", 999.4, "999 ms"],
    ["ms", 999.6, "1 s"],
    ["ms", 1523, "1.52 s"],
    ["ms", 125_000, "2.08 min"],
    ["share", 0, "0%"],
    ["share", 0.0042, "0.42%"],
    ["share", 0.0512, "5.1%"],
    ["share", 0.943, "94.3%"],
    ["share", 1, "100%"],
    ["perSecond", 20.04, "20/s"],
    ["perMinute", 207.3, "12.4K/min"],
    ["dollarsPerHour", 0.000345, "$1.24/h"],
    ["dollarsPerHour", 0, "$0.00/h"],
    ["dollarsPerHour", 0.000001167, "$0.0042/h"],
    ["dollarsPerHour", 12, "$43.2K/h"],
    ["score", 0.8231, "0.823"],
    ["count", 7, "7"],
  ] as const)("%s of %d: %s", (unit, raw, said) => expect(text(raw, UNITS[unit])).toBe(said));

  test.each([null, undefined, Number.NaN, Number.POSITIVE_INFINITY])("%s is no number and never zero", (raw) =>
    expect(figure(raw, UNITS.perSecond)).toEqual({ before: "", number: "–", after: "" }),
  );
});

test.each([
  ["ms", 1500, "1.5s"],
  ["ms", 200, "200ms"],
  ["share", 50, "50%"],
  ["perMinute", 1_000_000, "1M"],
  ["dollarsPerHour", 200, "$200"],
  ["dollarsPerHour", 0.5, "$0.5"],
] as const)("a mark on an axis of %s at %d: %s", (unit, mark, said) => expect(axisLabel(mark, UNITS[unit])).toBe(said));

describe("a change", () => {
  test("that is wanted is good, for metrics of either direction", () => {
    expect(change(-0.12, "lower")).toEqual({ text: "12%", direction: "down", good: true });
    expect(change(0.12, "lower")?.good).toBe(false);
    expect(change(0.12, "higher")?.good).toBe(true);
    expect(change(-0.12, "higher")?.good).toBe(false);
  });

  test("of a metric without a better way is neither", () => expect(change(0.5, null)?.good).toBeNull());

  test("below one percent is steady", () =>
    expect(change(0.0099, "lower")).toMatchObject({ direction: "steady", good: null }));

  test.each([
    [0.0208, "2.1%"],
    [0.0996, "10%"],
    [3.2, "320%"],
    [11, "×12"],
  ])("of %d reads %s", (share, said) => expect(change(share, null)?.text).toBe(said));

  test("that cannot be known is none", () => {
    expect(change(null, "lower")).toBeNull();
    expect(change(undefined, "lower")).toBeNull();
  });
});

test.each([
  [-1, "0 ms"],
  [0.0421, "42 ms"],
  [0.42, "0.4 s"],
  [3.06, "3.1 s"],
  [9.96, "10 s"],
  [42.4, "42 s"],
  [300, "5 min"],
  [7200, "2 h"],
  [432_000, "5 days"],
])("%d seconds last %s", (seconds, said) => expect(duration(seconds)).toBe(said));

test("a period within a day names the day once", () => {
  const noon = new Date(2026, 10, 23, 12, 0).getTime() / 1000;
  const now = new Date(2026, 11, 1);
  expect(period(noon, noon + 300, now)).toBe("Nov 23 12:00 – 12:05");
  expect(period(noon, noon + 86_400, now)).toBe("Nov 23 12:00 – Nov 24 12:00");
});

test("a period of another year says which", () => {
  const noon = new Date(2023, 10, 16, 12, 0).getTime() / 1000;
  expect(period(noon, noon + 300, new Date(2026, 11, 1))).toBe("Nov 16, 2023 12:00 – 12:05");
});
