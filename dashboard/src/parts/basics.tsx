// Small things that every view is made of.

import type { ComponentChildren } from "preact";
import { signal } from "@preact/signals";
import { moment, NONE, plural, short8, span, whole, words } from "../format.ts";
import { line, now, refresh } from "../live.ts";
import type { Refusal } from "../mcp.ts";
import { to } from "../route.ts";

/** A state by colour, by shape and in words: none of them alone. */
const SHAPES: Record<string, [string, string]> = {
  completed: ["good", "M3.5 8.5l3 3 6-7"],
  connected: ["good", "M3.5 8.5l3 3 6-7"],
  up: ["good", "M3.5 8.5l3 3 6-7"],
  active: ["good", "M3.5 8.5l3 3 6-7"],
  idle: ["mute", "M4 8h8"],
  busy: ["run", "M6 4l6 4-6 4z"],
  running: ["run", "M6 4l6 4-6 4z"],
  leased: ["run", "M6 4l6 4-6 4z"],
  queued: ["wait", "M8 5v3l2 1.5M8 2.2a5.8 5.8 0 1 0 .01 0"],
  submitted: ["wait", "M8 5v3l2 1.5M8 2.2a5.8 5.8 0 1 0 .01 0"],
  waiting: ["wait", "M8 5v3l2 1.5M8 2.2a5.8 5.8 0 1 0 .01 0"],
  delayed: ["wait", "M8 5v3l2 1.5M8 2.2a5.8 5.8 0 1 0 .01 0"],
  blocked: ["wait", "M8 5v3l2 1.5M8 2.2a5.8 5.8 0 1 0 .01 0"],
  connecting: ["wait", "M8 5v3l2 1.5M8 2.2a5.8 5.8 0 1 0 .01 0"],
  input_required: ["warn", "M8 3.5v5.5M8 11.8v.4"],
  draining: ["warn", "M8 3.5v7M5 8l3 3 3-3"],
  expired: ["warn", "M8 3.5v5.5M8 11.8v.4"],
  cancelled: ["mute", "M4 12l8-8"],
  skipped: ["mute", "M4 12l8-8"],
  failed: ["bad", "M4.5 4.5l7 7m0-7l-7 7"],
  offline: ["bad", "M4.5 4.5l7 7m0-7l-7 7"],
  down: ["bad", "M4.5 4.5l7 7m0-7l-7 7"],
  disconnected: ["bad", "M4.5 4.5l7 7m0-7l-7 7"],
};

export function toneOf(status: string): string {
  return SHAPES[status]?.[0] ?? "mute";
}

export function Glyph({ status }: { status: string }) {
  const [tone, path] = SHAPES[status] ?? ["mute", "M4 8h8"];
  return (
    <svg class={`glyph tone-${tone}`} viewBox="0 0 16 16" aria-hidden="true">
      <path d={path} />
    </svg>
  );
}

export function Chip({ status }: { status: string }) {
  return (
    <span class={`chip tone-${toneOf(status)}`}>
      <Glyph status={status} />
      {words(status)}
    </span>
  );
}

interface CardProps {
  title: string;
  aside?: ComponentChildren;
  children: ComponentChildren;
  class?: string;
}

export function Card({ title, aside, children, class: more = "" }: CardProps) {
  return (
    <section class={`card ${more}`} aria-label={title}>
      <header>
        <h2>{title}</h2>
        {aside && <div class="aside">{aside}</div>}
      </header>
      {children}
    </section>
  );
}

/** Nothing to show, and what would make that different. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <svg viewBox="0 0 48 48" aria-hidden="true">
        <circle cx="24" cy="12" r="5" />
        <circle cx="11" cy="35" r="5" />
        <circle cx="37" cy="35" r="5" />
        <path d="M21.5 16.5 13.5 30.5M26.5 16.5l8 14M16 35h16" />
      </svg>
      <p class="strong">{title}</p>
      {children && <div class="dim">{children}</div>}
    </div>
  );
}

/** What went wrong, and what to do. */
export function Trouble({ problem, what }: { problem: Refusal; what: string }) {
  // The banner says that already.
  if (problem.code === "unreachable" && line.value === "lost") return null;
  return (
    <div class="trouble" role="alert">
      <Glyph status="failed" />
      <div>
        <p class="strong">{what}</p>
        <p>{problem.message}</p>
      </div>
      <button type="button" class="button" onClick={refresh}>
        Try again
      </button>
    </div>
  );
}

/** The place of what is still to come, of the same height, so that nothing jumps. */
export function Skeleton({ lines = 3 }: { lines?: number }) {
  return (
    <div class="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, n) => (
        <i key={n} />
      ))}
    </div>
  );
}

/** How long ago, with the time itself on demand. */
export function Ago({ at }: { at: string | number | null }) {
  if (at === null) return <>{NONE}</>;
  const time = typeof at === "number" ? at : Date.parse(at);
  const age = Math.max(0, (now.value - time) / 1000);
  return (
    <time dateTime={new Date(time).toISOString()} title={new Date(time).toLocaleString()}>
      {age < 5
        ? "just now"
        : age < 86_400
          ? `${age < 60 ? whole(age) : span(Math.floor(age / 60) * 60).replace(/ 0 s| 0 min/, "")} ago`
          : moment(time)}
    </time>
  );
}

export function TaskLink({ id }: { id: string }) {
  return (
    <a class="mono task-link" href={to(["tasks", id])} title={id}>
      {id}
    </a>
  );
}

export function NodeLink({ id, own = false }: { id: string; own?: boolean }) {
  return (
    <a class="mono" href={to(["nodes", id])} title={id}>
      {short8(id)}
      {own && <span class="tag">this node</span>}
    </a>
  );
}

export function Facts({ of }: { of: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {of.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A part of a whole, as a bar. */
export function Meter({ value, of, label }: { value: number; of: number; label: string }) {
  const part = of > 0 ? Math.min(1, value / of) : 0;
  return (
    <span class="meter" role="img" aria-label={label}>
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect class="all" width="100" height="6" />
        <rect class="part" width={String(100 * part)} height="6" />
      </svg>
    </span>
  );
}

export function Answered({ answered, expected }: { answered: number; expected: number }) {
  if (answered >= expected) return null;
  return (
    <p class="note tone-warn" role="status">
      <Glyph status="expired" />
      {plural(expected - answered, "node")} of {expected} did not answer: what only they know is missing here.
    </p>
  );
}

interface Toast {
  id: number;
  tone: "good" | "bad";
  text: string;
}

const toasts = signal<Toast[]>([]);
let number = 0;

/** Says for a few seconds what came of an action. */
export function toast(tone: Toast["tone"], text: string): void {
  const id = (number += 1);
  toasts.value = [...toasts.peek(), { id, tone, text }].slice(-3);
  setTimeout(() => (toasts.value = toasts.peek().filter((t) => t.id !== id)), tone === "bad" ? 10_000 : 5_000);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, tone, text }) => (
        <p key={id} class={`toast tone-${tone}`}>
          <Glyph status={tone === "good" ? "completed" : "failed"} />
          {text}
        </p>
      ))}
    </div>
  );
}
