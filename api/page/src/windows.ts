/** Windows by start and metric, filled by history and by the live feed. */

import type { Cell, Field, History, LiveWindow } from "./wire";

/** What a line draws of a window. `perSecond` is the sum over the part of the window that has passed. */
export type Reading = "p50" | "p95" | "p99" | "last" | "mean" | "perSecond";

/** The fields history must be asked for, to draw a reading. */
export const FIELDS: Record<Reading, readonly Field[]> = {
  p50: ["p50"],
  p95: ["p95"],
  p99: ["p99"],
  last: ["last"],
  mean: ["sum", "count"],
  perSecond: ["sum"],
};

/** Below this part of a window's length its rate says more about chance than about traffic. */
const ENOUGH = 0.3;

interface Kept {
  cell: Cell;
  live: boolean;
}

export class WindowStore {
  private readonly windows = new Map<number, Map<string, Kept>>();

  /** `step` and `keep` in seconds: the width of a window, and how far back from the newest one they are kept. */
  constructor(
    readonly step: number,
    readonly keep: number,
  ) {}

  /** Take windows of the live feed. Their values are absolute: the newest word on a window replaces the last. */
  mergeLive(windows: readonly LiveWindow[]): void {
    for (const { start, metrics } of windows) {
      const row = this.row(start);
      for (const [metric, cell] of Object.entries(metrics)) row.set(metric, { cell, live: true });
    }
    this.prune();
  }

  /** Take an answer of history. It may have been computed before a frame that is already here, so live cells win. */
  mergeHistory({ metric, series }: Pick<History, "metric" | "series">): void {
    for (const { agg, points } of series) {
      for (const [start, value] of points) {
        if (value === null) continue;
        const row = this.row(start);
        const kept = row.get(metric);
        if (kept?.live) continue;
        row.set(metric, { cell: { ...kept?.cell, [agg]: value }, live: false });
      }
    }
    this.prune();
  }

  /** The live feed has a hole: what it said stays on the screen until history says better. */
  doubt(): void {
    for (const row of this.windows.values()) for (const kept of row.values()) kept.live = false;
  }

  /** Starts of all windows that reach into the span, whether anything is known of them or not. */
  grid(from: number, to: number): number[] {
    const first = Math.floor(from / this.step) * this.step;
    const length = Math.max(0, Math.ceil((to - first) / this.step));
    return Array.from({ length }, (_, i) => first + i * this.step);
  }

  /** One value per start, null where there is none. `complete` is the time up to which events have arrived. */
  column(starts: readonly number[], metric: string, reading: Reading, complete: number): (number | null)[] {
    return starts.map((start) => {
      const cell = this.windows.get(start)?.get(metric)?.cell;
      return cell ? read(cell, reading, Math.min(this.step, complete - start) / this.step, this.step) : null;
    });
  }

  /** Whether any of these metrics has a window in the span. */
  has(metrics: readonly string[], from: number, to: number): boolean {
    return this.grid(from, to).some((start) => {
      const row = this.windows.get(start);
      return row !== undefined && metrics.some((metric) => row.has(metric));
    });
  }

  get size(): number {
    return this.windows.size;
  }

  private row(start: number): Map<string, Kept> {
    let row = this.windows.get(start);
    if (!row) this.windows.set(start, (row = new Map()));
    return row;
  }

  private prune(): void {
    const newest = Math.max(...this.windows.keys());
    for (const start of this.windows.keys()) if (start < newest - this.keep) this.windows.delete(start);
  }
}

/** A cell's value; `passed` is the part of the window (0 to 1) that has been filled, `step` its length in seconds. */
export function read(cell: Cell, reading: Reading, passed: number, step: number): number | null {
  switch (reading) {
    case "mean":
      return cell.sum != null && cell.count ? cell.sum / cell.count : null;
    case "perSecond":
      return cell.sum != null && passed >= ENOUGH ? cell.sum / (passed * step) : null;
    default:
      return cell[reading] ?? null;
  }
}
