/** Which time it is on the server. */

export type Now = () => number;

/**
 * Local Unix seconds that never step: the page's own start plus the monotonic clock. A correction of
 * the computer's clock while the page is open therefore does not look like a delay.
 */
export const localNow: Now = () => (performance.timeOrigin + performance.now()) / 1000;

interface Exchange {
  offset: number;
  roundTrip: number;
  received: number;
}

/** How many exchanges are compared, and how old one may be (a laptop that slept has drifted). */
const KEPT = 8;
const TOO_OLD = 120;

/**
 * Estimates server time minus local time as NTP does (RFC 5905, section 8), for a server that answers
 * at once: offset = at - (sent + received) / 2, wrong by at most half the round trip. Of the last
 * exchanges the quickest is believed, since queueing only ever adds to the round trip.
 */
export class ServerClock {
  private exchanges: Exchange[] = [];

  constructor(readonly local: Now = localNow) {}

  exchanged(sent: number, at: number, received: number): void {
    const roundTrip = received - sent;
    if (!(roundTrip >= 0) || !Number.isFinite(at)) return;
    const fresh = this.exchanges.filter((one) => received - one.received <= TOO_OLD);
    this.exchanges = [...fresh, { offset: at - (sent + received) / 2, roundTrip, received }].slice(-KEPT);
  }

  /** Seconds to add to local time; null before the first exchange. */
  get offset(): number | null {
    return this.best?.offset ?? null;
  }

  /** The offset's largest possible error, in seconds. */
  get uncertainty(): number | null {
    return this.best ? this.best.roundTrip / 2 : null;
  }

  /** Whether an exchange is due: none yet, or none lately. */
  get isStale(): boolean {
    const last = this.exchanges.at(-1);
    return last === undefined || this.local() - last.received > TOO_OLD / 2;
  }

  /** Unix seconds on the server; our own clock's while nothing better is known. */
  now(): number {
    return this.local() + (this.offset ?? 0);
  }

  private get best(): Exchange | undefined {
    return this.exchanges.reduce<Exchange | undefined>(
      (best, one) => (best === undefined || one.roundTrip <= best.roundTrip ? one : best),
      undefined,
    );
  }
}
