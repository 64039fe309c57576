/** How a report's units are shown; vibezen/metrics/reports/words.py does the same in its tables. */

import { short, UNITS, type Unit } from "../format";

const KNOWN: Record<string, Unit> = {
  ms: UNITS.ms,
  share: UNITS.share,
  "0-1": UNITS.score,
  "/s": UNITS.perSecond,
  USD: { scale: 1, show: (value) => ({ ...UNITS.dollarsPerHour.show(value), after: "" }) },
  s: { scale: 1000, show: UNITS.ms.show },
  ...Object.fromEntries(["1", "tokens", "lines", "steps", "revisions"].map((bare) => [bare, { scale: 1, show: UNITS.count.show }])),
};

export function unitOf(name: string): Unit {
  return KNOWN[name] ?? { scale: 1, show: (value) => ({ before: "", number: short(value), after: name }) };
}
