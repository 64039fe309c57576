import { expect, test } from "vitest";
import { Api, ApiError } from "../src/api";

const asked: string[] = [];
const answering = (status: number, body: string) =>
  new Api("https://host.example/metrics/?from=now-1h#top", async (address) => {
    asked.push(String(address));
    return new Response(body, { status });
  });

const problem = (promise: Promise<unknown>) =>
  promise.then(
    () => null,
    (error: unknown) => error as ApiError,
  );

test("the interface is beside the page, wherever that is", async () => {
  await answering(200, '{"series": []}').history("cost", ["sum", "count"], { from: 1, to: 2.5, step: "auto" });
  expect(asked.at(-1)).toBe(
    "https://host.example/metrics/api/metrics/history?metric=cost&from=1.000&to=2.500&step=auto&agg=sum%2Ccount",
  );
});

test("the live feed goes on after an id, encrypted where the page is", () => {
  const api = answering(200, "{}");
  expect(api.live("ws", "5-1_0-0")).toBe("wss://host.example/metrics/ws?since=5-1_0-0");
  expect(api.live("api/stream", null)).toBe("https://host.example/metrics/api/stream");
  expect(new Api("http://localhost:8080/").live("ws", null)).toBe("ws://localhost:8080/ws");
});

test("a refusal carries the server's own words", async () => {
  const refused = answering(503, '{"error": {"code": "redis_away", "message": "Redis does not answer."}}');
  expect(await problem(refused.realtime())).toMatchObject({ message: "Redis does not answer.", status: 503 });
});

test("an answer that is not ours is said plainly", async () => {
  expect(await problem(answering(502, "<html>Bad gateway</html>").realtime())).toMatchObject({
    message: "The server answered 502.",
    status: 502,
  });
  expect(await problem(answering(200, "<html>").realtime())).toMatchObject({
    message: "The server's answer is not JSON.",
  });
});

test("no answer at all is an error of ours too", async () => {
  const api = new Api("http://localhost/", () => Promise.reject(new TypeError("fetch failed")));
  expect(await problem(api.realtime())).toMatchObject({ message: "The server does not answer.", status: null });
});
