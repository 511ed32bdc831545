// Real nodes on this machine, each with a data folder of its own.

import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, openSync, readFileSync, existsSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

/** A node that is not up by then is not coming. */
const PATIENCE_MS = 60_000;

export class Mesh {
  /** `settings` are those of every node, as `--set` takes them. */
  constructor(taskmesh, folder, settings = []) {
    this.taskmesh = taskmesh;
    this.folder = folder;
    this.settings = settings.flatMap((setting) => ["--set", setting]);
    this.nodes = new Map();
    mkdirSync(folder, { recursive: true });
  }

  async start(count) {
    await this.up(1);
    await Promise.all(Array.from({ length: count - 1 }, (_, n) => this.up(n + 2)));
    await until(
      () => this.json(1, "peer", "list").peers.filter((p) => p.status === "connected").length === count - 1,
      "all are connected",
    );
    await until(
      () => this.json(1, "queue", "stats", "--include-worker-stats").worker_stats.length === count,
      "all workers are known",
    );
  }

  async up(n) {
    const log = openSync(`${this.folder}/${n}.log`, "a");
    const join = n === 1 ? [] : ["--join", this.info(1).invite];
    const args = [
      "up",
      "--data-dir",
      this.data(n),
      "--listen",
      "/ip4/127.0.0.1/tcp/0",
      "--api",
      "127.0.0.1:0",
      "--metrics",
      "127.0.0.1:0",
    ];
    const node = spawn(this.taskmesh, [...args, ...this.settings, "--slots", "4", "--exec-allow", "sh", ...join], {
      stdio: ["ignore", log, log],
    });
    this.nodes.set(n, node);
    await until(() => {
      if (node.exitCode !== null)
        throw new Error(`node ${n} ended: ${readFileSync(`${this.folder}/${n}.log`, "utf8")}`);
      return existsSync(`${this.data(n)}/node.json`);
    }, `node ${n} is up`);
  }

  data(n) {
    return `${this.folder}/${n}`;
  }

  info(n) {
    return JSON.parse(readFileSync(`${this.data(n)}/node.json`, "utf8"));
  }

  peer(n) {
    return this.info(n).peer_id;
  }

  /** Of a busy machine others may have heard nothing for a moment. */
  async worker(n) {
    let found;
    await until(() => {
      const { worker_stats } = this.json(1, "queue", "stats", "--include-worker-stats");
      found = worker_stats.find((worker) => worker.node === this.peer(n));
      return found;
    }, `the worker of node ${n} is known`);
    return found.worker_id;
  }

  call(n, ...args) {
    const done = spawnSync(this.taskmesh, ["--data-dir", this.data(n), ...args], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
      maxBuffer: 1 << 26,
    });
    // The whole command may have ten thousand arguments.
    const called = args.slice(0, 4).join(" ");
    if (done.status !== 0) throw new Error(`node ${n}: taskmesh ${called} … ended with ${done.status}`);
    return done.stdout;
  }

  json(n, ...args) {
    return JSON.parse(this.call(n, "--json", ...args));
  }

  /** Submits by the command line, with whatever `task_submit` takes. */
  submit(n, { task_type, payload, task_id, tags = [], not_before, items = [], retry_policy }) {
    const flags = ["--task-id", task_id, ...tags.flatMap((tag) => ["--tag", tag])];
    if (not_before) flags.push("--not-before", not_before);
    if (retry_policy) flags.push("--retry-policy", JSON.stringify(retry_policy));
    flags.push(...items.flatMap((item) => ["--item", JSON.stringify(item)]));
    this.call(n, "task", "submit", task_type, JSON.stringify(payload), ...flags);
  }

  /** The address that a person would open. */
  dashboard(n, ...flags) {
    return this.call(n, "dashboard", ...flags).trim();
  }

  /** The same without a token. */
  page(n) {
    return this.info(n).api_url.replace(/\/mcp$/, "/dashboard/");
  }

  async kill(n) {
    const node = this.nodes.get(n);
    this.nodes.delete(n);
    if (node.exitCode !== null) return;
    const ended = new Promise((resolve) => node.once("exit", resolve));
    node.kill("SIGKILL");
    await ended;
  }

  async stop() {
    await Promise.all([...this.nodes.keys()].map((n) => this.kill(n)));
  }
}

/** Waits for what must come true, and says what did not. */
export async function until(holds, what, within = PATIENCE_MS) {
  const deadline = Date.now() + within;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not within ${within} ms: ${what}`);
    await pause(200);
  }
}
