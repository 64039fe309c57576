/** The bar at the top: name, badges, range, pause, theme. */

import { LiveBadge } from "./badge";
import type { Desk } from "./desk";
import { dateAndTime, period } from "./format";
import { MoonIcon, PauseIcon, PlayIcon, PulseIcon, SunIcon, SystemIcon } from "./icons";
import { PRESETS, isMoving, presetOf, rangeQuery } from "./range";
import { choice, nextTheme } from "./theme";

export function Header({ desk }: { desk: Desk }) {
  return (
    <header class="bar">
      <div class="bar-inner">
        <h1 class="brand">
          <PulseIcon />
          <span>
            VIBEZEN <span class="brand-soft">Metrics</span>
          </span>
        </h1>
        {desk.shown.value?.demo && (
          <span
            class="demo"
            title="These numbers are made up by a simulator, in a store of their own. Nothing here is from your programs."
          >
            Demo
          </span>
        )}
        <RangePicker desk={desk} />
        <PauseButton desk={desk} />
        <LiveBadge desk={desk} />
        <ThemeButton />
      </div>
    </header>
  );
}

function RangePicker({ desk }: { desk: Desk }) {
  const range = desk.range.value;
  const chosen = presetOf(range);
  const { from, to } = desk.span;
  const pick = (event: MouseEvent, key: string) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return; // a link that opens elsewhere
    event.preventDefault();
    const preset = PRESETS.find((one) => one.key === key);
    if (preset) desk.choose(preset.range);
  };
  return (
    <nav class="ranges" aria-label="Time range">
      {PRESETS.map(({ key, name, range: preset }) => (
        <a
          key={key}
          href={rangeQuery(preset, location.search)}
          title={name}
          aria-current={chosen?.key === key ? "true" : undefined}
          onClick={(event) => pick(event, key)}
        >
          {key}
        </a>
      ))}
      {!chosen && (
        <span class="ranges-own" aria-current="true">
          {isMoving(range) ? `${dateAndTime(from)} – now` : period(from, to)}
          {!isMoving(range) && (
            <button
              type="button"
              title="Back to the live range (Esc)"
              aria-label="Back to the live range"
              onClick={() => desk.zoomOut()}
            >
              ×
            </button>
          )}
        </span>
      )}
    </nav>
  );
}

function PauseButton({ desk }: { desk: Desk }) {
  const paused = desk.painter.paused.value;
  const held = desk.held.value;
  return (
    <button
      type="button"
      class="button pause"
      aria-pressed={paused}
      title={
        paused
          ? "Show what arrived meanwhile and go on (space)"
          : "Hold the screen still; nothing is lost meanwhile (space)"
      }
      onClick={() => desk.pause()}
    >
      {paused ? <PlayIcon /> : <PauseIcon />}
      <span class="pause-word">{paused ? "Resume" : "Pause"}</span>
      {paused && held > 0 && <span class="pause-held">+{held}</span>}
    </button>
  );
}

const THEMES = {
  system: { name: "as the system", icon: SystemIcon },
  light: { name: "light", icon: SunIcon },
  dark: { name: "dark", icon: MoonIcon },
};

function ThemeButton() {
  const { name, icon: Icon } = THEMES[choice.value];
  return (
    <button
      type="button"
      class="button button-icon"
      title={`Theme: ${name}`}
      aria-label={`Theme: ${name}. Change`}
      onClick={nextTheme}
    >
      <Icon />
    </button>
  );
}
