// @vitest-environment happy-dom
import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Api } from "../src/api";
import { Desk } from "../src/desk";
import { Tiles } from "../src/tiles";
import type { MetricNow, Realtime } from "../src/wire";

const metric = (values: Partial<MetricNow>): MetricNow => ({
  family: "system",
  unit: "",
  kind: "counter",
  better: null,
  value: null,
  previous: null,
  change: null,
  count: 100,
  rate: null,
  sum: null,
  mean: null,
  min: null,
  max: null,
  last: null,
  p50: null,
  p95: null,
  p99: null,
  ...values,
});

const REALTIME: Realtime = {
  at: 1000,
  as_of: 999,
  window: 60,
  demo: false,
  version: "1",
  metrics: {
    api_calls: metric({ value: 20.123456789, previous: 10, change: 1.0123456789 }),
    response_time: metric({ value: 152.1, p50: 152.1, p95: 481.987654321, better: "lower", change: 0.2 }),
    error_rate: metric({ value: 0, better: "lower", change: null }),
    tokens: metric({ value: 207.3, better: "lower", change: -0.5 }),
  },
};

let place: HTMLElement;
let desk: Desk;

beforeEach(() => {
  place = document.createElement("div");
  document.body.append(place);
  desk = new Desk({} as Api);
  act(() => render(<Tiles desk={desk} />, place));
});

afterEach(() => {
  render(null, place);
  place.remove();
});

const show = (realtime: Realtime) =>
  act(() => {
    desk.shown.value = realtime;
  });
const number = (name: string, field = "value") =>
  place.querySelector<HTMLElement>(`[data-metric="${name}"][data-field="${field}"]`);
const words = (tile: string) => place.querySelector(`[data-tile="${tile}"]`)?.textContent ?? "";

test("before the first answer no tile shows a number", () => {
  expect(place.querySelectorAll("[data-tile]")).toHaveLength(6);
  expect(place.querySelectorAll("[data-metric]")).toHaveLength(0);
});

test("every number is realtime's own, to the last digit", () => {
  show(REALTIME);
  expect(number("api_calls")?.dataset.value).toBe("20.123456789");
  expect(number("response_time", "p50")?.dataset.value).toBe("152.1");
  expect(number("response_time", "p95")?.dataset.value).toBe("481.987654321");
});

test("rates are shown in the unit of the tile", () => {
  show(REALTIME);
  expect(number("api_calls")?.textContent).toBe("20.1/s");
  expect(number("tokens")?.textContent).toBe("12.4K/min");
});

test("zero is a number, a metric without events is none", () => {
  show(REALTIME);
  expect(number("error_rate")?.dataset.value).toBe("0");
  expect(number("error_rate")?.textContent).toBe("0%");
  expect(number("cost")?.dataset.value).toBe("");
  expect(number("cost")?.textContent).toBe("–");
});

test("a change is said in words, not by colour alone", () => {
  show(REALTIME);
  expect(words("response-time")).toContain("up 20%, worse");
  expect(words("tokens")).toContain("down 50%, better");
  expect(words("requests")).not.toContain("better");
  expect(words("error-rate")).toContain("nothing to compare yet");
  expect(words("cost")).toContain("no events in this minute");
});

test("numbers follow the next answer without a new page", () => {
  show(REALTIME);
  show({ ...REALTIME, metrics: { api_calls: metric({ value: 7 }) } });
  expect(number("api_calls")?.dataset.value).toBe("7");
});
