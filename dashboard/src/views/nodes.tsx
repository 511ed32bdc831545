// Nodes with their workers, and one of them as this node measured it.

import type { FleetNode } from "../fleet.ts";
import { bytes, compact, count, millis, moment, NONE, plural, short8, span } from "../format.ts";
import { mesh, now, peers, queue, running, useSource } from "../live.ts";
import { call } from "../mcp.ts";
import { Action, drainWorker } from "../parts/ask.tsx";
import { Ago, Card, Chip, Empty, Facts, NodeLink, Skeleton, TaskLink, Trouble } from "../parts/basics.tsx";
import { Chart } from "../parts/chart.tsx";
import { Cell, Slots, Table } from "../parts/table.tsx";
import { to } from "../route.ts";
import type { PeerMetrics, Worker } from "../types.ts";

export function Nodes() {
  const nodes = mesh();
  const problem = peers.problem.value ?? queue.problem.value;
  return (
    <>
      <div class="title">
        <h1>Nodes</h1>
      </div>
      {problem && <Trouble problem={problem} what="The nodes are not known." />}
      <section class="card flush" aria-label="Nodes">
        {!nodes ? !problem && <Skeleton lines={6} /> : <Rows nodes={nodes} />}
      </section>
      {nodes && nodes.length === 1 && (
        <p class="dim lead">
          This node is alone. Another joins with the invite that <code>taskmesh invite</code> prints:{" "}
          <code>taskmesh up --join INVITE</code>
        </p>
      )}
      <h2 class="apart">Workers</h2>
      <section class="card flush" aria-label="Workers">
        {nodes ? <Workers workers={nodes.flatMap((node) => node.workers)} /> : <Skeleton lines={6} />}
      </section>
    </>
  );
}

function Rows({ nodes }: { nodes: FleetNode[] }) {
  return (
    <Table of="nodes" columns={["Node", "State", "Address", "#Round trip", "#Answers", "Slots", "Last heard"]}>
      {nodes.map((node) => (
        <tr key={node.id} data-node={node.id} data-health={node.health}>
          <th scope="row">
            <NodeLink id={node.id} own={node.own} />
          </th>
          <td>
            <Health of={node} />
          </td>
          <Cell of="Address" class="mono small">
            {node.peer?.multiaddr ?? NONE}
          </Cell>
          <Cell of="#Round trip">{node.health === "down" ? NONE : millis(node.peer?.metrics.latency_ms)}</Cell>
          <Cell of="#Answers">
            {node.health === "down" ? NONE : percent(node.peer?.metrics.reliability_score)}
          </Cell>
          <Cell of="Slots">
            {node.slots === 0 ? (
              NONE
            ) : (
              <span class="row">
                <Slots busy={node.busy} of={node.slots} />
              </span>
            )}
          </Cell>
          <Cell of="Last heard" class="nowrap">
            {node.own ? "now" : <Ago at={node.peer?.last_seen ?? null} />}
          </Cell>
        </tr>
      ))}
    </Table>
  );
}

function Health({ of }: { of: FleetNode }) {
  return <Chip status={of.health === "up" ? "connected" : of.health === "down" ? "disconnected" : "draining"} />;
}

function percent(part: number | null | undefined): string {
  return part == null ? NONE : `${Math.round(part * 1000) / 10} %`;
}

function Workers({ workers }: { workers: Worker[] }) {
  if (workers.length === 0)
    return (
      <Empty title="No workers">
        A node started with <code>--slots 0</code> runs nothing itself.
      </Empty>
    );
  return (
    <Table of="workers" columns={WORKER}>
      {workers.map((worker) => (
        <tr key={worker.worker_id}>
          <th scope="row">
            <a class="mono" href={to(["nodes", worker.node])}>
              {worker.worker_id}
            </a>
          </th>
          <td>
            <Chip status={worker.status} />
          </td>
          <Cell of="Slots">
            <span class="row">
              <Slots busy={worker.running_tasks} of={worker.max_concurrent_tasks} />
            </span>
          </Cell>
          <Cell of="Runs" class="small">
            {worker.capabilities.join(", ")}
          </Cell>
          <Cell of="#Processor">
            {worker.metrics?.cpu_percent == null ? NONE : `${Math.round(worker.metrics.cpu_percent)} %`}
          </Cell>
          <Cell of="#Memory">
            {worker.metrics?.memory_mb == null ? NONE : bytes(worker.metrics.memory_mb * 1024 * 1024)}
          </Cell>
          <Cell of="#Load">{compact(worker.metrics?.load1)}</Cell>
          <Cell of="#Completed">{count(worker.completed_tasks)}</Cell>
          <Cell of="#Failed">{count(worker.failed_tasks)}</Cell>
          <td class="actions">
            {worker.status !== "offline" && worker.status !== "draining" && (
              <Action operation="worker_unregister" question={() => drainWorker(worker.worker_id)}>
                Drain
              </Action>
            )}
          </td>
        </tr>
      ))}
    </Table>
  );
}

const WORKER = [
  "Worker",
  "State",
  "Slots",
  "Runs",
  "#Processor",
  "#Memory",
  "#Load",
  "#Completed",
  "#Failed",
  "(Actions)",
];

export function NodeView({ id }: { id: string }) {
  const nodes = mesh();
  // Names of workers end as the ids of their nodes do.
  const node = nodes?.find(
    (node) => node.id === id || node.id.endsWith(id) || node.workers.some((worker) => worker.worker_id === id),
  );
  return (
    <>
      <nav class="crumbs" aria-label="Where this is">
        <a href={to(["nodes"])}>Nodes</a>
      </nav>
      {!nodes && (
        <>
          <h1 class="mono id">{short8(id)}</h1>
          <Skeleton lines={8} />
        </>
      )}
      {nodes && !node && (
        <Empty title={`No node ${id} is known here`}>
          <a href={to(["nodes"])}>All nodes</a>
        </Empty>
      )}
      {node && <Body key={node.id} node={node} />}
    </>
  );
}

function Body({ node }: { node: FleetNode }) {
  const tasks = (running.value.value?.tasks ?? []).filter(
    (task) => task.home_node === node.id || node.workers.some((w) => w.worker_id === task.worker_id),
  );
  const runs = (worker: string | null) => node.workers.some((w) => w.worker_id === worker);
  return (
    <>
      <div class="title">
        <div>
          <h1 class="mono id">
            {short8(node.id)}
            {node.own && <span class="tag">this node</span>}
          </h1>
          <p class="row wrap">
            <Health of={node} />
            <span class="mono small dim break">{node.id}</span>
          </p>
        </div>
      </div>
      <div class="grid">
        {node.own ? (
          <Card title="Link" class="full">
            <p class="dim">This page is served by this node. Ask another node for its view of it.</p>
          </Card>
        ) : (
          <Link id={node.id} />
        )}
        <Card title="Workers" class="full flush">
          <Workers workers={node.workers} />
        </Card>
        <Card title="Running tasks" aside={<span class="dim">{plural(tasks.length, "task")}</span>} class="full">
          {tasks.length === 0 ? (
            <p class="dim">It runs nothing, and owns nothing that runs.</p>
          ) : (
            <ul class="rows">
              {tasks.slice(0, 50).map((task) => (
                <li key={task.task_id} class="row between">
                  <TaskLink id={task.task_id} />
                  <span class="dim small nowrap">
                    {runs(task.worker_id) ? (task.home_node === node.id ? "runs and owns" : "runs") : "owns"}
                  </span>
                </li>
              ))}
            </ul>
          )}
        </Card>
      </div>
    </>
  );
}

function Link({ id }: { id: string }) {
  const source = useSource(
    id,
    (signal) => call<PeerMetrics>("peer_metrics", { peer_id: id, include_history: true, history_hours: 1 }, signal),
    ["mesh://peers"],
    10_000,
  );
  const got = source.value.value;
  if (!got)
    return (
      <Card title="Link" class="full">
        {source.problem.value ? (
          <Trouble problem={source.problem.value} what="Nothing is known of this link." />
        ) : (
          <Skeleton lines={6} />
        )}
      </Card>
    );
  const { current_metrics: metrics, connection_info: info, history } = got;
  const points = history ?? [];
  const data: [number[], (number | null)[]] = [
    points.map((p) => Date.parse(p.timestamp) / 1000),
    points.map((p) => p.latency_ms),
  ];
  return (
    <>
      <Card title="Link from this node" class="half">
        <Facts
          of={[
            ["Connected since", moment(info.connected_since, now.value)],
            ["Last heard", <Ago key="l" at={info.last_active} />],
            ["Round trip", millis(metrics.latency_ms)],
            ["Pings lost", metrics.packet_loss_percent == null ? NONE : `${compact(metrics.packet_loss_percent)} %`],
            ["Answers", percent(metrics.reliability_score)],
            ["Moved both ways", bytes(metrics.bytes_transferred)],
            ["Up for", metrics.uptime_hours == null ? NONE : span(metrics.uptime_hours * 3600)],
            ["Program", info.peer_type ?? NONE],
            ["Protocol", info.protocol_version ?? NONE],
          ]}
        />
      </Card>
      <Card title="Round trip" aside={<span class="dim">the last hour</span>} class="half">
        {points.length < 2 ? (
          <Empty title="Not measured for long enough" />
        ) : (
          <Chart title="Ping round trip" unit=" ms" data={data} series={[{ label: "Round trip", colour: "run" }]} />
        )}
      </Card>
    </>
  );
}
