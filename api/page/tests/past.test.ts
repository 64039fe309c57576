import { beforeEach, expect, test } from "vitest";
import type { Api } from "../src/api";
import { Past } from "../src/past";
import type { Range } from "../src/range";
import { WindowStore } from "../src/windows";
import type { History } from "../src/wire";

interface Asked {
  metric: string;
  fields: readonly string[];
  between: { from: number; to: number; step: number | "auto" };
  answer: (history: Partial<History>) => Promise<void>;
  refuse: (message: string) => Promise<void>;
}

const HOUR: Range = { from: { ago: 3600 }, to: { ago: 0 } };
const DAY: Range = { from: { ago: 86_400 }, to: { ago: 0 } };
const settled = () => new Promise<void>((done) => setTimeout(done));

let now: number;
let asked: Asked[];
let recent: WindowStore;
let past: Past;

beforeEach(() => {
  now = 1_795_442_400;
  asked = [];
  recent = new WindowStore(10, 10_800);
  const api = {
    history: (metric: string, fields: readonly string[], between: Asked["between"]) =>
      new Promise<History>((resolve, reject) => {
        const span = { from: between.from, to: between.to };
        asked.push({
          metric,
          fields,
          between,
          answer: (history) => (resolve({ metric, ...span, step: 10, as_of: null, series: [], ...history }), settled()),
          refuse: (message) => (reject(new Error(message)), settled()),
        });
      }),
  } as unknown as Api;
  past = new Past(
    api,
    recent,
    () => now,
    [
      { metric: "response_time", reading: "p50" },
      { metric: "response_time", reading: "p95" },
      { metric: "error_rate", reading: "mean" },
    ],
    () => undefined,
  );
});

const series = (agg: string, ...points: [number, number | null][]) => [{ agg, labels: {}, points }];

test("each metric is asked for once, with every aggregate its lines need", () => {
  void past.load(HOUR);
  expect(asked.map(({ metric, fields }) => [metric, fields])).toEqual([
    ["response_time", ["p50", "p95"]],
    ["error_rate", ["sum", "count"]],
  ]);
  expect(asked[0]?.between).toEqual({ from: now - 3600, to: now, step: "auto" });
});

test("a fine range fills the store of the live feed", async () => {
  void past.load(HOUR);
  await asked[0]?.answer({ series: series("p50", [now - 100, 7]) });
  expect(past.store).toBe(recent);
  expect(recent.column([now - 100], "response_time", "p50", now)).toEqual([7]);
});

test("the server's step is the one drawn", async () => {
  void past.load(HOUR);
  await asked[0]?.answer({ step: 60, series: series("p50", [now - 120, 7]) });
  await asked[1]?.answer({ step: 60 });
  expect(past.store.step).toBe(60);
  expect(past.store.column([now - 120], "response_time", "p50", now)).toEqual([7]);
});

test("an answer to an earlier range is too late", async () => {
  void past.load(DAY);
  const early = asked[0];
  void past.load(HOUR);
  await early?.answer({ step: 300, series: series("p50", [now - 600, 7]) });
  expect(past.store.step).toBe(10);
  expect(past.loading.value.response_time).toEqual({ state: "loading" });
});

test("a refusal is said for its metric alone", async () => {
  void past.load(HOUR);
  await asked[0]?.refuse("Redis does not answer.");
  await asked[1]?.answer({});
  expect(past.loading.value).toEqual({
    response_time: { state: "failed", message: "Redis does not answer." },
    error_rate: { state: "ready" },
  });
  expect(past.failed).toBe(true);
});

test("the tail of a fine range is left to the live feed, and read when that is gone", async () => {
  void past.load(HOUR);
  for (const one of asked.splice(0)) await one.answer({});
  now += 60;
  void past.follow(HOUR, true);
  expect(asked).toHaveLength(0);
  now += 45;
  void past.follow(HOUR, false);
  expect(asked[0]?.between).toEqual({ from: now - 45 - 30, to: now, step: 10 });
});

test("the tail of a coarse range is read now and then, from where it is known", async () => {
  void past.load(DAY);
  for (const one of asked.splice(0)) await one.answer({ step: 300 });
  now += 59;
  void past.follow(DAY, true);
  expect(asked).toHaveLength(0);
  now += 1;
  const reading = past.follow(DAY, true);
  expect(asked[0]?.between).toEqual({ from: now - 60 - 900, to: now, step: 300 });
  for (const one of asked.splice(0)) await one.answer({ step: 300 });
  await reading;
});

test("a tail that failed is read again from the same place, and nothing is shown of it", async () => {
  void past.load(DAY);
  for (const one of asked.splice(0)) await one.answer({ step: 300 });
  const known = now;
  now += 60;
  const reading = past.follow(DAY, true);
  for (const one of asked.splice(0)) await one.refuse("away");
  await reading;
  expect(past.failed).toBe(false);
  now += 60;
  void past.follow(DAY, true);
  expect(asked[0]?.between.from).toBe(known - 900);
});

test("a range with fixed ends is read once, into a store of its own", async () => {
  const fixed: Range = { from: { at: now - 600 }, to: { at: now - 300 } };
  void past.load(fixed);
  expect(past.store).not.toBe(recent);
  for (const one of asked.splice(0)) await one.answer({});
  now += 600;
  void past.follow(fixed, false);
  expect(asked).toHaveLength(0);
});
