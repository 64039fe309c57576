/** When the screen changes: at most four times a second, in an animation frame, never while paused. */

import { batch, signal } from "@preact/signals";

/** Milliseconds between two paints; more often would only cost battery. */
const APART = 250;
/** The time axis moves on even when nothing arrives. */
const AT_LEAST_EVERY = 1000;

export class Painter {
  /** Counts the paints; what draws listens to it. */
  readonly paints = signal(0);
  readonly paused = signal(false);
  private asked = false;
  private lastPaint = Number.NEGATIVE_INFINITY;
  private next: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly before: () => void,
    private readonly after: () => void,
  ) {}

  start(): void {
    this.ask();
  }

  stop(): void {
    clearTimeout(this.next);
  }

  /** Something changed: paint soon. */
  ask(): void {
    if (this.asked || this.paused.value) return;
    this.asked = true;
    const wait = this.lastPaint + APART - performance.now();
    const paint = () => requestAnimationFrame(() => this.paint());
    if (wait > 0) setTimeout(paint, wait);
    else paint();
  }

  private paint(): void {
    this.asked = false;
    if (this.paused.value) return;
    this.lastPaint = performance.now();
    clearTimeout(this.next);
    this.next = setTimeout(() => this.ask(), AT_LEAST_EVERY);
    batch(() => {
      this.before();
      this.paints.value += 1;
    });
    // The browser draws when this frame's callbacks are done; the next task therefore finds it on the screen.
    const drawn = new MessageChannel();
    drawn.port1.onmessage = () => {
      drawn.port1.close();
      this.after();
    };
    drawn.port2.postMessage(null);
  }
}
