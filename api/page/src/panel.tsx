/** One panel: title, values under the crosshair, chart, and what to say when there is nothing to draw. */

import { useComputed, useSignal } from "@preact/signals";
import { Chart } from "./chart";
import type { Desk } from "./desk";
import { dateAndTime, text, timeOfDay } from "./format";
import type { PanelSpec } from "./overview";
import type { Loading } from "./past";
import type { PlotData } from "./plot";
import { presetOf } from "./range";

export function Panel({ desk, panel }: { desk: Desk; panel: PanelSpec }) {
  const pointed = useSignal<number | null>(null);
  const data = useComputed<PlotData>(() => {
    desk.painter.paints.value; // subscribes
    const { store } = desk.past;
    const { from, to } = desk.span;
    const starts = store.grid(from, to);
    const columns = panel.lines.map((line) => store.column(starts, line.metric, line.reading, desk.feed.complete));
    return { starts, columns };
  });
  const values = useComputed(() => {
    const { columns } = data.value;
    const at = pointed.value;
    return panel.lines.map((_, i) => (at === null ? newest(columns[i]) : (columns[i]?.[at] ?? null)));
  });
  const pointedAt = useComputed(() => {
    const start = pointed.value === null ? undefined : data.value.starts[pointed.value];
    if (start === undefined) return null;
    return desk.past.store.step >= 300 ? dateAndTime(start) : timeOfDay(start);
  });
  const message = useComputed(() => messageFor(desk, panel, data.value));
  const label = () => {
    const now = panel.lines.map((line, i) => `${line.label} ${text(newest(data.value.columns[i]), panel.unit)}`);
    const range = presetOf(desk.range.value)?.name.toLowerCase() ?? "the chosen range";
    return `${panel.title}, ${range}. ${panel.hint} Newest: ${now.join(", ")}.`;
  };

  return (
    <section
      class={panel.wide ? "panel panel-wide" : "panel"}
      data-panel={panel.id}
      aria-labelledby={`${panel.id}-title`}
    >
      <header class="panel-head">
        <h3 id={`${panel.id}-title`} title={panel.hint}>
          {panel.title}
        </h3>
        <span class="panel-at">{pointedAt}</span>
        {!message.value && <HistoryMissing desk={desk} panel={panel} />}
        <ul class="legend">
          {panel.lines.map((line, i) => (
            <li key={line.label} class={`ink-${line.ink}`}>
              {panel.lines.length > 1 && <span class="legend-name">{line.label}</span>}
              <b data-value={values.value[i] ?? ""}>{text(values.value[i], panel.unit)}</b>
            </li>
          ))}
        </ul>
      </header>
      <div class="panel-body">
        <Chart desk={desk} panel={panel} view={{ data: () => data.value, label, pointed }} />
        {message.value && <PanelMessage desk={desk} loading={message.value} />}
      </div>
    </section>
  );
}

function PanelMessage({ desk, loading }: { desk: Desk; loading: Loading | { state: "empty" } }) {
  if (loading.state === "loading") {
    return (
      <div class="panel-message" aria-hidden="true">
        <div class="waiting skeleton" />
      </div>
    );
  }
  if (loading.state === "failed") {
    return (
      <div class="panel-message">
        <p>{loading.message}</p>
        <button type="button" class="button" onClick={() => void desk.past.load(desk.range.value)}>
          Try again
        </button>
      </div>
    );
  }
  return (
    <div class="panel-message">
      <p>No data in this range</p>
    </div>
  );
}

/** The live feed draws, but what was before could not be read. */
function HistoryMissing({ desk, panel }: { desk: Desk; panel: PanelSpec }) {
  const failed = panel.lines.map((line) => desk.past.loading.value[line.metric]).find((one) => one?.state === "failed");
  if (failed?.state !== "failed") return null;
  return (
    <button
      type="button"
      class="panel-retry"
      title={failed.message}
      onClick={() => void desk.past.load(desk.range.value)}
    >
      history failed, try again
    </button>
  );
}

/** Data speaks for itself; only without any is there something to say. */
function messageFor(desk: Desk, panel: PanelSpec, { columns }: PlotData): Loading | { state: "empty" } | null {
  const states = panel.lines.map((line) => desk.past.loading.value[line.metric]);
  if (columns.some((column) => column.some((value) => value !== null))) return null;
  return (
    states.find((state) => state?.state === "failed") ??
    states.find((state) => state === undefined || state.state === "loading") ?? { state: "empty" }
  );
}

function newest(column: readonly (number | null)[] | undefined): number | null {
  return column?.findLast((value) => value !== null) ?? null;
}
