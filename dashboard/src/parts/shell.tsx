// What is around every view: the name, the ways, how fresh it all is.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { line, refresh } from "../live.ts";
import { place, to } from "../route.ts";
import { leave } from "../session.ts";
import { scheme } from "./chart.tsx";

const WAYS: [string, string, string][] = [
  ["", "Overview", "M3 8.5 8 3.5l5 5M4.5 7.5v5h7v-5"],
  ["tasks", "Tasks", "M3 4h10M3 8h10M3 12h6"],
  ["workflows", "Workflows", "M3 3h4v3H3zM9 10h4v3H9zM5 6v5.5h4"],
  [
    "nodes",
    "Nodes",
    "M8 2.2a1.8 1.8 0 1 1 0 3.6 1.8 1.8 0 0 1 0-3.6M3.6 10.2a1.8 1.8 0 1 1 0 3.6 1.8 1.8 0 0 1 0-3.6M12.4 10.2a1.8 1.8 0 1 1 0 3.6 1.8 1.8 0 0 1 0-3.6M7.1 5.6l-2.6 4.8M8.9 5.6l2.6 4.8M5.4 12h5.2",
  ],
  ["events", "Events", "M2 8h3l2-4 3 8 1.5-4H14"],
];

const KEY = "taskmesh.theme";
const THEMES = ["auto", "light", "dark"] as const;
const theme = signal<string>(stored());

function stored(): string {
  const kept = localStorage.getItem(KEY) ?? "auto";
  return THEMES.find((known) => known === kept) ?? "auto";
}

export function dress(): void {
  document.documentElement.dataset.theme = theme.value;
}

function change(): void {
  const at = THEMES.findIndex((known) => known === theme.peek());
  theme.value = THEMES[(at + 1) % THEMES.length] ?? "auto";
  localStorage.setItem(KEY, theme.value);
  dress();
  scheme.value += 1;
}

export function Logo() {
  return (
    <span class="logo">
      <svg viewBox="0 0 32 32" aria-hidden="true">
        <rect width="32" height="32" rx="8" />
        <path d="M16 8.5 8 22h16Z" />
        <circle cx="16" cy="8.5" r="3.6" />
        <circle cx="8" cy="22" r="3.6" />
        <circle class="lit" cx="24" cy="22" r="3.6" />
      </svg>
      taskmesh
    </span>
  );
}

const LINES = {
  connecting: ["wait", "Connecting"],
  live: ["good", "Live"],
  polling: ["warn", "Asking every few seconds"],
  lost: ["bad", "No answer"],
} as const;

export function Shell({ children }: { children: ComponentChildren }) {
  const here = place.value.path[0] ?? "";
  const [tone, said] = LINES[line.value];
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("main")?.focus();
        }}
      >
        Skip to the content
      </a>
      <header class="top">
        <a href={to([])} class="home" aria-label="taskmesh, overview">
          <Logo />
        </a>
        <nav class="ways" aria-label="Views">
          {WAYS.map(([path, label, drawing]) => (
            <a key={path} href={to(path ? [path] : [])} aria-current={here === path ? "page" : undefined}>
              <svg viewBox="0 0 16 16" aria-hidden="true">
                <path d={drawing} />
              </svg>
              <span>{label}</span>
            </a>
          ))}
        </nav>
        <div class="row tools">
          <span class={`line tone-${tone}`} role="status" data-line={line.value}>
            <i aria-hidden="true" />
            <span>{said}</span>
          </span>
          <button
            type="button"
            class="button quiet"
            onClick={change}
            aria-label={`Colours: ${theme.value}. Change`}
            title={`Colours: ${theme.value}`}
          >
            <svg viewBox="0 0 16 16" aria-hidden="true">
              <circle cx="8" cy="8" r="5" />
              <path class="fill" d="M8 3a5 5 0 0 1 0 10z" />
            </svg>
          </button>
          <button type="button" class="button quiet" onClick={() => leave()} aria-label="Sign out" title="Sign out">
            <svg viewBox="0 0 16 16" aria-hidden="true">
              <path d="M6.5 3H3.5v10h3M7 8h6m-2.5-2.5L13 8l-2.5 2.5" />
            </svg>
          </button>
        </div>
      </header>
      {line.value === "lost" && (
        <p class="banner" role="alert">
          This node does not answer: what is shown is what it said last. Any other node of the mesh shows the same.
          <button type="button" class="button" onClick={refresh}>
            Try now
          </button>
        </p>
      )}
      <main id="main" tabIndex={-1}>
        {children}
      </main>
    </>
  );
}
