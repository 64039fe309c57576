import { describe, expect, test } from "vitest";
import { read, WindowStore } from "../src/windows";

const LATER = Number.MAX_SAFE_INTEGER;
const store = () => new WindowStore(10, 3600);
const live = (start: number, value: number) => ({
  start,
  metrics: { response_time: { p50: value, count: 1, sum: value } },
});
const past = (...points: [number, number | null][]) => ({
  metric: "response_time",
  series: [{ agg: "p50", labels: {}, points }],
});
const p50 = (windows: WindowStore, starts: number[]) => windows.column(starts, "response_time", "p50", LATER);

describe("merging", () => {
  test("a frame's windows replace what was known of them", () => {
    const windows = store();
    windows.mergeLive([live(100, 5), live(110, 6)]);
    windows.mergeLive([live(110, 7)]);
    expect(p50(windows, [100, 110])).toEqual([5, 7]);
  });

  test("the same frame twice changes nothing", () => {
    const windows = store();
    windows.mergeLive([live(100, 5)]);
    windows.mergeLive([live(100, 5)]);
    expect(p50(windows, [100])).toEqual([5]);
    expect(windows.size).toBe(1);
  });

  test("a frame leaves other metrics of its window alone", () => {
    const windows = store();
    windows.mergeLive([{ start: 100, metrics: { cost: { sum: 1 }, tokens: { sum: 2 } } }]);
    windows.mergeLive([{ start: 100, metrics: { cost: { sum: 3 } } }]);
    expect(windows.column([100], "tokens", "perSecond", LATER)).toEqual([0.2]);
  });

  test("history that comes late does not undo a frame", () => {
    const windows = store();
    windows.mergeLive([live(110, 7)]);
    windows.mergeHistory(past([100, 5], [110, 6]));
    expect(p50(windows, [100, 110])).toEqual([5, 7]);
  });

  test("after a hole history is believed, and until then the old value stays", () => {
    const windows = store();
    windows.mergeLive([live(110, 7)]);
    windows.doubt();
    expect(p50(windows, [110])).toEqual([7]);
    windows.mergeHistory(past([110, 9]));
    expect(p50(windows, [110])).toEqual([9]);
  });

  test("aggregates of one metric from several series of an answer come together", () => {
    const windows = store();
    windows.mergeHistory({
      metric: "error_rate",
      series: [
        { agg: "sum", labels: {}, points: [[100, 3]] },
        { agg: "count", labels: {}, points: [[100, 12]] },
      ],
    });
    expect(windows.column([100], "error_rate", "mean", LATER)).toEqual([0.25]);
  });

  test("windows older than what is kept go", () => {
    const windows = new WindowStore(10, 60);
    windows.mergeLive([live(100, 1), live(160, 2), live(170, 3)]);
    expect(p50(windows, [100, 160, 170])).toEqual([null, 2, 3]);
    expect(windows.size).toBe(2);
  });
});

describe("a gap", () => {
  test("between windows is null, not zero and not bridged", () => {
    const windows = store();
    windows.mergeLive([live(100, 5), live(130, 6)]);
    expect(p50(windows, windows.grid(100, 140))).toEqual([5, null, null, 6]);
  });

  test("in history's answer stays a gap", () => {
    const windows = store();
    windows.mergeHistory(past([100, null], [110, 6]));
    expect(p50(windows, [100, 110])).toEqual([null, 6]);
    expect(windows.has(["response_time"], 100, 110)).toBe(false);
    expect(windows.has(["response_time"], 100, 120)).toBe(true);
  });
});

test("the grid holds every window that reaches into the span", () => {
  expect(store().grid(104, 131)).toEqual([100, 110, 120, 130]);
  expect(store().grid(100, 120)).toEqual([100, 110]);
  expect(store().grid(120, 100)).toEqual([]);
});

describe("a rate", () => {
  test("counts over the window's length when it is over", () => expect(read({ sum: 50 }, "perSecond", 1, 10)).toBe(5));

  test("counts over what has passed while it is open, so that it does not dip", () =>
    expect(read({ sum: 25 }, "perSecond", 0.5, 10)).toBe(5));

  test("is not guessed from the first moments of a window", () =>
    expect(read({ sum: 25 }, "perSecond", 0.1, 10)).toBeNull());

  test("of an open window uses the time up to which events have arrived", () => {
    const windows = store();
    windows.mergeLive([{ start: 100, metrics: { api_calls: { sum: 40 } } }]);
    expect(windows.column([100], "api_calls", "perSecond", 108)).toEqual([5]);
    expect(windows.column([100], "api_calls", "perSecond", 125)).toEqual([4]);
  });
});

test("the mean of nothing is nothing", () => {
  expect(read({ sum: 0, count: 0 }, "mean", 1, 10)).toBeNull();
  expect(read({}, "mean", 1, 10)).toBeNull();
  expect(read({ sum: 0, count: 4 }, "mean", 1, 10)).toBe(0);
});
