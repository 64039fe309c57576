/** The time range shown, kept in the address: `?from=now-1h&to=now`, ISO 8601, or epoch (seconds or milliseconds). */

export type Instant = { ago: number } | { at: number };

export interface Range {
  from: Instant;
  to: Instant;
}

export interface Span {
  from: number;
  to: number;
}

export interface Preset {
  key: string;
  name: string;
  range: Range;
}

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

export const PRESETS: readonly Preset[] = [
  ["5m", "Last 5 minutes", 300],
  ["15m", "Last 15 minutes", 900],
  ["1h", "Last hour", 3600],
  ["6h", "Last 6 hours", 21600],
  ["24h", "Last 24 hours", 86400],
].map(([key, name, ago]) => ({ key, name, range: { from: { ago }, to: { ago: 0 } } }) as Preset);

/** For the first visit: so short that the lines visibly move, and that a new store does not look empty. */
export const DEFAULT: Range = { from: { ago: 300 }, to: { ago: 0 } };

/** `now`, `now-90m`, `2026-11-23T14:00:00Z`, `1795442400`, `1795442400000`; null for anything else. */
export function parseInstant(text: string): Instant | null {
  const relative = /^now(?:-(\d{1,6})([smhdw]))?$/.exec(text);
  if (relative) return { ago: Number(relative[1] ?? 0) * (UNITS[relative[2] ?? "s"] ?? 1) };
  if (/^\d{9,13}(\.\d+)?$/.test(text)) {
    const number = Number(text);
    return { at: number >= 1e11 ? number / 1000 : number };
  }
  const parsed = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(parsed) ? null : { at: parsed / 1000 };
}

export function formatInstant(instant: Instant): string {
  if ("at" in instant) return String(Math.round(instant.at * 1000));
  if (instant.ago === 0) return "now";
  const unit = ["h", "m", "s"].find((name) => instant.ago % (UNITS[name] ?? 1) === 0) ?? "s";
  return `now-${instant.ago / (UNITS[unit] ?? 1)}${unit}`;
}

/** The range an address asks for; `otherwise` where it asks for none, or for one that is empty or unreadable. */
export function parseRange(search: string, now: number, otherwise: Range = DEFAULT): Range {
  const query = new URLSearchParams(search);
  const from = parseInstant(query.get("from") ?? "");
  const to = parseInstant(query.get("to") ?? "now");
  if (!from || !to) return otherwise;
  const range = { from, to };
  const span = resolve(range, now);
  return span.to > span.from ? range : otherwise;
}

const STORED = "vibezen.range";

/** The preset last chosen here, for an address that asks for none. */
export function rememberedRange(): Range {
  try {
    const key = localStorage.getItem(STORED);
    return PRESETS.find((preset) => preset.key === key)?.range ?? DEFAULT;
  } catch {
    return DEFAULT; // storage may be refused
  }
}

export function rememberRange(range: Range): void {
  const preset = presetOf(range);
  try {
    if (preset) localStorage.setItem(STORED, preset.key);
  } catch {
    // Storage may be refused; the address still has it.
  }
}

/** The query of an address that asks for this range; what else the address asks for is kept. */
export function rangeQuery(range: Range, search = ""): string {
  const query = new URLSearchParams(search);
  query.set("from", formatInstant(range.from));
  query.set("to", formatInstant(range.to));
  return `?${query}`;
}

export function resolve(range: Range, now: number): Span {
  const time = (instant: Instant) => ("at" in instant ? instant.at : now - instant.ago);
  return { from: time(range.from), to: time(range.to) };
}

/** Whether the range ends now, and so moves. */
export function isMoving(range: Range): boolean {
  return "ago" in range.to && range.to.ago === 0;
}

export function sameRange(one: Range, other: Range): boolean {
  return rangeQuery(one) === rangeQuery(other);
}

export function presetOf(range: Range): Preset | undefined {
  return PRESETS.find((preset) => sameRange(preset.range, range));
}

/**
 * The step the server would choose (`step=auto`): the smallest that needs at most 400 points and whose
 * windows are still kept. Used until its answer says so.
 */
export function stepFor(span: Span, now: number): number {
  const steps: [step: number, kept: number][] = [
    [10, 7200],
    [60, 93600],
    [300, 93600],
    [900, 93600],
  ];
  const fits = steps.find(([step, kept]) => (span.to - span.from) / step <= 400 && now - span.from <= kept);
  return fits?.[0] ?? 3600;
}
