// Tasks with filters, search and pages. What is asked for is in the address.

import { useEffect, useRef, useState } from "preact/hooks";
import { between, count, NONE, span } from "../format.ts";
import { now, queue, useSource } from "../live.ts";
import { complete } from "../mcp.ts";
import { Ago, Answered, Chip, Empty, Skeleton, TaskLink, Trouble } from "../parts/basics.tsx";
import { Cell, type Filter, order, Pager, Pages, Table } from "../parts/table.tsx";
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
/** The last known rows: a task's own answer has neither tags nor priority. */
export const seen = new Map<string, Task>();

const pages = new Pages<TaskPage>("task_list", 100);

function filterOf(query: URLSearchParams): Filter {
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

function remember(task: Task): void {
  seen.delete(task.task_id);
  seen.set(task.task_id, task);
  const oldest = seen.size > 2_000 ? seen.keys().next().value : undefined;
  if (oldest !== undefined) seen.delete(oldest);
}

export function Tasks() {
  const { query } = place.value;
  const filter = { ...filterOf(query), ...order(query) };
  const n = pages.number(query, filter);
  const ask = async (signal: AbortSignal) => {
    const got = await pages.read(filter, n, signal);
    got.tasks.forEach(remember);
    return got;
  };
  const source = useSource(`${JSON.stringify(filter)} ${n}`, ask, ["mesh://queue"], 15_000);
  const got = source.value.value;
  const shown = useRef<TaskPage | null>(null);
  if (got) shown.current = got;
  const list = shown.current;
  const filtered = Object.values(filterOf(query)).some((value) => value !== undefined);
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
          <Rows tasks={list.tasks} />
        )}
        {list && list.tasks.length > 0 && (
          <Pager list={list} n={n} limit={pages.limit} query={query} href={(change) => hrefOf(query, change)} />
        )}
      </section>
    </>
  );
}

function hrefOf(query: URLSearchParams, change: Record<string, string | undefined>): string {
  const kept = Object.fromEntries(
    ["status", "order", ...FILTERS].map((name) => [name, query.getAll(name).join(",") || undefined]),
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

function Rows({ tasks }: { tasks: Task[] }) {
  return (
    <Table of="tasks" columns={["Task", "State", "Type", "#Priority", "Worker", "#Attempt", "Submitted", "#Ran"]}>
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
          <Cell of="Type">{task.task_type}</Cell>
          <Cell of="#Priority">{task.priority}</Cell>
          <Cell of="Worker" class="mono small">
            {task.worker_id ?? NONE}
          </Cell>
          <Cell of="#Attempt">{task.attempt}</Cell>
          <Cell of="Submitted" class="nowrap">
            <Ago at={task.submitted_at} />
          </Cell>
          <Cell of="#Ran">
            {task.start_time && (task.end_time || task.status === "running")
              ? span(between(task.start_time, task.end_time, now.value))
              : NONE}
          </Cell>
        </tr>
      ))}
    </Table>
  );
}
