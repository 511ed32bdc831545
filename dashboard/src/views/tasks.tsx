// Tasks with filters, search and pages. What is asked for is in the address.

import { useEffect, useRef, useState } from "preact/hooks";
import { between, count, span } from "../format.ts";
import { now, queue, useSource } from "../live.ts";
import { call, complete, Refusal } from "../mcp.ts";
import { Ago, Answered, Chip, Empty, Skeleton, TaskLink, Trouble } from "../parts/basics.tsx";
import { go, place, to } from "../route.ts";
import type { Stats, Task, TaskPage } from "../types.ts";

const STATES: [string, string, (stats: Stats) => number][] = [
  [
    "",
    "All",
    (s) =>
      s.queued_count +
      s.delayed_count +
      s.blocked_count +
      s.running_count +
      s.completed_count +
      s.failed_count +
      s.cancelled_count +
      s.expired_count,
  ],
  ["queued", "Waiting", (s) => s.queued_count + s.delayed_count + s.blocked_count],
  ["running", "Running", (s) => s.running_count],
  ["completed", "Completed", (s) => s.completed_count],
  ["failed", "Failed", (s) => s.failed_count],
  ["cancelled", "Cancelled", (s) => s.cancelled_count],
  ["expired", "Expired", (s) => s.expired_count],
];
const FILTERS = ["type", "tag", "worker", "workflow", "priority"];
const LIMIT = 100;
/** The farthest place that a node counts to by itself; beyond it, each page leads to the next. */
const REACH = 5_000;
/** Pages of a thousand on the way to the end of a long list, from the last that is known. */
const STRIDES = 40;

/** The last known rows: a task's own answer has neither tags nor priority. */
export const seen = new Map<string, Task>();

type Args = Record<string, unknown>;

function filterOf(query: URLSearchParams): Args {
  const text = (name: string) => query.get(name) || undefined;
  const tags = query
    .getAll("tag")
    .flatMap((tag) => tag.split(","))
    .filter(Boolean);
  const priority = Number(query.get("priority"));
  return {
    status_filter: text("status"),
    task_type_filter: text("type"),
    worker_filter: text("worker"),
    workflow_filter: text("workflow"),
    tag_filter: tags.length > 0 ? tags : undefined,
    priority_min: priority > 0 ? priority : undefined,
  };
}

/** Cursors by page of one filter: `cursors[n]` leads to page n. */
const cursors = new Map<string, Map<number, string>>();

function cursorsOf(key: string): Map<number, string> {
  const known = cursors.get(key);
  if (known) return known;
  cursors.clear();
  const fresh = new Map<number, string>();
  cursors.set(key, fresh);
  return fresh;
}

async function page(key: string, filter: Args, n: number, signal?: AbortSignal): Promise<TaskPage> {
  const led = cursorsOf(key);
  const cursor = led.get(n);
  const at = cursor !== undefined ? { cursor } : { offset: Math.min(n * LIMIT, REACH) };
  const got = await call<TaskPage>("task_list", { ...filter, limit: LIMIT, ...at }, signal);
  if (got.next_cursor) led.set(n + 1, got.next_cursor);
  for (const task of got.tasks) remember(task);
  return got;
}

function remember(task: Task): void {
  seen.delete(task.task_id);
  seen.set(task.task_id, task);
  const oldest = seen.size > 2_000 ? seen.keys().next().value : undefined;
  if (oldest !== undefined) seen.delete(oldest);
}

/** Finds the way to page `n`, in strides of a thousand; `false`: too far. */
async function lead(key: string, filter: Args, n: number): Promise<boolean> {
  const led = cursorsOf(key);
  if (n === 0) return true;
  let at = Math.max(0, ...[...led.keys()].filter((known) => known <= n));
  for (let strides = 0; !led.has(n) && strides < STRIDES; strides += 1) {
    const left = Math.min(1_000, (n - at) * LIMIT);
    const got = await call<TaskPage>("task_list", { ...filter, limit: left, cursor: led.get(at) });
    if (!got.next_cursor) throw unfinished(got);
    at += left / LIMIT;
    led.set(at, got.next_cursor);
  }
  return led.has(n);
}

function unfinished({ nodes_answered, nodes_expected }: TaskPage): Refusal {
  const why =
    nodes_answered < nodes_expected ? "Not all nodes answered in time. Try again." : "The list has become shorter.";
  return new Refusal(why, "unavailable", true);
}

export function Tasks() {
  const { query } = place.value;
  const filter = filterOf(query);
  const key = JSON.stringify(filter);
  const asked = Math.max(0, Math.floor(Number(query.get("page") ?? 1)) - 1 || 0);
  const n = asked * LIMIT > REACH && !cursorsOf(key).has(asked) ? 0 : asked;
  const source = useSource(`${key} ${n}`, (signal) => page(key, filter, n, signal), ["mesh://queue"], 15_000);
  const got = source.value.value;
  const shown = useRef<TaskPage | null>(null);
  if (got) shown.current = got;
  const list = shown.current;
  const filtered = Object.values(filter).some((value) => value !== undefined);
  return (
    <>
      <div class="title">
        <h1>Tasks</h1>
      </div>
      <Search query={query} />
      <States query={query} />
      {source.problem.value && <Trouble problem={source.problem.value} what="The tasks could not be listed." />}
      {list && <Answered answered={list.nodes_answered} expected={list.nodes_expected} />}
      <section class="card flush" aria-label="Tasks" aria-busy={!got}>
        {!list ? (
          !source.problem.value && <Skeleton lines={12} />
        ) : list.tasks.length === 0 ? (
          filtered ? (
            <Empty title="No task is like that">
              <a href={to(["tasks"])}>Show all tasks</a>
            </Empty>
          ) : (
            <Empty title="No tasks yet">
              Hand one in: <code>taskmesh submit -- sha256sum /etc/hostname</code>
            </Empty>
          )
        ) : (
          <Table tasks={list.tasks} />
        )}
        {list && list.tasks.length > 0 && <Pager list={list} n={n} filterKey={key} filter={filter} query={query} />}
      </section>
    </>
  );
}

function hrefOf(query: URLSearchParams, change: Record<string, string | undefined>): string {
  const kept = Object.fromEntries(
    ["status", ...FILTERS].map((name) => [name, query.getAll(name).join(",") || undefined]),
  );
  return to(["tasks"], { ...kept, ...change });
}

function States({ query }: { query: URLSearchParams }) {
  const stats = queue.value.value;
  const chosen = query.get("status") ?? "";
  return (
    <nav class="segments" aria-label="State">
      {STATES.map(([status, label, of]) => (
        <a
          key={status}
          href={hrefOf(query, { status: status || undefined })}
          aria-current={chosen === status ? "true" : undefined}
        >
          {label} <small class="figure">{stats ? count(of(stats)) : ""}</small>
        </a>
      ))}
    </nav>
  );
}

function Search({ query }: { query: URLSearchParams }) {
  const written = FILTERS.flatMap((name) =>
    query.getAll(name).flatMap((value) => value.split(",").map((one) => `${name}:${one}`)),
  ).join(" ");
  const [text, write] = useState(written);
  const [found, find] = useState<{ values: string[]; hasMore: boolean } | null>(null);
  const box = useRef<HTMLInputElement>(null);
  useEffect(() => write(written), [written]);
  const begun = text.split(/\s+/).find((word) => word && !FILTERS.includes(word.split(":")[0] ?? "")) ?? "";

  useEffect(() => {
    find(null);
    if (begun.length < 2) return;
    const own = new AbortController();
    const timer = setTimeout(() => {
      complete(begun, own.signal).then(find, () => find(null));
    }, 300);
    return () => {
      clearTimeout(timer);
      own.abort();
    };
  }, [begun]);

  useEffect(() => {
    const key = (event: KeyboardEvent) => {
      const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      box.current?.focus();
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (begun) return go(to(["tasks", begun]));
    const given: Record<string, string | undefined> = { status: query.get("status") ?? undefined };
    for (const word of text.split(/\s+/)) {
      const at = word.indexOf(":");
      const name = word.slice(0, at);
      if (at < 1 || !FILTERS.includes(name) || at === word.length - 1) continue;
      const value = word.slice(at + 1);
      given[name] = name === "tag" && given[name] ? `${given[name]},${value}` : value;
    }
    go(to(["tasks"], given));
  };

  return (
    <form class="search" role="search" onSubmit={submit}>
      <label>
        <span class="hidden">Search tasks</span>
        <svg viewBox="0 0 16 16" aria-hidden="true">
          <circle cx="7" cy="7" r="4.5" />
          <path d="m10.5 10.5 3.5 3.5" />
        </svg>
        <input
          ref={box}
          type="search"
          value={text}
          onInput={(event) => write(event.currentTarget.value)}
          placeholder="Id, or type: tag: worker: workflow: priority:"
          autocomplete="off"
          spellcheck={false}
          enterkeyhint="search"
        />
        <kbd aria-hidden="true">/</kbd>
      </label>
      {begun && found && (
        <div class="found card" role="region" aria-label="Matching ids">
          {found.values.length === 0 ? (
            <p class="dim">
              No id of those looked through begins with “{begun}”
              {found.hasMore ? ": the first thousand of each state. Enter opens a task by its whole id." : "."}
            </p>
          ) : (
            <ul class="rows tight">
              {found.values.slice(0, 8).map((id) => (
                <li key={id}>
                  <TaskLink id={id} />
                </li>
              ))}
              {(found.values.length > 8 || found.hasMore) && <li class="dim small">and more: go on writing</li>}
            </ul>
          )}
        </div>
      )}
    </form>
  );
}

function Table({ tasks }: { tasks: Task[] }) {
  return (
    <div class="table" tabIndex={0} role="group" aria-label="Table of tasks">
      <table>
        <thead>
          <tr>
            <th scope="col">Task</th>
            <th scope="col">State</th>
            <th scope="col">Type</th>
            <th scope="col" class="number">
              Priority
            </th>
            <th scope="col">Worker</th>
            <th scope="col" class="number">
              Attempt
            </th>
            <th scope="col">Submitted</th>
            <th scope="col" class="number">
              Ran
            </th>
          </tr>
        </thead>
        <tbody>
          {tasks.map((task) => (
            <tr key={task.task_id}>
              <th scope="row">
                <TaskLink id={task.task_id} />
                {task.tags.map((tag) => (
                  <a key={tag} class="tag" href={to(["tasks"], { tag })}>
                    {tag}
                  </a>
                ))}
              </th>
              <td>
                <Chip status={task.status} />
              </td>
              <td data-name="Type">{task.task_type}</td>
              <td data-name="Priority" class="number">
                {task.priority}
              </td>
              <td data-name="Worker" class="mono small">
                {task.worker_id ?? "–"}
              </td>
              <td data-name="Attempt" class="number">
                {task.attempt}
              </td>
              <td data-name="Submitted" class="nowrap">
                <Ago at={task.submitted_at} />
              </td>
              <td data-name="Ran" class="number nowrap">
                {task.start_time && (task.end_time || task.status === "running")
                  ? span(between(task.start_time, task.end_time, now.value))
                  : "–"}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface PagerProps {
  list: TaskPage;
  n: number;
  filterKey: string;
  filter: Args;
  query: URLSearchParams;
}

function Pager({ list, n, filterKey, filter, query }: PagerProps) {
  const [leading, say] = useState<string | null>(null);
  const last = Math.max(0, Math.ceil(list.total_count / LIMIT) - 1);
  const from = n * LIMIT + 1;
  const turn = async (to: number) => {
    say("Looking for it…");
    const found = await lead(filterKey, filter, to).catch((problem: Refusal) => problem.message);
    say(found === true ? null : found || "That is too far: narrow the list with a filter.");
    if (found === true) {
      go(hrefOf(query, { page: to > 0 ? String(to + 1) : undefined }));
      document.querySelector("main")?.scrollTo({ top: 0 });
      scrollTo({ top: 0 });
    }
  };
  const button = (label: string, to: number, off: boolean) => (
    <button type="button" class="button" disabled={off} onClick={() => void turn(to)}>
      {label}
    </button>
  );
  return (
    <nav class="pager" aria-label="Pages">
      <span class="dim figure" role="status">
        {leading ??
          `${count(from)} to ${count(from + list.returned_count - 1)} of ${count(list.total_count)}, oldest first`}
      </span>
      <span class="row">
        {button("Oldest", 0, n === 0)}
        {button("Previous", n - 1, n === 0)}
        {button("Next", n + 1, !list.has_more)}
        {button("Newest", last, n >= last)}
      </span>
    </nav>
  );
}
