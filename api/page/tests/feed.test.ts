import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Api } from "../src/api";
import { ServerClock } from "../src/clock";
import { DelayMeter } from "../src/delay";
import { Feed, QUIET_AFTER } from "../src/feed";
import type { Frame, LiveWindow, Realtime, Snapshot } from "../src/wire";

const now = () => Date.now() / 1000;
const realtime = (at = now()): Realtime => ({ at, as_of: at, window: 60, demo: false, version: "1", metrics: {} });
const windows = (start: number, sum: number): LiveWindow[] => [{ start, metrics: { cost: { sum, count: 1 } } }];
const snapshot = (start = 100, sum = 1): Snapshot => ({
  type: "snapshot",
  id: "1_0",
  at: now(),
  width: 10,
  windows: windows(start, sum),
  realtime: realtime(),
});
const frame = (start: number, sum: number, at = now()): Frame => ({
  type: "frame",
  id: "2_0",
  at,
  recorded: { newest: at - 0.2, oldest: at - 0.7 },
  windows: windows(start, sum),
  realtime: realtime(at),
});

let asked: number;
let answer: () => Promise<Realtime>;
let events: { changed: ReturnType<typeof vi.fn<() => void>>; hole: ReturnType<typeof vi.fn<() => void>> };
let clock: ServerClock;
let meter: DelayMeter;
let feed: Feed;

const mean = (start: number) => feed.recent.column([start], "cost", "mean", Number.MAX_SAFE_INTEGER)[0];

beforeEach(() => {
  vi.useFakeTimers();
  asked = 0;
  answer = async () => realtime();
  const api = { realtime: () => (asked++, answer()) } as unknown as Api;
  events = { changed: vi.fn<() => void>(), hole: vi.fn<() => void>() };
  clock = new ServerClock(now);
  clock.exchanged(now(), now(), now());
  meter = new DelayMeter(clock);
  feed = new Feed(api, clock, meter, events);
});

afterEach(() => {
  feed.stop();
  vi.useRealTimers();
});

test("a snapshot, then frames: windows and realtime are the newest", () => {
  feed.receive(snapshot(100, 1));
  const newest = frame(110, 5);
  feed.receive(newest);
  expect([mean(100), mean(110)]).toEqual([1, 5]);
  expect(feed.realtime).toBe(newest.realtime);
  expect(events.changed).toHaveBeenCalledTimes(2);
});

test("the first snapshot is no hole, a second one is", () => {
  feed.receive(snapshot());
  expect(events.hole).not.toHaveBeenCalled();
  feed.receive({ type: "gap", id: "9_0" });
  feed.receive(snapshot(200, 2));
  expect(events.hole).toHaveBeenCalledOnce();
});

test("what was live before a gap may be corrected by history after it", () => {
  feed.receive(snapshot(100, 1));
  feed.receive({ type: "gap", id: "9_0" });
  feed.receive(snapshot(200, 2));
  const series = ["sum", "count"].map((agg, i) => ({
    agg,
    labels: {},
    points: [
      [100, 8 - 6 * i],
      [200, 9],
    ] as [number, number][],
  }));
  feed.recent.mergeHistory({ metric: "cost", series });
  expect([mean(100), mean(200)]).toEqual([4, 2]);
});

test("an older answer does not replace a newer one", () => {
  const newest = frame(110, 5);
  feed.receive(newest);
  feed.receive({ type: "realtime", realtime: realtime(newest.at - 3), sent: now(), received: now() });
  expect(feed.realtime).toBe(newest.realtime);
});

test("a pong sets the clock", () => {
  const fresh = new ServerClock(now);
  const other = new Feed({} as Api, fresh, meter, events);
  other.receive({ type: "pong", t: now(), at: now() + 60 });
  expect(fresh.offset).toBeCloseTo(60, 6);
});

test("without frames realtime is asked for, again and again, or old numbers would stay", async () => {
  feed.receive(snapshot());
  await vi.advanceTimersByTimeAsync(QUIET_AFTER - 1);
  expect(asked).toBe(0);
  await vi.advanceTimersByTimeAsync(1);
  expect(asked).toBe(1);
  await vi.advanceTimersByTimeAsync(2 * QUIET_AFTER);
  expect(asked).toBe(3);
});

test("a problem with realtime is kept until it is over", async () => {
  answer = async () => {
    throw new Error("Redis does not answer.");
  };
  await feed.refresh();
  expect(feed.problem.value).toBe("Redis does not answer.");
  answer = async () => realtime();
  await vi.advanceTimersByTimeAsync(QUIET_AFTER);
  expect(feed.problem.value).toBeNull();
});

test("events have arrived up to the newest record, or a little behind now when none come", () => {
  feed.receive(frame(110, 5));
  expect(feed.complete).toBeCloseTo(now() - 0.2, 3);
  vi.setSystemTime(Date.now() + 60_000);
  expect(feed.complete).toBeCloseTo(now() - 5, 3);
});

test("an alert changes no number, nor does what a newer server says", () => {
  const shown = snapshot();
  feed.receive(shown);
  feed.receive({ type: "alert", id: "1_1", alert: {} });
  feed.receive({ type: "weather", id: "1_1" } as unknown as Frame);
  expect(feed.realtime).toBe(shown.realtime);
  expect(events.changed).toHaveBeenCalledTimes(1);
});
