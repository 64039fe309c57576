/** How live the page is: the state of the connection, and the delay from record to screen as it was measured. */

import { useComputed } from "@preact/signals";
import type { Link } from "./connection";
import type { Desk } from "./desk";
import type { Delay } from "./delay";
import { duration, timeOfDay } from "./format";
import { POLL_EVERY } from "./transport";

export type BadgeState = "connecting" | "live" | "stale" | "polling" | "reconnecting";

export interface Badge {
  state: BadgeState;
  word: string;
  detail: string;
  hint: string;
}

/** What the badge says. `staleFor` in seconds, null while events come. */
export function badgeFor(link: Link, delay: Delay | null, staleFor: number | null): Badge {
  if (link.phase === "connecting") {
    return { state: "connecting", word: "Connecting", detail: "", hint: "Opening the live connection." };
  }
  if (link.phase === "down") {
    return {
      state: "reconnecting",
      word: "Reconnecting",
      detail: link.attempt > 1 ? `try ${link.attempt}` : "",
      hint: `The connection broke at ${timeOfDay(link.since)} and is being opened again. The numbers are from before that.`,
    };
  }
  if (staleFor !== null) {
    return {
      state: "stale",
      word: "Stale",
      detail: duration(staleFor),
      hint: `The connection works, but the newest event is ${duration(staleFor)} old: nothing is being recorded, or events are not getting through.`,
    };
  }
  if (link.via === "polling") {
    return {
      state: "polling",
      word: "Polling",
      detail: `every ${POLL_EVERY / 1000} s`,
      hint: "No live connection gets through, perhaps because of a proxy, so the page asks again and again.",
    };
  }
  return {
    state: "live",
    word: "Live",
    detail: delay === null ? "" : duration(delay.latest),
    hint:
      delay === null
        ? "Connected. The delay is measured as soon as an event arrives."
        : `An event was on this screen ${duration(delay.latest)} after it was recorded (slowest of the newest update, measured).`,
  };
}

export function LiveBadge({ desk }: { desk: Desk }) {
  const badge = useComputed(() => badgeFor(desk.connection.link.value, desk.meter.delay.value, desk.staleFor.value));
  const { state, word, detail, hint } = badge.value;
  const delay = desk.meter.delay.value;
  const link = desk.connection.link.value;
  return (
    <details
      class="badge"
      data-state={state}
      data-via={link.phase === "up" ? link.via : ""}
      data-delay={delay === null ? "" : delay.latest.toFixed(3)}
    >
      <summary title={hint}>
        <i class="badge-dot" />
        <span class="badge-word">{word}</span>
        {detail && <span class="badge-detail">{detail}</span>}
      </summary>
      <div class="badge-card">
        <p>{hint}</p>
        <dl>
          <Fact name="Record to screen, now">{delay && duration(delay.latest)}</Fact>
          <Fact name="Slowest in the last minute">{delay && duration(delay.worst)}</Fact>
          <Fact name="Connection">{link.phase === "up" ? VIA[link.via] : null}</Fact>
          <Fact name="Server clock against yours">{clockText(desk)}</Fact>
          <Fact name="Newest event">{desk.shown.value?.as_of ? timeOfDay(desk.shown.value.as_of) : null}</Fact>
        </dl>
        <p class="badge-note">
          Each update carries the time its events were recorded. The page subtracts that from the server's time at the
          moment the update is drawn; the two clocks are compared as NTP does.
        </p>
      </div>
      <span class="unseen" role="status">
        {word}
      </span>
    </details>
  );
}

const VIA = { websocket: "WebSocket", sse: "server-sent events", polling: "polling" };

function Fact({ name, children }: { name: string; children: string | null }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children ?? "–"}</dd>
    </>
  );
}

function clockText({ clock }: Desk): string | null {
  const { offset, uncertainty } = clock;
  if (offset === null || uncertainty === null) return null;
  const sign = Math.abs(offset) < 0.0005 ? "" : offset < 0 ? "−" : "+";
  const ahead = sign + duration(Math.abs(offset));
  return `${ahead} ± ${duration(uncertainty)}`;
}
