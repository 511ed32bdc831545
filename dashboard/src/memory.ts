// What this page has seen since it was opened: how deep the queue was, and what
// happened. Nodes keep no such list; both are told apart from what they answer.

import { effect, signal } from "@preact/signals";
import { count, plural, short8 } from "./format.ts";
import { mesh, queue, running } from "./live.ts";
import { call } from "./mcp.ts";
import { to } from "./route.ts";
import { token } from "./session.ts";
import type { Stats, Task, TaskStatus } from "./types.ts";

export interface Sample {
  at: number;
  waiting: number;
  running: number;
}

export type Tone = "good" | "bad" | "warn" | "info";

export interface Happening {
  id: number;
  at: number;
  tone: Tone;
  kind: "node" | "task" | "queue";
  text: string;
  subject: string | null;
  href: string | null;
}

/** An hour of a sample each five seconds. */
const SAMPLES = 720;
const HAPPENINGS = 500;
/** Tasks of one change that are named; the rest is a number. */
const NAMED = 5;

export const samples = signal<Sample[]>([]);
export const happenings = signal<Happening[]>([]);
export const since = Date.now();

let number = 0;

function tell(
  tone: Tone,
  kind: Happening["kind"],
  text: string,
  subject: string | null = null,
  href: string | null = null,
): void {
  const happening = { id: (number += 1), at: Date.now(), tone, kind, text, subject, href };
  happenings.value = [happening, ...happenings.peek()].slice(0, HAPPENINGS);
}

function waiting(stats: Stats): number {
  return stats.queued_count + stats.delayed_count + stats.blocked_count;
}

function watchQueue(): () => void {
  let before: Stats | null = null;
  return effect(() => {
    const stats = queue.value.value;
    if (!stats || stats === before) return;
    const sample = { at: Date.now(), waiting: waiting(stats), running: stats.running_count };
    samples.value = [...samples.peek(), sample].slice(-SAMPLES);
    if (before) {
      if (stats.paused && !before.paused)
        tell("warn", "queue", stats.pause_reason ? `Queue paused: ${stats.pause_reason}` : "Queue paused");
      if (!stats.paused && before.paused) tell("good", "queue", "Queue resumed");
      const more = waiting(stats) - waiting(before);
      if (more >= 10)
        tell("info", "queue", `${count(more)} more tasks wait`, null, to(["tasks"], { status: "queued" }));
      const failed = stats.failed_count - before.failed_count;
      if (failed > 0)
        tell("bad", "task", `${plural(failed, "task")} failed`, null, to(["tasks"], { status: "failed" }));
      const ended = stats.completed_count - before.completed_count;
      if (ended > NAMED)
        tell("good", "task", `${plural(ended, "task")} completed`, null, to(["tasks"], { status: "completed" }));
    }
    before = stats;
  });
}

function watchNodes(): () => void {
  const before = new Map<string, string>();
  return effect(() => {
    const nodes = mesh();
    if (!nodes) return;
    const first = before.size === 0;
    for (const node of nodes) {
      const health = before.get(node.id);
      before.set(node.id, node.health);
      if (first || health === node.health) continue;
      const href = to(["nodes", node.id]);
      if (node.health === "down") tell("bad", "node", "Node lost", short8(node.id), href);
      else if (node.health === "draining") tell("warn", "node", "Node drains", short8(node.id), href);
      else tell("good", "node", health === undefined ? "Node joined" : "Node is back", short8(node.id), href);
    }
  });
}

function watchTasks(): () => void {
  let before: Map<string, Task> | null = null;
  return effect(() => {
    const page = running.value.value;
    if (!page) return;
    const after = new Map(page.tasks.map((task) => [task.task_id, task]));
    if (before) {
      const begun = page.tasks.filter((task) => !before?.has(task.task_id));
      for (const task of begun.slice(0, NAMED))
        tell("info", "task", "Started", task.task_id, to(["tasks", task.task_id]));
      if (begun.length > NAMED) tell("info", "task", `${count(begun.length - NAMED)} more tasks started`);
      const left = [...before.keys()].filter((id) => !after.has(id));
      if (left.length <= NAMED) void ended(left);
    }
    before = after;
  });
}

/** Says how those ended that run no more. */
async function ended(ids: string[]): Promise<void> {
  for (const id of ids) {
    const status = await call<TaskStatus>("task_status", { task_id: id }).catch(() => null);
    const href = to(["tasks", id]);
    if (status?.status === "completed") tell("good", "task", "Completed", id, href);
    // Failures are counted from the queue.
    if (status?.status === "cancelled" || status?.status === "expired")
      tell("warn", "task", status.status === "cancelled" ? "Cancelled" : "Expired", id, href);
  }
}

/** Begins to remember, for as long as somebody is logged in. */
export function remember(): void {
  effect(() => {
    if (token.value === null) return;
    const ends = [watchQueue(), watchNodes(), watchTasks()];
    return () => ends.forEach((end) => end());
  });
}
