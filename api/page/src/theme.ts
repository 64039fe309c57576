/** Light or dark: the system's wish unless the reader chose; and the inks as the canvas needs them. */

import { computed, signal } from "@preact/signals";

export type ThemeChoice = "system" | "light" | "dark";

const STORED = "vibezen.theme";
const NEXT: Record<ThemeChoice, ThemeChoice> = { system: "light", light: "dark", dark: "system" };

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const systemIsDark = signal(systemDark.matches);
systemDark.addEventListener("change", (event) => {
  systemIsDark.value = event.matches;
});

export const choice = signal<ThemeChoice>(stored());

export const theme = computed<"light" | "dark">(() =>
  choice.value === "system" ? (systemIsDark.value ? "dark" : "light") : choice.value,
);

export function nextTheme(): void {
  const next = NEXT[choice.value];
  apply(next); // first the style sheets, then those who ask them for colours
  choice.value = next;
  try {
    if (next === "system") localStorage.removeItem(STORED);
    else localStorage.setItem(STORED, next);
  } catch {
    // Storage may be refused; the choice then lasts as long as the page.
  }
}

function apply(next: ThemeChoice): void {
  const { dataset } = document.documentElement;
  if (next === "system") delete dataset.theme;
  else dataset.theme = next;
}

const resolved = new Map<string, string>();

/** A colour token of styles/tokens.css as the browser resolves it for the current theme, e.g. `rgb(87, 211, 177)`. */
export function color(token: string): string {
  const known = resolved.get(theme.value + token);
  if (known) return known;
  const probe = document.createElement("i");
  probe.hidden = true;
  probe.style.color = `var(--${token})`;
  document.documentElement.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  resolved.set(theme.value + token, value);
  return value;
}

/** The same colour, more or less transparent. */
export function fade(rgb: string, alpha: number): string {
  const [red = 0, green = 0, blue = 0] = rgb.match(/[\d.]+/g)?.map(Number) ?? [];
  return `rgba(${red}, ${green}, ${blue}, ${alpha})`;
}

function stored(): ThemeChoice {
  try {
    const value = localStorage.getItem(STORED);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}
