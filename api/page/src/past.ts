/** The windows of the range shown: read from history, kept up by the live feed or by reading the tail again. */

import { signal } from "@preact/signals";
import type { Api } from "./api";
import { LIVE_STEP } from "./feed";
import { isMoving, type Range, resolve, stepFor } from "./range";
import { FIELDS, type Reading, WindowStore } from "./windows";

export type Loading = { state: "loading" } | { state: "ready" } | { state: "failed"; message: string };

/** What is drawn somewhere, and so must be read. */
export interface Wanted {
  metric: string;
  reading: Reading;
}

/** Seconds between two readings of the tail: a third of a step, within these. */
const TAIL_AT_LEAST = 10;
const TAIL_AT_MOST = 60;
/** Steps read again with the tail: the open one, the last closed one, one for late events. */
const TAIL_STEPS = 3;

export class Past {
  readonly loading = signal<Record<string, Loading>>({});
  store: WindowStore;
  private readonly fields: Map<string, Set<(typeof FIELDS)[Reading][number]>>;
  private reading = new AbortController();
  /** When the tail was last asked for, and up to where it is known. */
  private asked = 0;
  private known = 0;

  constructor(
    private readonly api: Api,
    private readonly recent: WindowStore,
    private readonly now: () => number,
    wanted: readonly Wanted[],
    private readonly changed: () => void,
  ) {
    this.store = recent;
    this.fields = new Map();
    for (const { metric, reading } of wanted) {
      const fields = this.fields.get(metric) ?? new Set();
      for (const field of FIELDS[reading]) fields.add(field);
      this.fields.set(metric, fields);
    }
  }

  /** Show this range: what is known of it at once, the rest as it comes. */
  async load(range: Range): Promise<void> {
    const now = this.now();
    const span = resolve(range, now);
    this.reading.abort();
    this.reading = new AbortController();
    this.asked = this.known = now;
    this.store = this.storeFor(range, stepFor(span, now));
    this.loading.value = Object.fromEntries([...this.fields.keys()].map((metric) => [metric, { state: "loading" }]));
    this.changed();
    await this.read(range, span, "auto");
  }

  /** Read the whole range again without clearing what is shown. */
  async reload(range: Range): Promise<void> {
    await this.read(range, resolve(range, this.now()), "auto", true);
  }

  /** Whether something could not be read. */
  get failed(): boolean {
    return Object.values(this.loading.value).some(({ state }) => state === "failed");
  }

  /** Once a second or so: read the newest steps again where the live feed does not bring them. */
  async follow(range: Range, streaming: boolean): Promise<void> {
    const now = this.now();
    const { step } = this.store;
    if (this.store === this.recent && streaming) this.asked = this.known = now;
    if (!isMoving(range) || now - this.asked < Math.min(TAIL_AT_MOST, Math.max(TAIL_AT_LEAST, step / 3))) return;
    this.asked = now;
    const from = Math.max(resolve(range, now).from, Math.min(this.known, now) - TAIL_STEPS * step);
    if (await this.read(range, { from, to: now }, step, true)) this.known = now;
  }

  /** Whether every metric was answered. */
  private async read(
    range: Range,
    between: { from: number; to: number },
    step: number | "auto",
    quietly = false,
  ): Promise<boolean> {
    const { signal: stop } = this.reading;
    const answered = await Promise.all(
      [...this.fields].map(async ([metric, fields]) => {
        try {
          const answer = await this.api.history(metric, [...fields], { ...between, step }, stop);
          if (stop.aborted) return false;
          if (answer.step !== this.store.step) this.store = this.storeFor(range, answer.step);
          this.store.mergeHistory(answer);
          this.note(metric, { state: "ready" });
          return true;
        } catch (problem) {
          const message = problem instanceof Error ? problem.message : String(problem);
          if (!stop.aborted && !quietly) this.note(metric, { state: "failed", message });
          return false; // a tail that fails is read again soon
        }
      }),
    );
    return answered.every(Boolean);
  }

  private note(metric: string, loading: Loading): void {
    this.loading.value = { ...this.loading.value, [metric]: loading };
    this.changed();
  }

  /** The recent windows where the feed fills them; else a store for this range alone. */
  private storeFor(range: Range, step: number): WindowStore {
    if (step === LIVE_STEP && isMoving(range)) return this.recent;
    const span = resolve(range, 0);
    return new WindowStore(step, isMoving(range) ? 2 * (span.to - span.from) : Number.POSITIVE_INFINITY);
  }
}
