/** The page's state, put together: clock, feed, past, connection, painter. Components read it and call its verbs. */

import { computed, signal } from "@preact/signals";
import { Api } from "./api";
import { ServerClock } from "./clock";
import { LiveConnection } from "./connection";
import { DelayMeter } from "./delay";
import { Feed } from "./feed";
import { LINES } from "./overview";
import { Painter } from "./painter";
import { Past } from "./past";
import {
  DEFAULT,
  isMoving,
  parseRange,
  type Range,
  rangeQuery,
  rememberedRange,
  rememberRange,
  resolve,
  sameRange,
  type Span,
} from "./range";
import { polling, sse, websocket } from "./transport";
import type { Realtime } from "./wire";

/** Older than two windows: what is shown is no longer "now". */
const STALE_AFTER = 20;

export class Desk {
  readonly clock = new ServerClock();
  readonly meter = new DelayMeter(this.clock);
  readonly range = signal<Range>(DEFAULT);
  /** What is on the screen, which is what has arrived unless the reader paused. */
  readonly shown = signal<Realtime | null>(null);
  readonly now = signal(this.clock.now());
  readonly held = signal(0);
  readonly feed: Feed;
  readonly past: Past;
  readonly connection: LiveConnection;
  readonly painter: Painter;
  /** Seconds since the newest event, when that is long ago; null while events come. */
  readonly staleFor = computed(() => {
    const newest = this.shown.value?.as_of;
    const age = newest == null ? 0 : this.now.value - newest;
    return age > STALE_AFTER ? age : null;
  });
  private cutOff = false;
  private chosenBefore: Range = DEFAULT;
  private follower: ReturnType<typeof setInterval> | undefined;

  constructor(api: Api = new Api()) {
    this.feed = new Feed(api, this.clock, this.meter, {
      changed: () => this.arrived(),
      hole: () => void this.past.reload(this.range.value),
    });
    const now = () => this.clock.now();
    this.past = new Past(api, this.feed.recent, now, LINES, () => this.painter.ask());
    this.connection = new LiveConnection({
      openers: { websocket: websocket(api), sse: sse(api), polling: polling(api, this.clock.local) },
      receive: (message) => this.feed.receive(message),
      now: this.clock.local,
    });
    this.painter = new Painter(
      () => this.show(),
      () => this.meter.painted(),
    );
  }

  start(): void {
    const asked = () => parseRange(location.search, this.clock.now(), rememberedRange());
    this.range.value = asked();
    addEventListener("popstate", () => this.changeRange(asked()));
    addEventListener("online", () => this.connection.nudge());
    document.addEventListener("visibilitychange", () => {
      this.meter.forget(); // what came while nobody looked was not late
      if (!document.hidden) this.connection.nudge();
    });
    void this.feed.refresh();
    this.connection.start();
    this.painter.start();
    void this.past.load(this.range.value);
    this.follower = setInterval(() => this.follow(), 1000);
  }

  stop(): void {
    clearInterval(this.follower);
    this.connection.stop();
    this.painter.stop();
    this.feed.stop();
  }

  /** Show another range and put it into the address; live again if it was paused. */
  choose(range: Range): void {
    if (!sameRange(range, this.range.value)) {
      history.pushState(null, "", rangeQuery(range, location.search) + location.hash);
    }
    rememberRange(range);
    this.changeRange(range);
  }

  /** From a zoom back to the range before it. */
  zoomOut(): void {
    if (!isMoving(this.range.value)) this.choose(this.chosenBefore);
  }

  /** Hold the screen still, or let go; what arrives meanwhile is kept and shown then. */
  pause(hold = !this.painter.paused.value): void {
    this.painter.paused.value = hold;
    this.held.value = 0;
    this.meter.forget();
    this.painter.ask();
  }

  /** The moment and the span on the screen. */
  get span(): Span {
    return resolve(this.range.value, this.now.value);
  }

  /** Keep the past up to date while the server is there; what it refused before is read now. */
  private follow(): void {
    const link = this.connection.link.value;
    if (link.phase !== "up") {
      this.cutOff = true;
      return;
    }
    if (this.cutOff && this.past.failed) void this.past.load(this.range.value);
    this.cutOff = false;
    void this.past.follow(this.range.value, link.via !== "polling");
  }

  private changeRange(range: Range): void {
    if (isMoving(range)) this.chosenBefore = range;
    this.range.value = range;
    this.pause(false);
    void this.past.load(range);
  }

  private arrived(): void {
    if (document.hidden || this.painter.paused.value) this.meter.forget();
    if (this.painter.paused.value) this.held.value += 1;
    this.painter.ask();
  }

  private show(): void {
    this.now.value = this.clock.now();
    this.shown.value = this.feed.realtime;
  }
}
