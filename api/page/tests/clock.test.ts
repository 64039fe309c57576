import { beforeEach, expect, test } from "vitest";
import { ServerClock } from "../src/clock";
import { DelayMeter } from "../src/delay";

let local = 0;
let clock: ServerClock;

beforeEach(() => {
  local = 1000;
  clock = new ServerClock(() => local);
});

/** The server's clock is ahead by `offset`; there and back take these times. */
function exchange(offset: number, there: number, back: number): void {
  const sent = local;
  const at = sent + there + offset;
  local = sent + there + back;
  clock.exchanged(sent, at, local);
}

test("without an exchange the local clock stands in, and says so", () => {
  expect(clock.offset).toBeNull();
  expect(clock.now()).toBe(1000);
  expect(clock.isStale).toBe(true);
});

test("an even way there and back gives the offset exactly", () => {
  exchange(3600, 0.05, 0.05);
  expect(clock.offset).toBeCloseTo(3600, 9);
  expect(clock.now()).toBeCloseTo(local + 3600, 9);
  expect(clock.isStale).toBe(false);
});

test("a clock that is behind has a negative offset", () => {
  exchange(-12.5, 0.01, 0.01);
  expect(clock.offset).toBeCloseTo(-12.5, 9);
});

test("the error of an uneven way stays within the uncertainty", () => {
  exchange(5, 0.2, 0.01);
  expect(Math.abs((clock.offset ?? 0) - 5)).toBeLessThanOrEqual((clock.uncertainty ?? 0) + 1e-9);
  expect(clock.uncertainty).toBeCloseTo(0.105, 9);
});

test("the quickest exchange is believed", () => {
  exchange(5, 0.4, 0.01);
  exchange(5, 0.002, 0.002);
  exchange(5, 0.01, 0.3);
  expect(clock.offset).toBeCloseTo(5, 6);
});

test("a drift wins over an exchange that is too old", () => {
  exchange(5, 0.001, 0.001);
  local += 200;
  expect(clock.isStale).toBe(true);
  exchange(7, 0.05, 0.05);
  expect(clock.offset).toBeCloseTo(7, 6);
});

test("nonsense is not an exchange", () => {
  clock.exchanged(1000, 1000, 999);
  clock.exchanged(1000, Number.NaN, 1001);
  expect(clock.offset).toBeNull();
});

test("the delay counts from the oldest record to the paint, in the server's time", () => {
  exchange(3600, 0.001, 0.001);
  const meter = new DelayMeter(clock);
  meter.arrived(clock.now() - 0.8);
  meter.arrived(clock.now() - 0.5);
  local += 0.1;
  meter.painted();
  expect(meter.delay.value?.latest).toBeCloseTo(0.9, 6);
});

test("a paint without a new frame measures nothing again", () => {
  exchange(0, 0.001, 0.001);
  const meter = new DelayMeter(clock);
  meter.arrived(clock.now() - 0.5);
  meter.painted();
  local += 30;
  meter.painted();
  expect(meter.delay.value?.latest).toBeCloseTo(0.5, 6);
});

test("the worst of a minute is remembered for a minute", () => {
  exchange(0, 0.001, 0.001);
  const meter = new DelayMeter(clock);
  for (const [after, late] of [
    [0, 4],
    [10, 1],
    [59, 1],
  ] as const) {
    local += after;
    meter.arrived(clock.now() - late);
    meter.painted();
    if (after < 59) expect(meter.delay.value?.worst).toBeCloseTo(4, 6);
  }
  expect(meter.delay.value?.worst).toBeCloseTo(1, 6);
});

test("what arrived while nobody looked is not measured", () => {
  exchange(0, 0.001, 0.001);
  const meter = new DelayMeter(clock);
  meter.arrived(clock.now() - 500);
  meter.forget();
  meter.painted();
  expect(meter.delay.value).toBeNull();
});

test("without a clock estimate there is no delay, and the frame waits for one", () => {
  const meter = new DelayMeter(clock);
  meter.arrived(local - 0.5);
  meter.painted();
  expect(meter.delay.value).toBeNull();
  exchange(0, 0.001, 0.001);
  meter.painted();
  expect(meter.delay.value?.latest).toBeCloseTo(0.502, 6);
});
