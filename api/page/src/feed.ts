/** What has arrived: the newest answer of realtime and the recent windows, from whatever way is open. */

import { signal } from "@preact/signals";
import type { Api } from "./api";
import type { ServerClock } from "./clock";
import type { DelayMeter } from "./delay";
import type { Incoming } from "./transport";
import { WindowStore } from "./windows";
import type { Realtime } from "./wire";

/** The width of live windows in seconds, and how long they are kept: as long as the server keeps them, and an hour. */
export const LIVE_STEP = 10;
const LIVE_KEPT = 3 * 3600;

/** After this long without a frame (ms) realtime is asked for, or the tiles would stay when traffic stops. */
export const QUIET_AFTER = 6000;

/** Events later than this (s) behind the clock are late, not the edge of what has arrived. */
const LATE = 5;

export interface FeedEvents {
  changed: () => void;
  /** Windows may be missing: history should be read again. */
  hole: () => void;
}

export class Feed {
  readonly recent = new WindowStore(LIVE_STEP, LIVE_KEPT);
  realtime: Realtime | null = null;
  /** Why realtime could not be read the last time it was asked for; null when it could. */
  readonly problem = signal<string | null>(null);
  private newestRecord = 0;
  private snapshots = 0;
  private quiet: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly api: Api,
    private readonly clock: ServerClock,
    private readonly meter: DelayMeter,
    private readonly events: FeedEvents,
  ) {}

  /** The time up to which events have arrived, as far as the newest frame shows. */
  get complete(): number {
    const now = this.clock.now();
    return Math.min(now, Math.max(this.newestRecord, now - LATE));
  }

  receive(message: Incoming): void {
    switch (message.type) {
      case "pong":
        this.clock.exchanged(message.t, message.at, this.clock.local());
        return;
      case "heartbeat":
      case "alert":
        return;
      case "gap":
        this.recent.doubt();
        return;
      case "snapshot":
        this.recent.mergeLive(message.windows);
        if (this.snapshots++ > 0) this.events.hole();
        break;
      case "frame":
        this.recent.mergeLive(message.windows);
        if (message.recorded) {
          this.newestRecord = Math.max(this.newestRecord, message.recorded.newest);
          this.meter.arrived(message.recorded.oldest);
        }
        break;
      case "realtime":
        this.clock.exchanged(message.sent, message.realtime.at, message.received);
        break;
      default: // a newer server may say more
        return;
    }
    this.take(message.realtime);
  }

  /** Ask for realtime once; what it brings is taken like a frame. */
  async refresh(): Promise<void> {
    const sent = this.clock.local();
    try {
      const realtime = await this.api.realtime();
      this.receive({ type: "realtime", realtime, sent, received: this.clock.local() });
    } catch (problem) {
      this.problem.value = problem instanceof Error ? problem.message : String(problem);
      this.refreshAfter(QUIET_AFTER);
    }
  }

  stop(): void {
    clearTimeout(this.quiet);
  }

  private take(realtime: Realtime): void {
    if (this.realtime === null || realtime.at >= this.realtime.at) this.realtime = realtime;
    this.problem.value = null;
    this.refreshAfter(this.clock.isStale ? 0 : QUIET_AFTER); // server-sent events carry no answers to pings
    this.events.changed();
  }

  private refreshAfter(wait: number): void {
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => void this.refresh(), wait);
  }
}
