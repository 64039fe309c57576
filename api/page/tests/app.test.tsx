// @vitest-environment happy-dom
import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Api } from "../src/api";
import { App } from "../src/app";
import { Desk } from "../src/desk";
import { SNIPPET } from "../src/empty";
import type { Realtime } from "../src/wire";

vi.mock("../src/chart", () => ({ Chart: () => null })); // a canvas is for the browser's tests

const EMPTY: Realtime = { at: 1, as_of: null, window: 60, demo: false, version: "1", metrics: {} };

let place: HTMLElement;
let desk: Desk;

beforeEach(() => {
  place = document.createElement("div");
  document.body.append(place);
  desk = new Desk({} as Api);
  act(() => render(<App desk={desk} />, place));
});

afterEach(() => {
  render(null, place);
  place.remove();
});

/** Let something happen, and the page be painted. */
const after = (happening: () => void) =>
  act(() => {
    happening();
    desk.painter.paints.value += 1;
  });
const read = (state: "ready" | "loading") => ({ cost: { state } });
const has = (words: string) => place.textContent?.includes(words);

test("an empty store shows how to send a first event", () => {
  after(() => {
    desk.shown.value = EMPTY;
    desk.past.loading.value = read("ready");
  });
  expect(place.querySelector("code")?.textContent).toBe(SNIPPET);
  expect(place.querySelectorAll("[data-panel]")).toHaveLength(0);
});

test("the first event takes its place", () => {
  after(() => {
    desk.shown.value = EMPTY;
    desk.past.loading.value = read("ready");
  });
  after(() => {
    desk.feed.recent.mergeLive([
      { start: Math.floor(desk.now.value / 10) * 10 - 10, metrics: { cost: { sum: 1, count: 1 } } },
    ]);
  });
  expect(has("Waiting for the first event")).toBe(false);
  expect(place.querySelectorAll("[data-panel]")).toHaveLength(9);
});

test("a store is not called empty before history was read", () => {
  after(() => {
    desk.shown.value = EMPTY;
    desk.past.loading.value = read("loading");
  });
  expect(has("Waiting for the first event")).toBe(false);
});

test("simulated traffic is named as such", () => {
  after(() => {
    desk.shown.value = EMPTY;
  });
  expect(has("Demo")).toBe(false);
  after(() => {
    desk.shown.value = { ...EMPTY, demo: true };
  });
  expect(has("Demo")).toBe(true);
});

test("a long break is said in a sentence, a short one only by the badge", () => {
  const down = (ago: number) => ({ phase: "down", since: desk.clock.local() - ago, attempt: 2 }) as const;
  after(() => {
    desk.connection.link.value = down(1);
  });
  expect(place.querySelector(".notice")).toBeNull();
  expect(place.querySelector(".badge")?.getAttribute("data-state")).toBe("reconnecting");
  after(() => {
    desk.feed.problem.value = "Redis does not answer.";
    desk.connection.link.value = down(10);
  });
  expect(place.querySelector(".notice")?.textContent).toContain("Redis does not answer.");
});

test("space pauses and resumes, but not from within a control", () => {
  const press = (target: Element) =>
    after(() => target.dispatchEvent(new KeyboardEvent("keydown", { key: " ", bubbles: true })));
  press(document.body);
  expect(desk.painter.paused.value).toBe(true);
  press(place.querySelector("button.pause") as Element);
  expect(desk.painter.paused.value).toBe(true);
  press(document.body);
  expect(desk.painter.paused.value).toBe(false);
});
