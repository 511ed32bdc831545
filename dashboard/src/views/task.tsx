// One task: what it is doing and why, who keeps it, what it said and left.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { between, bytes, count, moment, NONE, plural, pretty, short8, span, words } from "../format.ts";
import { may, mesh, now, queue, running, useSource } from "../live.ts";
import { approve, call, Refusal, taskUri } from "../mcp.ts";
import { Action, ask, cancelTask, changePriority, retryTask } from "../parts/ask.tsx";
import {
  Ago,
  Card,
  Chip,
  Empty,
  Facts,
  Glyph,
  NodeLink,
  Skeleton,
  TaskLink,
  toast,
  Trouble,
} from "../parts/basics.tsx";
import { go, to } from "../route.ts";
import type { TaskResult, TaskStatus } from "../types.ts";
import { seen } from "./tasks.tsx";

const ENDED = ["completed", "failed", "cancelled", "expired"];

interface Whole {
  status: TaskStatus;
  result: TaskResult | null;
}

async function whole(id: string, signal: AbortSignal): Promise<Whole> {
  const asked = { task_id: id, include_logs: true, include_metrics: true, explain: true };
  const status = await call<TaskStatus>("task_status", asked, signal);
  const result = ENDED.includes(status.status) ? await call<TaskResult>("task_result", { task_id: id }, signal) : null;
  return { status, result };
}

export function TaskPageView({ id }: { id: string }) {
  const source = useSource(id, (signal) => whole(id, signal), [taskUri(id)], 5_000);
  const got = source.value.value;
  const problem = source.problem.value;
  return (
    <>
      <nav class="crumbs" aria-label="Where this is">
        <a href={to(["tasks"])}>Tasks</a>
        {/* Of an array or a workflow: what is before the last slash names it. */}
        {id.includes("/") && (
          <a class="mono" href={to(["tasks"], { workflow: id.slice(0, id.lastIndexOf("/")) })}>
            {id.slice(0, id.lastIndexOf("/"))}
          </a>
        )}
      </nav>
      {problem &&
        (problem.code === "not_found" ? (
          <Empty title={`There is no task ${id}`}>
            It may have been forgotten after its time, or the id is another. <a href={to(["tasks"])}>All tasks</a>
          </Empty>
        ) : (
          <Trouble problem={problem} what="This task could not be read." />
        ))}
      {!got && !problem && (
        <>
          <h1 class="mono id">{id}</h1>
          <Skeleton lines={8} />
        </>
      )}
      {got && <Body {...got} />}
    </>
  );
}

function Body({ status, result }: Whole) {
  const ended = ENDED.includes(status.status);
  const row = running.value.value?.tasks.find((task) => task.task_id === status.task_id) ?? seen.get(status.task_id);
  return (
    <>
      <div class="title">
        <div>
          <h1 class="mono id">{status.task_id}</h1>
          <p class="row wrap">
            <Chip status={status.status} />
            <span class="dim">
              {status.task_type}
              {row ? `, priority ${row.priority}` : ""}
              {status.queue_position != null ? `, place ${count(status.queue_position)} in the queue of its owner` : ""}
            </span>
            {row?.tags.map((tag) => (
              <a key={tag} class="tag" href={to(["tasks"], { tag })}>
                {tag}
              </a>
            ))}
          </p>
        </div>
        <div class="row wrap">
          {status.task_type === "approve" && !ended && <Approve id={status.task_id} about={status.progress_message} />}
          {!ended && status.status !== "running" && status.task_type !== "approve" && (
            <Action operation="task_priority" question={() => changePriority(status.task_id, row?.priority ?? null)}>
              Change priority
            </Action>
          )}
          {!ended && (
            <Action operation="task_cancel" danger question={() => cancelTask(status.task_id)}>
              Cancel
            </Action>
          )}
          {ended && status.status !== "completed" && (
            <Action operation="task_retry" question={() => retryTask(status.task_id, (id) => go(to(["tasks", id])))}>
              Try again
            </Action>
          )}
        </div>
      </div>
      {status.error && (
        <p class={`note pre ${status.status === "completed" ? "" : "tone-bad"}`}>
          <Glyph status="failed" />
          <span>{status.error}</span>
        </p>
      )}
      {status.progress != null && !ended && <Progress percent={status.progress} message={status.progress_message} />}
      {status.progress == null && status.progress_message && !ended && (
        <p class="note pre">
          <Glyph status="running" />
          <span>{status.progress_message}</span>
        </p>
      )}
      <div class="grid">
        <Card title="Times" class="half">
          <Timeline status={status} />
        </Card>
        <Card title="Attempts and ownership" class="half">
          <Ownership status={status} home={row?.home_node ?? null} />
        </Card>
        {!ended && status.explanation && <Explanation of={status.explanation} />}
        {status.schedule && <Schedule of={status.schedule} />}
        {ended && <Result id={status.task_id} result={result} />}
        <Logs text={status.logs} live={status.status === "running"} />
      </div>
    </>
  );
}

function Approve({ id, about }: { id: string; about: string | null }) {
  if (!may.value.has("task_cancel")) return null;
  const answer = (yes: boolean) => () =>
    ask({
      title: yes ? "Approve this step?" : "Reject this step?",
      about:
        (about ? `“${about}” ` : "") +
        (yes ? `The workflow goes on after ${id}.` : `${id} fails, and what depends on it does not begin.`),
      verb: yes ? "Approve" : "Reject",
      danger: yes ? undefined : true,
      act: async () => {
        await approve(id, yes);
        return yes ? `${id} is approved` : `${id} is rejected`;
      },
    });
  return (
    <>
      <button type="button" class="button solid" onClick={answer(true)}>
        Approve
      </button>
      <button type="button" class="button danger" onClick={answer(false)}>
        Reject
      </button>
    </>
  );
}

function Progress({ percent, message }: { percent: number; message: string | null }) {
  return (
    <div class="progress">
      <progress max={100} value={percent} aria-label="Progress" />
      <span class="figure">{percent} %</span>
      {message && <span class="dim">{message}</span>}
    </div>
  );
}

function Timeline({ status }: { status: TaskStatus }) {
  const submitted = status.metrics?.submitted_at ?? null;
  const waited = between(submitted, status.start_time ?? status.end_time, now.value);
  const ran = between(status.start_time, status.end_time, now.value);
  const total = (waited ?? 0) + (ran ?? 0);
  const part = total > 0 ? Math.round((100 * (waited ?? 0)) / total) : 100;
  const used = status.metrics;
  const facts: [string, ComponentChildren][] = [
    ["Submitted", <Ago key="s" at={submitted} />],
    ["Waited", span(waited)],
    ["Last attempt began", moment(status.start_time, now.value)],
    ["Ran", span(ran)],
    ["Ended", moment(status.end_time, now.value)],
  ];
  if (used?.delayed_until) facts.push(["Waits until", moment(used.delayed_until, now.value)]);
  if (used?.cpu_user_ms != null)
    facts.push(["Processor", `${span((used.cpu_user_ms + (used.cpu_system_ms ?? 0)) / 1000)}`]);
  if (used?.max_rss_kib != null) facts.push(["Memory, at most", bytes(used.max_rss_kib * 1024)]);
  return (
    <>
      <svg
        class="timeline"
        viewBox="0 0 100 8"
        preserveAspectRatio="none"
        role="img"
        aria-label={`Waited ${span(waited)}, ran ${span(ran)}`}
      >
        <rect class="waited" width={String(part)} height="8" />
        <rect
          class={status.status === "failed" ? "ran bad" : "ran"}
          x={String(part)}
          width={String(100 - part)}
          height="8"
        />
      </svg>
      <p class="key dim">
        <span>
          <i class="swatch wait" />
          waited
        </span>
        <span>
          <i class={`swatch ${status.status === "failed" ? "bad" : "run"}`} />
          ran
        </span>
      </p>
      <Facts of={facts} />
    </>
  );
}

function Ownership({ status, home }: { status: TaskStatus; home: string | null }) {
  const { metrics } = status;
  const health = new Map((mesh() ?? []).map((node) => [node.id, node]));
  const at = queue.value.value?.worker_stats?.find((worker) => worker.worker_id === status.worker_id);
  const attempts = metrics
    ? [
        `${plural(status.attempt, "grant")}`,
        `${count(metrics.failures)} failed`,
        `${count(metrics.crashes)} lost with a node`,
      ].join(", ")
    : count(status.attempt);
  return (
    <Facts
      of={[
        // A schedule is not run: its ticks are.
        ...(status.schedule ? [] : ([["Attempts", attempts]] as [string, ComponentChildren][])),
        [
          "Worker",
          status.worker_id ? (
            <a key="w" class="mono" href={to(["nodes", at?.node ?? status.worker_id])}>
              {status.worker_id}
            </a>
          ) : (
            NONE
          ),
        ],
        [
          "Fence",
          metrics ? (
            <span key="f">
              ownership <b class="figure">{metrics.epoch}</b>, attempt <b class="figure">{status.attempt}</b>
            </span>
          ) : (
            NONE
          ),
        ],
        [
          "Owner",
          home ? (
            <NodeLink key="o" id={home} own={health.get(home)?.own} />
          ) : (
            <span key="o" class="dim">
              one of the holders
            </span>
          ),
        ],
        [
          "Holders",
          metrics ? (
            <ul key="h" class="holders">
              {metrics.holders.map((holder) => (
                <li key={holder}>
                  <Glyph status={health.get(holder)?.health ?? "disconnected"} />
                  <NodeLink id={holder} own={health.get(holder)?.own} />
                  <span class="hidden">{health.get(holder)?.health ?? "unknown"}</span>
                </li>
              ))}
            </ul>
          ) : (
            NONE
          ),
        ],
        ...(status.retry_of
          ? [["Tries again", <TaskLink key="r" id={status.retry_of} />] as [string, ComponentChildren]]
          : []),
        ...(status.retried_as
          ? [["Tried again as", <TaskLink key="a" id={status.retried_as} />] as [string, ComponentChildren]]
          : []),
      ]}
    />
  );
}

function Explanation({ of }: { of: NonNullable<TaskStatus["explanation"]> }) {
  return (
    <Card
      title={of.reason ? "Why it waits" : "What happens next"}
      aside={of.reason && <span class="tag">{words(of.reason)}</span>}
      class="full"
    >
      <p>{sentence(of.summary)}</p>
      <p class="dim">
        Next: {of.next}
        {of.next_at ? <>, at {moment(of.next_at, now.value)}</> : null}.
      </p>
      {of.nodes.length > 0 && (
        <div class="table plain">
          <table>
            <thead>
              <tr>
                <th scope="col">Node</th>
                <th scope="col">Worker</th>
                <th scope="col">Why not there</th>
              </tr>
            </thead>
            <tbody>
              {of.nodes.map((node) => (
                <tr key={node.node + (node.worker_id ?? "")}>
                  <th scope="row">
                    <NodeLink id={node.node} />
                  </th>
                  <td data-name="Worker" class="mono small">
                    {node.worker_id ?? NONE}
                  </td>
                  <td data-name="Why not there">{words(node.reason)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Card>
  );
}

/** Peer ids are long and begin alike. */
function sentence(text: string): string {
  const short = text.replace(/12D3KooW\w{44}/g, (id) => short8(id));
  return short.charAt(0).toUpperCase() + short.slice(1) + (short.endsWith(".") ? "" : ".");
}

function Schedule({ of }: { of: NonNullable<TaskStatus["schedule"]> }) {
  return (
    <Card title="Schedule" class="full">
      <Facts
        of={[
          ["Pattern", <code key="c">{of.cron}</code>],
          ["Zone", of.timezone],
          ["Each tick", of.task_type],
          ["Ticks so far", count(of.ticks)],
          ["Last", of.last_task_id ? <TaskLink key="l" id={of.last_task_id} /> : NONE],
          ["Next", moment(of.next_tick, now.value)],
        ]}
      />
    </Card>
  );
}

function Result({ id, result }: { id: string; result: TaskResult | null }) {
  if (!result)
    return (
      <Card title="Result" class="full">
        <Skeleton lines={4} />
      </Card>
    );
  const nothing = result.result == null && !result.output;
  return (
    <Card
      title="Result"
      aside={result.output_bytes != null && <span class="dim">{bytes(result.output_bytes)} of output</span>}
      class="full"
    >
      {nothing && <p class="dim">It left nothing.</p>}
      {result.result != null && <Text label="Result" text={pretty(result.result)} name={`${id}.json`} />}
      {result.output && <Output key={result.output_cid} id={id} first={result} />}
    </Card>
  );
}

/** What it printed, a part at a time. */
function Output({ id, first }: { id: string; first: TaskResult }) {
  const [parts, grow] = useState([first]);
  const [busy, work] = useState(false);
  const next = parts.at(-1)?.next_output_offset ?? null;
  const more = async () => {
    work(true);
    try {
      grow([...parts, await call<TaskResult>("task_result", { task_id: id, output_offset: next })]);
    } catch (problem) {
      toast("bad", problem instanceof Refusal ? problem.message : String(problem));
    }
    work(false);
  };
  const text = parts.map((part) => part.output ?? "").join("");
  return (
    <>
      <Text
        label={first.output_encoding === "base64" ? "Output, in base64" : "Output"}
        text={text}
        name={`${id}.txt`}
      />
      {next !== null && (
        <button type="button" class="button" disabled={busy} onClick={() => void more()}>
          Show more of the output
        </button>
      )}
    </>
  );
}

function Logs({ text, live }: { text: string | null; live: boolean }) {
  return (
    <Card title="Log" aside={live && <span class="dim">the end of it, as it comes</span>} class="full">
      {text ? (
        <Text label="Standard error" text={text} follow={live} />
      ) : (
        <p class="dim">{live ? "Nothing was written yet." : "Nothing was written."}</p>
      )}
    </Card>
  );
}

interface TextProps {
  label: string;
  text: string;
  /** For saving it. */
  name?: string;
  /** Stay at the end, unless somebody reads above. */
  follow?: boolean;
}

function Text({ label, text, name, follow = false }: TextProps) {
  const box = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    if (follow && atEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text, follow]);
  const save = () => {
    const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = (name ?? "log.txt").replaceAll("/", "_");
    link.click();
    URL.revokeObjectURL(url);
  };
  return (
    <div class="text">
      <div class="row between">
        <span class="small dim">{label}</span>
        <span class="row">
          <button
            type="button"
            class="button quiet"
            onClick={() => void navigator.clipboard?.writeText(text).then(() => toast("good", "Copied"))}
          >
            Copy
          </button>
          {name && (
            <button type="button" class="button quiet" onClick={save}>
              Save
            </button>
          )}
        </span>
      </div>
      <pre
        ref={box}
        tabIndex={0}
        aria-label={label}
        onScroll={(event) => {
          const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
          atEnd.current = scrollHeight - scrollTop - clientHeight < 24;
        }}
      >
        {text}
      </pre>
    </div>
  );
}
