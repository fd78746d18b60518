// Light or dark: as the system has it, unless the switch says otherwise.

import { computed, effect, signal } from "./vendor/ui.js";

const THEMES = ["system", "light", "dark"];

const system = matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(system.matches);
system.addEventListener("change", () => (systemDark.value = system.matches));

export const theme = signal(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system");

/** What is in force; pictures that are no markup are drawn anew when it changes. */
export const dark = computed(() => (theme.value === "system" ? systemDark.value : theme.value === "dark"));

/** The theme's colours as they are now, for such pictures. */
export function inks(names) {
  const probe = document.body.appendChild(document.createElement("span"));
  const found = names.map((name) => {
    probe.style.color = `var(--${name})`;
    return [name, getComputedStyle(probe).color];
  });
  probe.remove();
  return Object.fromEntries(found);
}

export function turn() {
  theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length];
  localStorage.setItem("theme", theme.value);
}

effect(() => {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
});
