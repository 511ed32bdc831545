// Workflows: the list, and one as a graph with its critical path.

import { useState } from "preact/hooks";
import { between, count, NONE, plural, pretty, span } from "../format.ts";
import { now, useSource } from "../live.ts";
import { call, Refusal, taskUri } from "../mcp.ts";
import { Action, cancelWorkflow } from "../parts/ask.tsx";
import { Ago, Answered, Card, Chip, Empty, Facts, NodeLink, Skeleton, toast, Trouble } from "../parts/basics.tsx";
import { Dag, DRAWN, stepHref } from "../parts/dag.tsx";
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
const LIMIT = 50;

export function Workflows() {
  const { query } = place.value;
  const status = query.get("status") ?? "";
  const [trail, follow] = useState<string[]>([]);
  const cursor = trail.at(-1);
  const ask = (signal: AbortSignal) =>
    call<WorkflowPage>("workflow_list", { status_filter: status || undefined, limit: LIMIT, cursor }, signal);
  const source = useSource(`${status} ${cursor ?? ""}`, ask, ["mesh://queue"], 10_000);
  const list = source.value.value;
  return (
    <>
      <div class="title">
        <h1>Workflows</h1>
      </div>
      <nav class="segments" aria-label="State">
        {STATES.map(([name, label]) => (
          <a
            key={name}
            href={to(["workflows"], { status: name || undefined })}
            aria-current={status === name ? "true" : undefined}
            onClick={() => follow([])}
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
        {list && (list.has_more || trail.length > 0) && (
          <nav class="pager" aria-label="Pages">
            <span class="dim">{plural(list.total_count, "workflow")}, oldest first</span>
            <span class="row">
              <button
                type="button"
                class="button"
                disabled={trail.length === 0}
                onClick={() => follow(trail.slice(0, -1))}
              >
                Previous
              </button>
              <button
                type="button"
                class="button"
                disabled={!list.next_cursor}
                onClick={() => list.next_cursor && follow([...trail, list.next_cursor])}
              >
                Next
              </button>
            </span>
          </nav>
        )}
      </section>
    </>
  );
}

function List({ list }: { list: WorkflowPage }) {
  return (
    <div class="table" tabIndex={0} role="group" aria-label="Table of workflows">
      <table>
        <thead>
          <tr>
            <th scope="col">Workflow</th>
            <th scope="col">State</th>
            <th scope="col">Progress</th>
            <th scope="col" class="number">
              Steps
            </th>
            <th scope="col">Owner</th>
            <th scope="col">Submitted</th>
            <th scope="col" class="number">
              Took
            </th>
          </tr>
        </thead>
        <tbody>
          {list.workflows.map((flow) => (
            <tr key={flow.workflow_id}>
              <th scope="row">
                <a href={to(["workflows", flow.workflow_id])}>{flow.name}</a>
                <small class="mono dim block">{flow.workflow_id}</small>
              </th>
              <td>
                <Chip status={flow.status} />
              </td>
              <td data-name="Progress">
                {flow.progress == null ? (
                  NONE
                ) : (
                  <span class="row">
                    <progress max={100} value={flow.progress} aria-label={`Progress of ${flow.name}`} />
                    <span class="figure small">{Math.round(flow.progress)} %</span>
                  </span>
                )}
              </td>
              <td data-name="Steps" class="number">
                {count(flow.step_count)}
              </td>
              <td data-name="Owner">
                <NodeLink id={flow.peer_id} />
              </td>
              <td data-name="Submitted" class="nowrap">
                <Ago at={flow.submitted_at} />
              </td>
              <td data-name="Took" class="number nowrap">
                {span(between(flow.start_time, flow.end_time, now.value))}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
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
            metrics?.critical_path_time != null && <span class="dim">{span(metrics.critical_path_time)} so far</span>
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
      <div class="table" tabIndex={0} role="group" aria-label="Table of steps">
        <table>
          <thead>
            <tr>
              <th scope="col">Step</th>
              <th scope="col">State</th>
              <th scope="col">Worker</th>
              <th scope="col" class="number">
                Attempt
              </th>
              <th scope="col" class="number">
                Tasks
              </th>
              <th scope="col" class="number">
                Took
              </th>
            </tr>
          </thead>
          <tbody>
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
                <td data-name="Worker" class="mono small">
                  {step.worker_id ?? NONE}
                </td>
                <td data-name="Attempt" class="number">
                  {step.attempt}
                </td>
                <td data-name="Tasks" class="number">
                  {step.tasks == null ? NONE : `${count(step.tasks_ended)} of ${count(step.tasks)}`}
                </td>
                <td data-name="Took" class="number nowrap">
                  {span(between(step.start_time, step.end_time, now.value))}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
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
