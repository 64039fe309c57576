import { expect, test } from "vitest";
import { badgeFor } from "../src/badge";

const up = { phase: "up", via: "websocket" } as const;
const delay = { latest: 0.84, worst: 2.1 };

test("live says the measured delay", () =>
  expect(badgeFor(up, delay, null)).toMatchObject({ state: "live", word: "Live", detail: "0.8 s" }));

test("live without a measurement says no delay", () => expect(badgeFor(up, null, null).detail).toBe(""));

test("a working connection without new events is stale, and says for how long", () =>
  expect(badgeFor(up, delay, 42)).toMatchObject({ state: "stale", detail: "42 s" }));

test("a broken connection is never called live or stale", () =>
  expect(badgeFor({ phase: "down", since: 0, attempt: 3 }, delay, 42)).toMatchObject({
    state: "reconnecting",
    detail: "try 3",
  }));

test("polling is not called live", () =>
  expect(badgeFor({ phase: "up", via: "polling" }, null, null).state).toBe("polling"));

test("server-sent events are live", () =>
  expect(badgeFor({ phase: "up", via: "sse" }, delay, null).state).toBe("live"));

test("every state explains itself in a sentence", () => {
  const links = [
    { phase: "connecting" },
    { phase: "down", since: 0, attempt: 1 },
    up,
    { phase: "up", via: "polling" },
  ] as const;
  for (const link of links) expect(badgeFor(link, null, null).hint).toMatch(/^[A-Z].*\.$/);
});
