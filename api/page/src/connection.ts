/** The live connection: kept up over whatever way works, resumed where it broke off. */

import { signal } from "@preact/signals";
import type { Handlers, Incoming, Opener, Transport, TransportName } from "./transport";

export type Link =
  { phase: "connecting" } | { phase: "up"; via: TransportName } | { phase: "down"; since: number; attempt: number };

/**
 * The order of attempts. WebSocket twice, since a restarting server refuses it as well; then what passes
 * proxies that do not know WebSocket; polling last. When all fail the server is away, and it starts again.
 */
const LADDER: readonly TransportName[] = ["websocket", "websocket", "sse", "polling"];

/** Milliseconds. The server says something at least every 15 s over the first two ways. */
const OPENS_WITHIN = 8_000;
const SILENT_AFTER = 35_000;
const PING_EVERY = 10_000;
const FIRST_PINGS = [0, 300, 600, 900];
const BETTER_AFTER = 30_000;
const BETTER_AT_MOST = 600_000;
const BACKOFF_FIRST = 500;
const BACKOFF_MOST = 10_000;

/** Wait before an attempt: doubling, capped, and spread so that many pages do not return in one instant. */
export function backoff(attempt: number, random: () => number = Math.random): number {
  const full = Math.min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** Math.min(attempt, 16));
  return full * (0.5 + random() / 2);
}

export interface Needs {
  openers: Record<TransportName, Opener>;
  receive: (message: Incoming) => void;
  now: () => number;
  random?: () => number;
}

type Timer = ReturnType<typeof setTimeout>;

export class LiveConnection {
  readonly link = signal<Link>({ phase: "connecting" });
  private since: string | null = null;
  private current: Transport | null = null;
  private rung = 0;
  private attempt = 0;
  private betterAfter = BETTER_AFTER;
  private retry: Timer | undefined;
  private silence: Timer | undefined;
  private better: Timer | undefined;
  private trial: Transport | null = null;
  private pings: Timer[] = [];

  constructor(private readonly needs: Needs) {}

  start(): void {
    const via = LADDER[this.rung] ?? "websocket";
    this.expect(OPENS_WITHIN);
    this.current = this.open(via, {
      message: (message) => this.arrived(via, message),
      ended: () => this.lost(),
    });
  }

  stop(): void {
    this.drop();
    clearTimeout(this.retry);
  }

  /** The network or the reader came back: do not wait for the next attempt. */
  nudge(): void {
    if (this.retry === undefined) return;
    clearTimeout(this.retry);
    this.retry = undefined;
    this.start();
  }

  /** The last attempt's transport may be asked for the time. */
  ping(): void {
    this.current?.ping?.(this.needs.now());
  }

  private open(via: TransportName, handlers: Handlers): Transport {
    return this.needs.openers[via](this.since, handlers);
  }

  private arrived(via: TransportName, message: Incoming): void {
    if (this.link.value.phase !== "up" || this.link.value.via !== via) this.up(via);
    this.expect(SILENT_AFTER);
    if ("id" in message) this.since = message.id;
    this.needs.receive(message);
  }

  private up(via: TransportName): void {
    this.attempt = 0;
    this.rung = 0;
    this.link.value = { phase: "up", via };
    if (via === "websocket") {
      this.betterAfter = BETTER_AFTER;
      this.startPings();
    } else {
      this.better = setTimeout(() => this.tryBetter(), this.betterAfter);
    }
  }

  private lost(): void {
    const wasUp = this.link.value.phase === "up";
    this.drop();
    if (!wasUp) this.rung = (this.rung + 1) % LADDER.length;
    const since = this.link.value.phase === "down" ? this.link.value.since : this.needs.now();
    this.link.value = { phase: "down", since, attempt: this.attempt + 1 };
    this.retry = setTimeout(
      () => {
        this.retry = undefined;
        this.start();
      },
      backoff(this.attempt, this.needs.random),
    );
    this.attempt += 1;
  }

  /** While a lesser way works, try WebSocket beside it and change over at its first message. */
  private tryBetter(): void {
    const trial = this.open("websocket", {
      message: (message) => {
        if (this.current !== trial) {
          this.trial = null;
          this.drop();
          this.current = trial;
        }
        this.arrived("websocket", message);
      },
      ended: () => {
        if (this.current === trial) return this.lost();
        this.trial = null;
        this.betterAfter = Math.min(BETTER_AT_MOST, this.betterAfter * 2);
        this.better = setTimeout(() => this.tryBetter(), this.betterAfter);
      },
    });
    this.trial = trial;
  }

  /** Count the connection lost unless something comes within this time: a dead peer closes nothing. */
  private expect(within: number): void {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.lost(), within);
  }

  private startPings(): void {
    this.pings = FIRST_PINGS.map((after) => setTimeout(() => this.ping(), after));
    const last = FIRST_PINGS.at(-1) ?? 0;
    const goOn = () => {
      this.ping();
      this.pings = [setTimeout(goOn, PING_EVERY)];
    };
    this.pings.push(setTimeout(goOn, last + PING_EVERY));
  }

  private drop(): void {
    this.current?.close();
    this.trial?.close();
    this.current = null;
    this.trial = null;
    clearTimeout(this.silence);
    clearTimeout(this.better);
    for (const timer of this.pings) clearTimeout(timer);
    this.pings = [];
  }
}
