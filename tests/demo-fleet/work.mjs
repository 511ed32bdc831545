// Steady mixed work for a fleet: tasks, an array, a schedule, a workflow that
// waits for a person. What was accepted is remembered, to be counted later
// through another node.

import { execFile } from "node:child_process";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);
/** A node that is killed while it is asked does not answer; one that is busy may take a while. */
const PATIENCE_MS = 30_000;

export const ITEMS = 120;
export const APPROVAL = "release/approve";

const step = (step_id, action, inputs, depends_on = []) => ({ step_id, action, inputs, depends_on });
const shell = (script) => ({ argv: ["sh", "-c", script] });
const STEPS = [
  step("checkout", "exec", shell("sleep 0.5; echo 1042 files")),
  step("lint", "exec", shell("sleep 1; echo no complaints"), ["checkout"]),
  step("build", "exec", shell("sleep 2; echo 14 MiB"), ["checkout"]),
  step("test", "exec", shell("sleep 2; echo 812 passed"), ["build"]),
  step("docs", "exec", shell("sleep 1; echo 96 pages"), ["checkout"]),
  step("approve", "approve", { message: "All is built and tested. Publish it?" }, ["lint", "test", "docs"]),
  step("publish", "exec", shell("sleep 1; echo published"), ["approve"]),
  step("announce", "echo", { to: "everybody" }, ["publish"]),
];

export class Work {
  /** `mesh` has nodes 1 to 3; node 3 may go. */
  constructor(mesh) {
    this.mesh = mesh;
    /** Ids that a node has accepted. */
    this.accepted = [];
    /** Calls that got no answer, or a no. */
    this.refused = 0;
    this.ending = new AbortController();
  }

  /** What is submitted once, through different nodes. */
  begin() {
    const items = Array.from({ length: ITEMS }, (_, n) => ({ ms: 400 + 10 * (n % 40) }));
    this.mesh.submit(3, { task_type: "sleep", payload: { ms: 500 }, task_id: "thumbnails", tags: ["photos"], items });
    const cron = ["--cron", "*/3 * * * * *", "--timezone", "UTC"];
    this.mesh.call(2, "submit", "--id", "heartbeat", ...cron, "--", "sh", "-c", "echo alive");
    const given = STEPS.flatMap((step) => ["--step", JSON.stringify(step)]);
    this.mesh.call(1, "workflow", "submit", "Release 2.4", "--workflow-id", "release", ...given);
    this.steady = this.submit();
  }

  /** A task now and then, through each node that is up in turn, until `end`. */
  async submit() {
    for (let n = 1; !this.ending.signal.aborted; n += 1) {
      const nodes = [...this.mesh.nodes.keys()];
      await this.one(n, nodes[n % nodes.length]);
      await pause(150, undefined, { signal: this.ending.signal }).catch(() => {});
    }
  }

  async one(n, node) {
    const fails = n % 25 === 7;
    const id = `${fails ? "import" : n % 4 === 0 ? "resize" : "report"}-${String(n).padStart(4, "0")}`;
    const log = `echo "reading part ${n}" >&2; sleep ${(0.6 + (n % 7) / 5).toFixed(1)}; echo "done with part ${n}" >&2`;
    const script = fails ? `${log}; echo "part ${n} is damaged" >&2; exit 3` : `${log}; echo '{"rows": ${n * 37}}'`;
    const args = ["task", "submit", "exec", JSON.stringify({ argv: ["sh", "-c", script] }), "--task-id", id];
    args.push("--tag", fails ? "nightly" : "steady", "--priority", String(1 + (n % 3)));
    if (fails) args.push("--retry-policy", JSON.stringify({ max_retries: 0 }));
    try {
      await run(this.mesh.taskmesh, ["--data-dir", this.mesh.data(node), ...args], { timeout: PATIENCE_MS });
      this.accepted.push({ id, fails });
    } catch {
      this.refused += 1;
    }
  }

  /** Nothing new from now on: the schedule ends too. */
  async end() {
    this.ending.abort();
    await this.steady;
    this.mesh.call(1, "task", "cancel", "heartbeat");
  }

  /** Every task of the mesh by its id, as node `n` lists them. */
  list(n, ...filter) {
    const all = new Map();
    for (let cursor = []; cursor; ) {
      const page = this.mesh.json(n, "task", "list", "--limit", "1000", ...filter, ...cursor);
      for (const task of page.tasks) all.set(task.task_id, task);
      cursor = page.next_cursor && ["--cursor", page.next_cursor];
    }
    return all;
  }

  /** What was accepted and has not ended as it should, as node `n` sees it. */
  missing(n) {
    const known = this.list(n);
    const wanted = [
      ...this.accepted.map(({ id, fails }) => [id, fails ? "failed" : "completed"]),
      ...Array.from({ length: ITEMS }, (_, item) => [`thumbnails/${item}`, "completed"]),
      ...STEPS.map(({ step_id }) => [`release/${step_id}`, "completed"]),
    ];
    return wanted.filter(([id, status]) => known.get(id)?.status !== status).map(([id]) => id);
  }

  /** How many tasks that is. */
  get count() {
    return this.accepted.length + ITEMS + STEPS.length;
  }
}
