/** How long an event takes from record() to the screen, measured on every frame. */

import { signal } from "@preact/signals";
import type { ServerClock } from "./clock";

const REMEMBERED = 60;

export interface Delay {
  /** Seconds for the oldest event of the newest painted frame. */
  latest: number;
  /** The largest of the last minute. */
  worst: number;
}

export class DelayMeter {
  /** Null until a frame with live events has been painted. */
  readonly delay = signal<Delay | null>(null);
  private waiting: number | null = null;
  private measured: { at: number; delay: number }[] = [];

  constructor(private readonly clock: ServerClock) {}

  /** A frame arrived whose oldest event was recorded at this time (server clock). */
  arrived(oldest: number): void {
    this.waiting = this.waiting === null ? oldest : Math.min(this.waiting, oldest);
  }

  /** What arrived is on the screen now. Without a clock estimate there is nothing to say. */
  painted(): void {
    if (this.waiting === null || this.clock.offset === null) return;
    const at = this.clock.now();
    const latest = Math.max(0, at - this.waiting);
    this.waiting = null;
    this.measured = [...this.measured.filter((one) => at - one.at < REMEMBERED), { at, delay: latest }];
    this.delay.value = { latest, worst: Math.max(...this.measured.map((one) => one.delay)) };
  }

  /** Nobody looks (hidden tab, paused): what waits is never measured. */
  forget(): void {
    this.waiting = null;
  }
}
