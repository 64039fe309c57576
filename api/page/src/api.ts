/** The HTTP interface, found beside the page itself, wherever that is served. */

import type { Failure, Field, History, Realtime } from "./wire";

/** An answer that is not the one asked for; the message is the server's own where it gave one. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number | null,
  ) {
    super(message);
  }
}

export class Api {
  constructor(
    private readonly base: string = document.baseURI,
    private readonly request: typeof fetch = (...asked) => fetch(...asked),
  ) {}

  realtime(signal?: AbortSignal): Promise<Realtime> {
    return this.get<Realtime>("api/metrics/realtime", {}, signal);
  }

  /** `from` and `to` in Unix seconds; `step` in seconds or left to the server. */
  history(
    metric: string,
    fields: readonly Field[],
    between: { from: number; to: number; step: number | "auto" },
    signal?: AbortSignal,
  ): Promise<History> {
    const { from, to, step } = between;
    return this.get<History>(
      "api/metrics/history",
      { metric, from: from.toFixed(3), to: to.toFixed(3), step: String(step), agg: fields.join(",") },
      signal,
    );
  }

  /** The live feed's address; `since` is the id of the last message seen. */
  live(path: "ws" | "api/stream", since: string | null): string {
    const url = this.address(path, since === null ? {} : { since });
    if (path === "ws") url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return url.href;
  }

  private address(path: string, query: Record<string, string>): URL {
    const url = new URL(path, this.base);
    url.search = new URLSearchParams(query).toString();
    url.hash = "";
    return url;
  }

  private async get<Answer>(path: string, query: Record<string, string>, signal?: AbortSignal): Promise<Answer> {
    let answer: Response;
    try {
      answer = await this.request(this.address(path, query), {
        headers: { accept: "application/json" },
        cache: "no-store",
        signal: signal ?? null,
      });
    } catch (problem) {
      if (signal?.aborted) throw problem;
      throw new ApiError("The server does not answer.", null);
    }
    const body: unknown = await answer.json().catch(() => null);
    if (!answer.ok) throw new ApiError(said(body) ?? `The server answered ${answer.status}.`, answer.status);
    if (body === null) throw new ApiError("The server's answer is not JSON.", answer.status);
    return body as Answer;
  }
}

function said(body: unknown): string | null {
  const message = (body as Failure | null)?.error?.message;
  return typeof message === "string" ? message : null;
}
