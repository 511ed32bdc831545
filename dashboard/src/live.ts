// What is known of the mesh now: a few answers that are kept fresh. The node's
// stream says when one has changed; what always moves (ages, rates, latency) is
// asked for again by the clock. Nothing is asked while the tab is hidden.

import { effect, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { fleet, type FleetNode } from "./fleet.ts";
import { ahead, call, changes, offered, Refusal } from "./mcp.ts";
import { token } from "./session.ts";
import type { Peer, Stats, TaskPage } from "./types.ts";

/** `live`: told of changes; `polling`: asks by the clock alone; `lost`: no answers. */
export type Line = "connecting" | "live" | "polling" | "lost";

export const line = signal<Line>("connecting");
/** The clock of the page, for ages. */
export const now = signal(Date.now());
export const may = signal<Set<string>>(new Set());

const QUEUE = "mesh://queue";
const WORKERS = "mesh://workers";
const PEERS = "mesh://peers";

/** One answer that is kept fresh while somebody looks at it. */
export class Source<T> {
  readonly value = signal<T | null>(null);
  readonly problem = signal<Refusal | null>(null);
  readonly busy = signal(false);
  private timer: ReturnType<typeof setTimeout> | undefined;
  private under = new AbortController();
  private last = 0;
  private stale = false;
  private stopped = true;

  constructor(
    private readonly ask: (signal: AbortSignal) => Promise<T>,
    readonly topics: string[],
    private readonly everyMs: number,
    private readonly gapMs = 1_000,
  ) {}

  start(): void {
    this.stopped = false;
    this.under = new AbortController();
    sources.add(this as Source<unknown>);
    rewire();
    void this.fetch();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    this.under.abort();
    this.busy.value = false;
    sources.delete(this as Source<unknown>);
    rewire();
  }

  /** Something may have changed: asked again soon, and not more often than the gap. */
  hint(): void {
    if (this.stopped) return;
    if (this.busy.peek()) {
      this.stale = true;
      return;
    }
    this.after(Math.max(0, this.last + this.gapMs - Date.now()));
  }

  private after(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.fetch(), ms);
  }

  private async fetch(): Promise<void> {
    clearTimeout(this.timer);
    if (this.stopped || document.hidden || token.peek() === null) return;
    const signal = this.under.signal;
    this.busy.value = true;
    try {
      const value = await this.ask(signal);
      if (signal.aborted) return;
      this.value.value = value;
      this.problem.value = null;
      reached(true);
    } catch (problem) {
      if (signal.aborted) return;
      const refusal = problem instanceof Refusal ? problem : new Refusal(String(problem), "internal", false);
      this.problem.value = refusal;
      if (refusal.code === "unreachable") reached(false);
    }
    this.busy.value = false;
    this.last = Date.now();
    this.after(this.stale ? this.gapMs : this.everyMs);
    this.stale = false;
  }
}

const sources = new Set<Source<unknown>>();

/** A source of a view, as long as it is shown; a new one when `key` changes. */
export function useSource<T>(
  key: string,
  ask: (signal: AbortSignal) => Promise<T>,
  topics: string[],
  everyMs: number,
): Source<T> {
  const source = useMemo(() => new Source(ask, topics, everyMs), [key]);
  useEffect(() => {
    source.start();
    return () => source.stop();
  }, [source]);
  return source;
}

export const queue = new Source<Stats>(
  (signal) => call("queue_stats", { include_worker_stats: true, include_historical: true }, signal),
  [QUEUE, WORKERS],
  5_000,
);
export const peers = new Source<{ peers: Peer[]; total_count: number }>(
  (signal) => call("peer_list", { sort_by: "peer_id", limit: 1_000 }, signal),
  [PEERS],
  10_000,
);
/** The first of what runs: enough for who works for whom. */
export const running = new Source<TaskPage>(
  (signal) => call("task_list", { status_filter: "running", limit: 200 }, signal),
  [QUEUE],
  10_000,
);

/** The nodes, once they are known. */
export function mesh(): FleetNode[] | null {
  const [known, stats] = [peers.value.value, queue.value.value];
  return known && stats ? fleet(known.peers, stats.worker_stats ?? [], running.value.value?.tasks ?? []) : null;
}

let stream: AbortController | undefined;
let listening = "";
let wiring: ReturnType<typeof setTimeout> | undefined;

/** Listens to what the sources are about, in one stream. */
function rewire(): void {
  clearTimeout(wiring);
  wiring = setTimeout(() => {
    const topics = [...new Set([...sources].flatMap((source) => source.topics))].sort();
    const wanted = token.peek() === null || document.hidden ? "" : topics.join(" ");
    if (wanted === listening) return;
    listening = wanted;
    stream?.abort();
    stream = undefined;
    if (wanted) void listen(topics);
  }, 50);
}

async function listen(topics: string[]): Promise<void> {
  const own = new AbortController();
  stream = own;
  for (let pause = 500; !own.signal.aborted; pause = Math.min(pause * 2, 10_000)) {
    try {
      for await (const uri of changes(topics, own.signal)) {
        pause = 500;
        line.value = "live";
        if (uri === null && may.peek().size === 0) void learn();
        if (uri) for (const source of sources) if (source.topics.includes(uri)) source.hint();
      }
    } catch (problem) {
      if (own.signal.aborted || token.peek() === null) return;
      if (problem instanceof Refusal && problem.code === "unreachable") line.value = "lost";
    }
    if (own.signal.aborted) return;
    if (line.peek() === "live") line.value = "polling";
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function reached(well: boolean): void {
  if (!well) line.value = "lost";
  else if (line.peek() === "connecting" || line.peek() === "lost") line.value = "polling";
}

/** Asks everything again, now. */
export function refresh(): void {
  for (const source of sources) source.hint();
}

async function learn(): Promise<void> {
  try {
    may.value = await offered();
  } catch {
    // Without the list nothing is offered; the answers say what is wrong.
  }
}

export function start(): void {
  setInterval(() => {
    if (!document.hidden) now.value = Date.now() + ahead;
  }, 1_000);
  document.addEventListener("visibilitychange", () => {
    rewire();
    if (!document.hidden) refresh();
  });
  effect(() => {
    const entered = token.value !== null;
    line.value = "connecting";
    listening = "";
    stream?.abort();
    for (const source of [queue, peers, running]) {
      source.stop();
      source.value.value = null;
      if (entered) source.start();
    }
    if (entered) void learn();
  });
}
