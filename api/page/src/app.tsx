/** The page: bar, notice, the Overview, foot. */

import { useComputed } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Desk } from "./desk";
import { Empty } from "./empty";
import { duration, timeOfDay } from "./format";
import { Header } from "./header";
import { LINES, SECTIONS } from "./overview";
import { Panel } from "./panel";
import { Tiles } from "./tiles";

/** A break shorter than this (s) heals by itself before it is worth a sentence. */
const WORTH_A_NOTICE = 4;

export function App({ desk }: { desk: Desk }) {
  useEffect(() => keys(desk), [desk]);
  return (
    <>
      <a class="skip" href="#overview">
        Skip to the numbers
      </a>
      <Header desk={desk} />
      <main id="overview" tabIndex={-1}>
        <Notice desk={desk} />
        <Overview desk={desk} />
      </main>
      <Foot desk={desk} />
    </>
  );
}

function Overview({ desk }: { desk: Desk }) {
  const empty = useComputed(() => isEmpty(desk));
  if (empty.value) return <Empty />;
  return (
    <>
      <Tiles desk={desk} />
      <div class="sections">
        {SECTIONS.map(({ id, title, panels }) => (
          <section key={id} class={`section section-${id}`} aria-labelledby={`section-${id}`}>
            <h2 class="section-title" id={`section-${id}`}>
              {title}
            </h2>
            <div class="panels">
              {panels.map((panel) => (
                <Panel key={panel.id} desk={desk} panel={panel} />
              ))}
            </div>
          </section>
        ))}
      </div>
    </>
  );
}

/** Nothing now, and nothing in the range: somebody's first minute with an empty store. */
function isEmpty(desk: Desk): boolean {
  desk.painter.paints.value; // subscribes
  const { from, to } = desk.span;
  const read = Object.values(desk.past.loading.value);
  const realtime = desk.shown.value;
  return (
    realtime !== null &&
    Object.keys(realtime.metrics).length === 0 &&
    read.every(({ state }) => state === "ready") &&
    !desk.past.store.has(
      LINES.map((line) => line.metric),
      from,
      to,
    )
  );
}

function Notice({ desk }: { desk: Desk }) {
  desk.painter.paints.value; // subscribes: whether it is worth a notice depends on the time
  const link = desk.connection.link.value;
  const since = link.phase === "down" ? link.since : null;
  if (since === null || desk.clock.local() - since < WORTH_A_NOTICE) return null;
  return (
    <p class="notice" role="alert">
      {desk.shown.value
        ? `No connection to the server since ${timeOfDay(since)}. What you see is from before; the page keeps trying.`
        : `${desk.feed.problem.value ?? "The server does not answer."} The page keeps trying.`}
    </p>
  );
}

function Foot({ desk }: { desk: Desk }) {
  desk.painter.paints.value; // subscribes: an answer about the past may bring another step
  const realtime = desk.shown.value;
  return (
    <footer class="foot">
      <span>{realtime ? `Version ${realtime.version}` : ""}</span>
      <span>
        {realtime?.as_of ? `Newest event ${timeOfDay(realtime.as_of)}` : "No live event yet"} · one point ={" "}
        {duration(desk.past.store.step)}
      </span>
      <span class="foot-keys">
        <kbd>space</kbd> pause · drag to zoom · <kbd>Esc</kbd> back
      </span>
    </footer>
  );
}

/** Space pauses, Escape leaves a zoom or closes the badge's card; keys typed into controls stay theirs. */
function keys(desk: Desk): () => void {
  const badge = () => document.querySelector<HTMLDetailsElement>("details.badge[open]");
  const pressed = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      const open = badge();
      if (open) open.open = false;
      else desk.zoomOut();
    }
    const target = event.target as Element | null;
    if (event.key === " " && !target?.closest("button, a, input, select, textarea, summary")) {
      event.preventDefault();
      desk.pause();
    }
  };
  const clicked = (event: MouseEvent) => {
    const open = badge();
    if (open && !open.contains(event.target as Node)) open.open = false;
  };
  document.addEventListener("keydown", pressed);
  document.addEventListener("click", clicked);
  return () => {
    document.removeEventListener("keydown", pressed);
    document.removeEventListener("click", clicked);
  };
}
