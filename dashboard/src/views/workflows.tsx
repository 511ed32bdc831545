// Workflows: the list, and one as a graph with its critical path.

import { useState } from "preact/hooks";
import { between, count, NONE, plural, pretty, span } from "../format.ts";
import { now, useSource } from "../live.ts";
import { call, Refusal, taskUri } from "../mcp.ts";
import { Action, cancelWorkflow } from "../parts/ask.tsx";
import {
  Ago,
  Answered,
  Card,
  Chip,
  Empty,
  Facts,
  Glyph,
  NodeLink,
  Skeleton,
  toast,
  Trouble,
} from "../parts/basics.tsx";
import { Dag, DRAWN, stepHref } from "../parts/dag.tsx";
import { Cell, order, Pager, Pages, Table } from "../parts/table.tsx";
import { place, to } from "../route.ts";
import type { Graph, Step, WorkflowPage, WorkflowStatus } from "../types.ts";

const STATES = [
  ["", "All"],
  ["submitted", "Submitted"],
  ["running", "Running"],
  ["completed", "Completed"],
  ["failed", "Failed"],
  ["cancelled", "Cancelled"],
] as const;
const pages = new Pages<WorkflowPage>("workflow_list", 50);

export function Workflows() {
  const { query } = place.value;
  const status = query.get("status") ?? "";
  const filter = { status_filter: status || undefined, ...order(query) };
  const n = pages.number(query, filter);
  const ask = (signal: AbortSignal) => pages.read(filter, n, signal);
  const source = useSource(`${JSON.stringify(filter)} ${n}`, ask, ["mesh://queue"], 10_000);
  const list = source.value.value;
  const href = (change: Record<string, string | undefined>) =>
    to(["workflows"], { status: status || undefined, order: query.get("order") ?? undefined, ...change });
  return (
    <>
      <div class="title">
        <h1>Workflows</h1>
      </div>
      <nav class="segments" aria-label="State">
        {STATES.map(([name, label]) => (
          <a
            key={name}
            href={href({ status: name || undefined })}
            aria-current={status === name ? "true" : undefined}
          >
            {label}
          </a>
        ))}
      </nav>
      {source.problem.value && <Trouble problem={source.problem.value} what="The workflows could not be listed." />}
      {list && <Answered answered={list.nodes_answered} expected={list.nodes_expected} />}
      <section class="card flush" aria-label="Workflows">
        {!list ? (
          !source.problem.value && <Skeleton lines={6} />
        ) : list.workflows.length === 0 ? (
          <Empty title={status ? "No workflow is in this state" : "No workflows yet"}>
            Hand one in: <code>taskmesh workflow run FILE</code>
          </Empty>
        ) : (
          <List list={list} />
        )}
        {list && (list.has_more || n > 0) && <Pager list={list} n={n} limit={pages.limit} query={query} href={href} />}
      </section>
    </>
  );
}

function List({ list }: { list: WorkflowPage }) {
  return (
    <Table of="workflows" columns={["Workflow", "State", "Progress", "#Steps", "Owner", "Submitted", "#Took"]}>
      {list.workflows.map((flow) => (
        <tr key={flow.workflow_id}>
          <th scope="row">
            <a href={to(["workflows", flow.workflow_id])}>{flow.name}</a>
            <small class="mono dim block">{flow.workflow_id}</small>
          </th>
          <td>
            <Chip status={flow.status} />
          </td>
          <Cell of="Progress">
            {flow.progress == null ? (
              NONE
            ) : (
              <span class="row">
                <progress max={100} value={flow.progress} aria-label={`Progress of ${flow.name}`} />
                <span class="figure small">{Math.round(flow.progress)} %</span>
              </span>
            )}
          </Cell>
          <Cell of="#Steps">{count(flow.step_count)}</Cell>
          <Cell of="Owner">
            <NodeLink id={flow.peer_id} />
          </Cell>
          <Cell of="Submitted" class="nowrap">
            <Ago at={flow.submitted_at} />
          </Cell>
          <Cell of="#Took">{span(between(flow.start_time, flow.end_time, now.value))}</Cell>
        </tr>
      ))}
    </Table>
  );
}

interface Whole {
  status: WorkflowStatus;
  graph: Graph;
}

export function WorkflowView({ id }: { id: string }) {
  const ask = async (signal: AbortSignal): Promise<Whole> => {
    const asked = { workflow_id: id };
    const [status, graph] = await Promise.all([
      call<WorkflowStatus>("workflow_status", { ...asked, include_metrics: true }, signal),
      call<Graph>("workflow_dependencies", asked, signal),
    ]);
    return { status, graph };
  };
  const source = useSource(id, ask, [taskUri(id), "mesh://queue"], 3_000);
  const got = source.value.value;
  const problem = source.problem.value;
  return (
    <>
      <nav class="crumbs" aria-label="Where this is">
        <a href={to(["workflows"])}>Workflows</a>
      </nav>
      {problem &&
        (problem.code === "not_found" ? (
          <Empty title={`There is no workflow ${id}`}>
            <a href={to(["workflows"])}>All workflows</a>
          </Empty>
        ) : (
          <Trouble problem={problem} what="This workflow could not be read." />
        ))}
      {!got && !problem && (
        <>
          <h1>{id}</h1>
          <Skeleton lines={8} />
        </>
      )}
      {got && <Body {...got} />}
    </>
  );
}

function Body({ status, graph }: Whole) {
  const over = ["completed", "failed", "cancelled", "expired"].includes(status.status);
  const steps = status.steps ?? [];
  const { metrics } = status;
  const asking = steps.filter((step) => step.status === "input_required");
  return (
    <>
      <div class="title">
        <div>
          <h1>{status.name}</h1>
          <p class="row wrap">
            <Chip status={status.status} />
            <span class="mono dim">{status.workflow_id}</span>
          </p>
        </div>
        {!over && (
          <Action operation="workflow_cancel" danger question={() => cancelWorkflow(status.workflow_id)}>
            Cancel
          </Action>
        )}
      </div>
      {status.error && <p class="note tone-bad">{status.error}</p>}
      {asking.map((step) => (
        <p key={step.step_id} class="note tone-warn" role="status">
          <Glyph status="input_required" />
          <span>
            <b class="mono">{step.step_id}</b> waits for somebody to approve it:{" "}
            <a href={stepHref(status.workflow_id, step.step_id, step)}>look and decide</a>
          </span>
        </p>
      ))}
      {status.progress != null && (
        <div class="progress">
          <progress max={100} value={status.progress} aria-label="Progress" />
          <span class="figure">{Math.round(status.progress)} %</span>
        </div>
      )}
      <div class="grid">
        <Card
          title="Steps"
          aside={
            <span class="key dim">
              <span>
                <i class="key-critical" />
                critical path
              </span>
            </span>
          }
          class="full"
        >
          {graph.nodes.length <= DRAWN ? (
            <Dag graph={graph} steps={steps} workflow={status.workflow_id} />
          ) : (
            <p class="dim">{count(graph.nodes.length)} steps are too many to draw: they are listed below.</p>
          )}
        </Card>
        <Card title="Times and ownership" class="half">
          <Facts
            of={[
              ["Submitted", <Ago key="s" at={metrics?.submitted_at ?? null} />],
              ["Waited for the first step", span(metrics?.wait_time)],
              [over ? "Took" : "Under way for", span(between(status.start_time, status.end_time, now.value))],
              ["Tasks", metrics ? `${count(metrics.tasks_ended)} of ${count(metrics.tasks)} ended` : NONE],
              ["Owner", <NodeLink key="o" id={status.peer_id} />],
              [
                "Holders",
                <span key="h" class="row wrap">
                  {metrics?.holders.map((holder) => (
                    <NodeLink key={holder} id={holder} />
                  ))}
                </span>,
              ],
              ["Ownership changed hands", metrics ? plural(metrics.epoch - 1, "time") : NONE],
            ]}
          />
        </Card>
        <Card
          title="Critical path"
          aside={
            metrics?.critical_path_time != null && (
              <span class="dim">
                {span(metrics.critical_path_time)}
                {over ? "" : " so far"}
              </span>
            )
          }
          class="half"
        >
          <ol class="path">
            {graph.critical_path.map((step) => {
              const known = steps.find((s) => s.step_id === step);
              return (
                <li key={step} class="row between">
                  <span class="mono">{step}</span>
                  <span class="row small dim nowrap">
                    {known && span(between(known.start_time, known.end_time, now.value))}
                    {known && <Chip status={known.status} />}
                  </span>
                </li>
              );
            })}
          </ol>
        </Card>
        <Card title="All steps" class="full flush">
          <Steps workflow={status.workflow_id} steps={steps} />
        </Card>
        {over && <Left id={status.workflow_id} />}
      </div>
    </>
  );
}

/** Rows at once: a workflow may have ten thousand. */
const ROWS = 100;

function Steps({ workflow, steps }: { workflow: string; steps: Step[] }) {
  const [most, show] = useState(ROWS);
  return (
    <>
      <Table of="steps" columns={["Step", "State", "Worker", "#Attempt", "#Tasks", "#Took"]}>
        {steps.slice(0, most).map((step) => (
          <tr key={step.step_id}>
            <th scope="row">
              {step.task_id ? (
                <a class="mono" href={stepHref(workflow, step.step_id, step)}>
                  {step.step_id}
                </a>
              ) : (
                <span class="mono">{step.step_id}</span>
              )}
              {step.error && <small class="block tone-bad">{step.error}</small>}
            </th>
            <td>
              <Chip status={step.status} />
            </td>
            <Cell of="Worker" class="mono small">
              {step.worker_id ?? NONE}
            </Cell>
            <Cell of="#Attempt">{step.attempt}</Cell>
            <Cell of="#Tasks">
              {step.tasks == null ? NONE : `${count(step.tasks_ended)} of ${count(step.tasks)}`}
            </Cell>
            <Cell of="#Took">{span(between(step.start_time, step.end_time, now.value))}</Cell>
          </tr>
        ))}
      </Table>
      {steps.length > most && (
        <p class="pager">
          <button type="button" class="button" onClick={() => show(most + 10 * ROWS)}>
            Show more of {count(steps.length)}
          </button>
        </p>
      )}
    </>
  );
}

/** What it left is asked for on demand: it may be large. */
function Left({ id }: { id: string }) {
  const [left, show] = useState<unknown>(undefined);
  const read = async () => {
    try {
      show((await call<{ result: unknown }>("workflow_result", { workflow_id: id, include_outputs: false })).result);
    } catch (problem) {
      toast("bad", problem instanceof Refusal ? problem.message : String(problem));
    }
  };
  return (
    <Card title="Result" class="full">
      {left === undefined ? (
        <button type="button" class="button" onClick={() => void read()}>
          Show the result
        </button>
      ) : (
        <pre tabIndex={0} aria-label="Result">
          {pretty(left)}
        </pre>
      )}
    </Card>
  );
}
