import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  DEFAULT,
  formatInstant,
  isMoving,
  parseInstant,
  parseRange,
  presetOf,
  rangeQuery,
  rememberedRange,
  rememberRange,
  resolve,
  stepFor,
} from "../src/range";

const NOW = 1_795_442_400; // 2026-11-23T14:00:00Z

describe("an instant", () => {
  test.each([
    ["now", { ago: 0 }],
    ["now-90s", { ago: 90 }],
    ["now-15m", { ago: 900 }],
    ["now-6h", { ago: 21600 }],
    ["now-2d", { ago: 172800 }],
    ["now-1w", { ago: 604800 }],
    ["1795442400", { at: NOW }],
    ["1795442400000", { at: NOW }],
    ["1795442400.5", { at: NOW + 0.5 }],
    ["2026-11-23T14:00:00Z", { at: NOW }],
    ["2026-11-23T15:00:00+01:00", { at: NOW }],
  ])("%s is understood", (text, instant) => expect(parseInstant(text)).toEqual(instant));

  test.each(["", "now-", "now-5", "now+5m", "yesterday", "12", "now-5m\n", "2026-13-40", "NaN", "-1795442400"])(
    "%j is refused",
    (text) => expect(parseInstant(text)).toBeNull(),
  );

  test.each(["now", "now-90s", "now-15m", "now-6h", "now-48h"])("%s is written as it was read", (text) => {
    const instant = parseInstant(text);
    expect(instant && formatInstant(instant)).toBe(text);
  });
});

describe("the range of an address", () => {
  test("is the one asked for", () =>
    expect(parseRange("?from=now-6h&to=now", NOW)).toEqual({ from: { ago: 21600 }, to: { ago: 0 } }));

  test("ends now when it only begins", () =>
    expect(parseRange("?from=now-1h", NOW)).toEqual({ from: { ago: 3600 }, to: { ago: 0 } }));

  test.each([
    "",
    "?to=now",
    "?from=rubbish&to=now",
    "?from=now-1h&to=rubbish",
    "?from=now&to=now-1h",
    "?from=now&to=now",
  ])("is the default for %j", (search) => expect(parseRange(search, NOW)).toBe(DEFAULT));

  test("keeps what else the address asks for", () => {
    const query = new URLSearchParams(rangeQuery({ from: { ago: 3600 }, to: { ago: 0 } }, "?kiosk=1&from=now-5m"));
    expect(Object.fromEntries(query)).toEqual({ kiosk: "1", from: "now-1h", to: "now" });
  });

  test("survives the way through an address", () => {
    const range = { from: { at: NOW - 60.5 }, to: { at: NOW } };
    expect(parseRange(rangeQuery(range), NOW)).toEqual(range);
  });
});

test("a range that ends now moves, one with fixed ends does not", () => {
  expect(resolve({ from: { ago: 300 }, to: { ago: 0 } }, NOW)).toEqual({ from: NOW - 300, to: NOW });
  expect(isMoving({ from: { ago: 300 }, to: { ago: 0 } })).toBe(true);
  expect(isMoving({ from: { ago: 300 }, to: { ago: 60 } })).toBe(false);
  expect(isMoving({ from: { at: NOW - 300 }, to: { at: NOW } })).toBe(false);
});

test("a preset is recognised, however it was written", () => {
  expect(presetOf(parseRange("?from=now-60m&to=now", NOW))?.key).toBe("1h");
  expect(presetOf(parseRange("?from=now-7m&to=now", NOW))).toBeUndefined();
});

test.each([
  [300, 10],
  [900, 10],
  [3600, 10],
  [21_600, 60],
  [86_400, 300],
  [7 * 86_400, 3600],
])("the last %i seconds are drawn in steps of %i", (ago, step) =>
  expect(stepFor({ from: NOW - ago, to: NOW }, NOW)).toBe(step),
);

test("a short range of long ago has coarse steps, because fine windows are gone", () =>
  expect(stepFor({ from: NOW - 3 * 3600, to: NOW - 3 * 3600 + 300 }, NOW)).toBe(60));

describe("without a range in the address", () => {
  const kept = new Map<string, string>();
  beforeEach(() => {
    kept.clear();
    vi.stubGlobal("localStorage", {
      getItem: (key: string) => kept.get(key) ?? null,
      setItem: (key: string, value: string) => kept.set(key, value),
    });
  });
  afterEach(() => vi.unstubAllGlobals());

  test("the preset chosen last is shown", () => {
    rememberRange({ from: { ago: 21600 }, to: { ago: 0 } });
    expect(parseRange("", NOW, rememberedRange())).toEqual({ from: { ago: 21600 }, to: { ago: 0 } });
    expect(parseRange("?from=now-1h", NOW, rememberedRange())).toEqual({ from: { ago: 3600 }, to: { ago: 0 } });
  });

  test("a zoom is not remembered, nor is anything where storage is refused", () => {
    rememberRange({ from: { at: NOW - 60 }, to: { at: NOW } });
    expect(rememberedRange()).toBe(DEFAULT);
    vi.stubGlobal("localStorage", undefined);
    rememberRange({ from: { ago: 300 }, to: { ago: 0 } });
    expect(rememberedRange()).toBe(DEFAULT);
  });
});
