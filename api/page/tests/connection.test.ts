import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { backoff, LiveConnection } from "../src/connection";
import type { Handlers, Incoming, TransportName } from "../src/transport";

interface Dialled {
  via: TransportName;
  since: string | null;
  handlers: Handlers;
  closed: boolean;
  pings: number;
}

let dialled: Dialled[];
let received: Incoming[];
let connection: LiveConnection;

const heartbeat = (id: string): Incoming => ({ type: "heartbeat", id, at: 0 });

function opener(via: TransportName) {
  return (since: string | null, handlers: Handlers) => {
    const one: Dialled = { via, since, handlers, closed: false, pings: 0 };
    dialled.push(one);
    return {
      close: () => {
        one.closed = true;
      },
      ping: () => {
        one.pings += 1;
      },
    };
  };
}

const last = () => dialled.at(-1) as Dialled;
const refuse = () => last().handlers.ended();
/** Until the next attempt. */
const wait = () => vi.advanceTimersToNextTimer();

beforeEach(() => {
  vi.useFakeTimers();
  dialled = [];
  received = [];
  connection = new LiveConnection({
    openers: { websocket: opener("websocket"), sse: opener("sse"), polling: opener("polling") },
    receive: (message) => received.push(message),
    now: () => Date.now() / 1000,
    random: () => 1,
  });
  connection.start();
});

afterEach(() => {
  connection.stop();
  vi.useRealTimers();
});

describe("backoff", () => {
  test("doubles up to a limit", () =>
    expect([0, 1, 2, 3, 4, 5, 60].map((attempt) => backoff(attempt, () => 1))).toEqual([
      500, 1000, 2000, 4000, 8000, 10_000, 10_000,
    ]));

  test("is spread over its upper half", () => {
    expect(backoff(3, () => 0)).toBe(2000);
    expect(backoff(3, () => 0.5)).toBe(3000);
  });
});

test("it is up with the first message, not before", () => {
  expect(connection.link.value).toEqual({ phase: "connecting" });
  last().handlers.message(heartbeat("1_0"));
  expect(connection.link.value).toEqual({ phase: "up", via: "websocket" });
  expect(received).toHaveLength(1);
});

test("a lost connection resumes after the last message seen", () => {
  last().handlers.message(heartbeat("41_0"));
  last().handlers.message(heartbeat("42_0"));
  refuse();
  expect(connection.link.value).toMatchObject({ phase: "down", attempt: 1 });
  vi.advanceTimersByTime(499);
  expect(dialled).toHaveLength(1);
  vi.advanceTimersByTime(1);
  expect(dialled.map(({ via, since }) => [via, since])).toEqual([
    ["websocket", null],
    ["websocket", "42_0"],
  ]);
});

test("where WebSocket is refused, server-sent events are tried, then polling, then all again", () => {
  for (let attempt = 0; attempt < 5; attempt++) {
    refuse();
    wait();
  }
  expect(dialled.map(({ via }) => via)).toEqual(["websocket", "websocket", "sse", "polling", "websocket", "websocket"]);
  expect(connection.link.value).toMatchObject({ phase: "down", attempt: 5 });
});

test("one outage keeps its beginning over all attempts, a new one has its own", () => {
  last().handlers.message(heartbeat("1_0"));
  const first = Date.now() / 1000;
  refuse();
  wait();
  refuse();
  expect(connection.link.value).toMatchObject({ phase: "down", since: first });
  wait();
  last().handlers.message(heartbeat("2_0"));
  refuse();
  expect(connection.link.value).toMatchObject({ phase: "down", since: Date.now() / 1000, attempt: 1 });
});

test("success makes the next wait short again", () => {
  for (let attempt = 0; attempt < 4; attempt++) {
    refuse();
    wait();
  }
  last().handlers.message(heartbeat("1_0"));
  refuse();
  vi.advanceTimersByTime(500);
  expect(last().since).toBe("1_0");
});

test("a connection that falls silent counts as lost", () => {
  last().handlers.message(heartbeat("1_0"));
  vi.advanceTimersByTime(34_999);
  expect(connection.link.value.phase).toBe("up");
  vi.advanceTimersByTime(1);
  expect(connection.link.value.phase).toBe("down");
  expect(dialled[0]?.closed).toBe(true);
});

test("one that never says anything is given up", () => {
  vi.advanceTimersByTime(8000);
  expect(connection.link.value.phase).toBe("down");
});

test("the server's time is asked for at once, several times, and then now and again", () => {
  last().handlers.message(heartbeat("1_0"));
  vi.advanceTimersByTime(1000);
  expect(last().pings).toBe(4);
  vi.advanceTimersByTime(30_000);
  expect(last().pings).toBe(7);
});

test("no ping goes out on a connection that is gone", () => {
  const first = last();
  first.handlers.message(heartbeat("1_0"));
  refuse();
  wait();
  expect(first.pings).toBe(0);
});

describe("on a lesser way", () => {
  beforeEach(() => {
    for (let attempt = 0; attempt < 2; attempt++) {
      refuse();
      wait();
    }
    last().handlers.message(heartbeat("7_0"));
    expect(connection.link.value).toEqual({ phase: "up", via: "sse" });
  });

  test("WebSocket is tried beside it and taken at its first message", () => {
    const lesser = last();
    vi.advanceTimersByTime(30_000);
    expect(last()).toMatchObject({ via: "websocket", since: "7_0" });
    expect(lesser.closed).toBe(false);
    last().handlers.message(heartbeat("8_0"));
    expect(lesser.closed).toBe(true);
    expect(connection.link.value).toEqual({ phase: "up", via: "websocket" });
  });

  test("a trial that fails disturbs nothing and is repeated later", () => {
    vi.advanceTimersByTime(30_000);
    refuse();
    dialled[2]?.handlers.message(heartbeat("8_0"));
    expect(connection.link.value).toEqual({ phase: "up", via: "sse" });
    const before = dialled.length;
    for (let second = 0; second < 60; second++) {
      dialled[2]?.handlers.message(heartbeat("9_0"));
      vi.advanceTimersByTime(1000);
    }
    expect(dialled).toHaveLength(before + 1);
  });

  test("a WebSocket taken over is watched and resumed like any other", () => {
    vi.advanceTimersByTime(30_000);
    last().handlers.message(heartbeat("8_0"));
    refuse();
    expect(connection.link.value.phase).toBe("down");
    vi.advanceTimersByTime(500);
    expect(last()).toMatchObject({ via: "websocket", since: "8_0" });
  });
});

test("a nudge ends the waiting, and only that", () => {
  refuse();
  connection.nudge();
  expect(dialled).toHaveLength(2);
  connection.nudge();
  wait();
  expect(dialled.filter(({ via }) => via === "websocket")).toHaveLength(2);
});

test("after stop nothing is opened any more", () => {
  last().handlers.message(heartbeat("1_0"));
  connection.stop();
  vi.advanceTimersByTime(600_000);
  expect(dialled).toHaveLength(1);
  expect(dialled[0]?.closed).toBe(true);
});
