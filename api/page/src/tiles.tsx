/** The numbers that matter now. They are those of `/api/metrics/realtime`, formatted and otherwise untouched. */

import { useComputed } from "@preact/signals";
import type { Desk } from "./desk";
import { change, figure, text, type Unit } from "./format";
import { TILES, type TileFigure, type TileSpec } from "./overview";
import { Sparkline } from "./sparkline";
import type { MetricNow } from "./wire";

/** Seconds of recent windows in a sparkline. */
const SPARK = 300;

export function Tiles({ desk }: { desk: Desk }) {
  return (
    <section class="tiles" aria-label="The newest minute" data-at={desk.shown.value?.at}>
      {TILES.map((tile) => (
        <Tile key={tile.id} desk={desk} tile={tile} />
      ))}
    </section>
  );
}

function Tile({ desk, tile }: { desk: Desk; tile: TileSpec }) {
  const spark = useComputed(() => {
    desk.painter.paints.value; // subscribes
    const { recent, complete } = desk.feed;
    const now = desk.now.value;
    const values = recent.column(recent.grid(now - SPARK, now), tile.spark.metric, tile.spark.reading, complete);
    return values.at(-1) === null ? values.slice(0, -1) : values; // the newest window may have just begun
  });
  const realtime = desk.shown.value;
  const headline = realtime?.metrics[tile.figures[0].metric];
  return (
    <article class="tile" data-tile={tile.id} aria-busy={realtime === null}>
      <h2 class="tile-title" title={tile.hint}>
        {tile.title}
      </h2>
      {realtime === null ? (
        <div class="tile-waiting skeleton" />
      ) : (
        <div class="tile-figures">
          {tile.figures.map((one) => (
            <TileNumber key={one.field} figure={one} unit={tile.unit} now={realtime.metrics[one.metric]} />
          ))}
        </div>
      )}
      {realtime !== null && <TileChange now={headline} unit={tile.unit} />}
      <Sparkline values={spark.value} ink={tile.spark.ink} />
    </article>
  );
}

function TileNumber({
  figure: { metric, field, label },
  unit,
  now,
}: {
  figure: TileFigure;
  unit: Unit;
  now: MetricNow | undefined;
}) {
  const raw = now?.[field] ?? null;
  const { before, number, after } = figure(raw, unit);
  return (
    <p class="figure" data-metric={metric} data-field={field} data-value={raw === null ? "" : String(raw)}>
      {label && <span class="figure-label">{label}</span>}
      <span class="figure-number">
        {before && <span class="figure-unit">{before}</span>}
        {number}
        {after && <span class="figure-unit">{after}</span>}
      </span>
    </p>
  );
}

const ARROWS = { up: "▲", down: "▼", steady: "" };
const VERDICTS = new Map([
  [true, "better"],
  [false, "worse"],
]);

function TileChange({ now, unit }: { now: MetricNow | undefined; unit: Unit }) {
  if (!now?.count) return <p class="change">no events in this minute</p>;
  const moved = change(now.change, now.better);
  if (!moved) return <p class="change">nothing to compare yet</p>;
  const verdict = moved.good === null ? "" : VERDICTS.get(moved.good);
  const said = moved.direction === "steady" ? "steady" : `${moved.direction} ${moved.text}${verdict && `, ${verdict}`}`;
  return (
    <p
      class={`change ${verdict ? `change-${verdict}` : ""}`}
      title={`The minute before: ${text(now.previous, unit)} (${said})`}
    >
      <span aria-hidden="true">
        {ARROWS[moved.direction]} {moved.text}
      </span>
      <span class="unseen">{said}, </span> <span class="change-than">vs minute before</span>
    </p>
  );
}
