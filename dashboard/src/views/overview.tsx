// The mesh at a glance.

import type { ComponentChildren } from "preact";
import { flows } from "../fleet.ts";
import { between, compact, count, plural, short8, span, whole, words } from "../format.ts";
import { mesh, now, peers, queue, running } from "../live.ts";
import { happenings, samples } from "../memory.ts";
import { Action, pauseQueue, resumeQueue } from "../parts/ask.tsx";
import { Ago, Answered, Card, Chip, Empty, Glyph, Skeleton, TaskLink, Trouble } from "../parts/basics.tsx";
import { Chart } from "../parts/chart.tsx";
import { MeshGraph } from "../parts/meshgraph.tsx";
import { Slots } from "../parts/table.tsx";
import { to } from "../route.ts";
import type { Stats, Task } from "../types.ts";
import { Happenings } from "./events.tsx";

export function Overview() {
  const stats = queue.value.value;
  const problem = queue.problem.value;
  return (
    <>
      <div class="title">
        <h1>Overview</h1>
        {stats &&
          (stats.paused ? (
            <Action operation="queue_resume" question={resumeQueue}>
              Resume the queue
            </Action>
          ) : (
            <Action operation="queue_pause" question={pauseQueue}>
              Pause the queue
            </Action>
          ))}
      </div>
      {problem && <Trouble problem={problem} what="The state of the mesh is not known." />}
      {stats?.paused && (
        <p class="note tone-warn" role="status">
          <Glyph status="expired" />
          <span>
            <b>The queue is paused</b> <Ago at={stats.paused_at} />
            {stats.pause_reason ? `: ${stats.pause_reason}` : "."} Nothing new starts on any node.
          </span>
        </p>
      )}
      {stats && <Answered answered={stats.nodes_answered} expected={stats.nodes_expected} />}
      <Tiles stats={stats} />
      <div class="grid">
        <MeshCard />
        <WorkersCard stats={stats} />
        <DepthCard />
        <EndedCard stats={stats} />
        <RunningCard />
        <Card title="Latest events" aside={<a href={to(["events"])}>All events</a>} class="half">
          <Happenings most={7} list={happenings.value} />
        </Card>
      </div>
    </>
  );
}

function Tiles({ stats }: { stats: Stats | null }) {
  const n = (pick: (stats: Stats) => number | null | undefined) => (stats ? compact(pick(stats)) : " ");
  const waiting = stats && stats.queued_count + stats.delayed_count + stats.blocked_count;
  const parts =
    stats &&
    [
      [stats.delayed_count, "delayed"],
      [stats.blocked_count, "blocked"],
    ]
      .filter(([n]) => n)
      .map(([n, what]) => `${count(n as number)} ${what}`)
      .join(", ");
  return (
    <ul class="tiles" aria-label="Figures">
      <Tile
        name="Waiting"
        value={n(() => waiting)}
        note={
          parts || (stats?.oldest_queued_age != null ? `oldest ${span(stats.oldest_queued_age)}` : "nothing is held up")
        }
        status="queued"
        href={to(["tasks"], { status: "queued" })}
      />
      <Tile
        name="Running"
        value={n((s) => s.running_count)}
        note={stats?.average_execution_time != null ? `${span(stats.average_execution_time)} a run` : "no run lately"}
        status="running"
        href={to(["tasks"], { status: "running" })}
      />
      <Tile name="Ended a minute" value={n((s) => s.throughput)} note="over 5 minutes" status="submitted" plain />
      <Tile
        name="Waits for a start"
        value={stats ? span(stats.average_wait_time) : " "}
        note="mean of 5 minutes"
        status="submitted"
        plain
      />
      <Tile
        name="Completed"
        value={n((s) => s.completed_count)}
        note="and still kept"
        status="completed"
        href={to(["tasks"], { status: "completed" })}
      />
      <Tile
        name="Failed"
        value={n((s) => s.failed_count)}
        note={stats && stats.expired_count > 0 ? `${count(stats.expired_count)} expired` : "attempts used up"}
        status={stats && stats.failed_count > 0 ? "failed" : "skipped"}
        href={to(["tasks"], { status: "failed" })}
      />
    </ul>
  );
}

interface TileProps {
  name: string;
  value: string;
  note: string;
  status: string;
  href?: string;
  plain?: boolean;
}

function Tile({ name, value, note, status, href, plain = false }: TileProps) {
  const inner: ComponentChildren = (
    <>
      <span class="tile-name">
        {!plain && <Glyph status={status} />}
        {name}
      </span>
      <b>{value}</b>
      <small>{note}</small>
    </>
  );
  return (
    <li>
      {href ? (
        <a class="tile" href={href}>
          {inner}
        </a>
      ) : (
        <div class="tile">{inner}</div>
      )}
    </li>
  );
}

function MeshCard() {
  const nodes = mesh();
  const problem = peers.problem.value;
  if (!nodes)
    return (
      <Card title="Mesh" class="wide tall">
        {problem ? <Trouble problem={problem} what="The peers are not known." /> : <Skeleton lines={8} />}
      </Card>
    );
  const own = nodes.find((node) => node.own);
  const lost = nodes.filter((node) => node.health === "down").length;
  const aside = (
    <span class={lost > 0 ? "tone-bad strong" : "dim"}>
      {lost > 0 ? `${plural(lost, "node")} lost` : plural(nodes.length, "node")}
    </span>
  );
  return (
    <Card title="Mesh" aside={aside} class="wide tall">
      <MeshGraph nodes={nodes} flows={flows(running.value.value?.tasks ?? [], nodes)} />
      <p class="key dim">
        <span>
          <i class="key-ring" />
          slots in use
        </span>
        <span>
          <i class="key-link" />
          links of {own ? short8(own.id) : "this node"} alone, with ping round trip
        </span>
        <span>
          <i class="key-flow" />
          owner → who runs its tasks
        </span>
      </p>
    </Card>
  );
}

/** What a waiting task waits for, of the reasons that an explanation has. */
const REASONS: Record<string, string> = {
  dependency: "for other tasks",
  delay: "for a time",
  paused: "the queue is paused",
  unreachable: "for a majority of holders",
  no_worker: "there is no worker",
  capability: "no worker can run it",
  label: "no worker has its labels",
  resource: "no worker is large enough",
  draining: "its workers drain",
  limit: "a limit of the mesh",
  slot: "for a free slot",
  room: "for free resources",
  reserved: "room is kept for another",
  fairness: "its share is used up",
  order: "others go first",
  next: "about to start",
};

function WorkersCard({ stats }: { stats: Stats | null }) {
  const workers = (mesh() ?? []).flatMap((node) => node.workers);
  workers.sort((a, b) => a.worker_id.localeCompare(b.worker_id));
  const waiting = Object.entries(stats?.waiting ?? {}).sort((a, b) => b[1] - a[1]);
  return (
    <Card title="Workers" aside={<a href={to(["nodes"])}>All nodes</a>} class="narrow tall">
      {!stats && <Skeleton lines={6} />}
      {mesh() && workers.length === 0 && (
        <Empty title="No workers">
          Start a node with <code>taskmesh up</code>; one with <code>--slots 0</code> has none.
        </Empty>
      )}
      <ul class="rows scroll" tabIndex={workers.length > 6 ? 0 : undefined} aria-label="Workers">
        {workers.map((worker) => (
          <li key={worker.worker_id}>
            <div class="row between">
              <a class="mono" href={to(["nodes", worker.node])}>
                {worker.worker_id}
              </a>
              <Chip status={worker.status} />
            </div>
            <div class="row between small dim">
              <Slots busy={worker.running_tasks} of={worker.max_concurrent_tasks} />
            </div>
          </li>
        ))}
      </ul>
      {waiting.length > 0 && (
        <>
          <h3>Why tasks wait</h3>
          <ul class="rows tight">
            {waiting.slice(0, 4).map(([reason, tasks]) => (
              <li key={reason} class="row between">
                <span>{REASONS[reason] ?? words(reason)}</span>
                <b class="figure">{count(tasks)}</b>
              </li>
            ))}
          </ul>
        </>
      )}
    </Card>
  );
}

function DepthCard() {
  const list = samples.value;
  const data: [number[], number[], number[]] = [
    list.map((s) => s.at / 1000),
    list.map((s) => s.waiting),
    list.map((s) => s.running),
  ];
  return (
    <Card title="Queue" aside={<span class="dim">since this page was opened</span>} class="half">
      {list.length === 0 ? (
        <Skeleton lines={5} />
      ) : (
        <Chart
          title="Tasks that wait and run"
          data={data}
          series={[
            { label: "Waiting", colour: "wait" },
            { label: "Running", colour: "run" },
          ]}
        />
      )}
    </Card>
  );
}

function EndedCard({ stats }: { stats: Stats | null }) {
  const minutes = stats?.historical ?? [];
  const last = minutes.at(-1);
  const filled = last ? filledUp(minutes) : [];
  const data: [number[], number[], number[]] = [
    filled.map((m) => m.at),
    filled.map((m) => m.ended),
    filled.map((m) => m.failed),
  ];
  return (
    <Card title="Throughput" aside={<span class="dim">ended in each minute of the last hour</span>} class="half">
      {!stats ? (
        <Skeleton lines={5} />
      ) : minutes.length === 0 ? (
        <Empty title="Nothing ended in the last hour">
          Hand something in: <code>taskmesh submit -- sha256sum /etc/hostname</code>
        </Empty>
      ) : (
        <Chart
          title="Tasks that ended in each minute"
          data={data}
          series={[
            { label: "Ended", colour: "good", bars: true },
            { label: "of these failed", colour: "bad", bars: true },
          ]}
        />
      )}
    </Card>
  );
}

/** Minutes in which nothing ended are left out of the answer: they are zero. */
function filledUp(
  minutes: { minute: string; ended: number; failed: number }[],
): { at: number; ended: number; failed: number }[] {
  const known = new Map(minutes.map((m) => [Math.floor(Date.parse(m.minute) / 60_000), m]));
  const end = Math.floor(now.peek() / 60_000);
  return Array.from({ length: 60 }, (_, n) => {
    const minute = end - 59 + n;
    const { ended, failed } = known.get(minute) ?? { ended: 0, failed: 0 };
    return { at: minute * 60, ended, failed };
  });
}

function RunningCard() {
  const page = running.value.value;
  return (
    <Card
      title="Running now"
      aside={<a href={to(["tasks"], { status: "running" })}>{page ? `All ${count(page.total_count)}` : "All"}</a>}
      class="half"
    >
      {!page ? (
        <Skeleton lines={5} />
      ) : page.tasks.length === 0 ? (
        <Empty title="Nothing runs">Tasks show up here while they run.</Empty>
      ) : (
        <ul class="rows">
          {page.tasks.slice(0, 7).map((task) => (
            <RunningRow key={task.task_id} task={task} />
          ))}
        </ul>
      )}
    </Card>
  );
}

function RunningRow({ task }: { task: Task }) {
  return (
    <li class="row between">
      <TaskLink id={task.task_id} />
      <span class="row dim small nowrap">
        {task.worker_id && (
          <a class="mono" href={to(["nodes", task.worker_id])}>
            {task.worker_id}
          </a>
        )}
        <span class="figure">{whole(between(task.start_time, null, now.value))}</span>
      </span>
    </li>
  );
}
