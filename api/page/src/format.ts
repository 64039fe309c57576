/** Numbers as people read them. Raw values come in the catalogue's units; a `Unit` says how they are shown. */

export interface Figure {
  before: string;
  number: string;
  after: string;
}

export interface Unit {
  /** What the raw value is multiplied by before it is shown. */
  scale: number;
  /** Whether there is nothing between 1 and 2. */
  whole?: boolean;
  show: (scaled: number) => Figure;
}

const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** Three significant digits: 0.042, 1.52, 20, 152, 1,520, 15.2K. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 9_999.5) return compact.format(value);
  return size >= 999.5 ? whole.format(value) : plain.format(value);
}

function milliseconds(value: number): Figure {
  const size = Math.abs(value);
  if (size < 999.5) return { before: "", number: plain.format(value), after: "ms" };
  if (size < 59_950) return { before: "", number: plain.format(value / 1000), after: "s" };
  return { before: "", number: plain.format(value / 60_000), after: "min" };
}

function percent(value: number): Figure {
  const digits = Math.abs(value) < 1 && value !== 0 ? 2 : 1;
  return { before: "", number: String(Number(value.toFixed(digits))), after: "%" };
}

function money(value: number): string {
  const size = Math.abs(value);
  if (size >= 9_999.5) return compact.format(value);
  return size >= 0.1 || size === 0 ? cents.format(value) : String(Number(value.toPrecision(2)));
}

const counted = (after: string) => (value: number) => ({ before: "", number: short(value), after });

export const UNITS = {
  ms: { scale: 1, show: milliseconds },
  share: { scale: 100, show: percent },
  score: { scale: 1, show: (v) => ({ before: "", number: plain.format(v), after: "" }) },
  perSecond: { scale: 1, show: counted("/s") },
  perMinute: { scale: 60, show: counted("/min") },
  dollarsPerHour: { scale: 3600, show: (v) => ({ before: "$", number: money(v), after: "/h" }) },
  count: { scale: 1, whole: true, show: counted("") },
} satisfies Record<string, Unit>;

export const NOTHING = "–";

export function figure(raw: number | null | undefined, unit: Unit): Figure {
  if (raw === null || raw === undefined || !Number.isFinite(raw)) return { before: "", number: NOTHING, after: "" };
  return unit.show(raw * unit.scale);
}

/** In one piece: `152 ms`, `94.3%`, `$1.24/h`. */
export function text(raw: number | null | undefined, unit: Unit): string {
  const { before, number, after } = figure(raw, unit);
  return before + number + (/^\w/.test(after) ? " " : "") + after;
}

/** A mark of an axis, already scaled: round by nature, and without the `/s` that the values above the chart carry. */
export function axisLabel(mark: number, unit: Unit): string {
  const { before, number, after } = unit.show(mark);
  if (before) return before + short(mark);
  return number + (after.startsWith("/") ? "" : after);
}

export interface Change {
  text: string;
  direction: "up" | "down" | "steady";
  /** Whether the change is one the reader wants; null where neither way is better. */
  good: boolean | null;
}

/** A change below one percent is noise. */
const STEADY = 0.01;

export function change(share: number | null | undefined, better: "lower" | "higher" | null | undefined): Change | null {
  if (share === null || share === undefined || !Number.isFinite(share)) return null;
  if (Math.abs(share) < STEADY) return { text: "steady", direction: "steady", good: null };
  const direction = share > 0 ? "up" : "down";
  const size = Math.abs(share);
  const text =
    share >= 9.995 ? `×${short(share + 1)}` : `${size < 0.0995 ? (size * 100).toFixed(1) : Math.round(size * 100)}%`;
  const good = better === "lower" ? share < 0 : better === "higher" ? share > 0 : null;
  return { text, direction, good };
}

/** A duration in seconds: `0.42 s`, `3.1 s`, `42 s`, `5 min`, `2 h`. */
export function duration(seconds: number): string {
  const size = Math.max(0, seconds);
  if (size < 0.095) return `${Math.round(size * 1000)} ms`;
  if (size < 9.95) return `${size.toFixed(1)} s`;
  if (size < 99.5) return `${Math.round(size)} s`;
  if (size < 5970) return `${Math.round(size / 60)} min`;
  return size < 172_800 ? `${Math.round(size / 3600)} h` : `${Math.round(size / 86_400)} days`;
}

/** From one time to another, the day said once: `Nov 23 14:02 – 14:20`. */
export function period(from: number, to: number, now = new Date()): string {
  const [start, end] = [dateAndTime(from, now), dateAndTime(to, now)];
  const sameDay = start.slice(0, -5) === end.slice(0, -5);
  return `${start} – ${sameDay ? end.slice(-5) : end}`;
}

const two = (number: number) => String(number).padStart(2, "0");

/** Local time of day, to the second. */
export function timeOfDay(unix: number): string {
  const date = new Date(unix * 1000);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Local date and time of day, to the minute: `Nov 23 14:02`; with its year unless that is the present one. */
export function dateAndTime(unix: number, now = new Date()): string {
  const date = new Date(unix * 1000);
  const year = date.getFullYear() === now.getFullYear() ? undefined : "numeric";
  const day = date.toLocaleDateString("en", { day: "numeric", month: "short", year });
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}
