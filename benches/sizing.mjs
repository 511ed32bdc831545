// What a node needs, for the sizing table of docs/performance.md:
//
//     node benches/sizing.mjs TASKMESH FOLDER [idle|tasks]
//
// `idle`: meshes of 1, 3 and 10 nodes with nothing to do. `tasks`: one node, then
// each of three, with tasks that wait and with tasks that have ended. Memory,
// file descriptors and processor time are what the node says of itself, bytes
// are those of all its connections (libp2p's own count), disk is what its folder
// takes. Nothing is left but the folder.

import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Mesh, until } from "../tests/dashboard/mesh.mjs";

const [taskmesh, folder] = process.argv.slice(2, 4).map((path) => resolve(path));
const wanted = process.argv[4];
const QUIET = ["log.level=warn"];
/** How long a mesh at rest is watched. */
const WATCHED_S = 60;
/** Calls under way at once. */
const CALLERS = 48;

/** The sum of a metric of node `n` over all its labels. */
async function metrics(mesh, n) {
  const text = await (await fetch(`${mesh.info(n).metrics_url}/metrics`)).text();
  return (name) => {
    const found = [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, "gm"))];
    return found.reduce((sum, [, value]) => sum + Number(value), 0);
  };
}

function mib(bytes) {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
function disk(mesh, n) {
  const [kib] = execFileSync("du", ["-sk", `${mesh.data(n)}/store`], { encoding: "utf8" }).split("\t");
  return Number(kib) * 1024;
}
function each(values, show) {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [show(sorted[0]), show(sorted.at(-1))];
  return low === high ? low : `${low} to ${high}`;
}

async function started(count, name) {
  rmSync(`${folder}/${name}`, { recursive: true, force: true });
  const mesh = new Mesh(taskmesh, `${folder}/${name}`, QUIET);
  running = mesh;
  await mesh.start(count);
  return mesh;
}

async function idle(count) {
  const mesh = await started(count, `idle-${count}`);
  await pause(15_000);
  const nodes = [...mesh.nodes.keys()];
  const look = () => Promise.all(nodes.map((n) => metrics(mesh, n)));
  const before = await look();
  await pause(WATCHED_S * 1000);
  const after = await look();
  const rate = (name) => after.map((now, n) => (now(name) - before[n](name)) / WATCHED_S);
  const now = (name) => after.map((of) => of(name));
  console.log(`${count} at rest:`);
  console.log(`  resident         ${each(now("process_resident_memory_bytes"), mib)}`);
  console.log(`  file descriptors ${each(now("process_open_fds"), String)}`);
  console.log(`  threads          ${each(now("process_threads"), String)}`);
  console.log(`  processor        ${each(rate("process_cpu_seconds_total"), (s) => `${(100 * s).toFixed(1)} %`)}`);
  console.log(`  in and out       ${each(rate("libp2p_bandwidth_bytes_total"), (b) => `${Math.round(b)} B/s`)}`);
  await mesh.stop();
}

/** One call of an operation of node `n`. */
async function call(mesh, n, token, name, args) {
  const version = "2026-07-28";
  const meta = {
    "io.modelcontextprotocol/protocolVersion": version,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": { name: "sizing", version: "1" },
  };
  const said = await fetch(mesh.info(n).api_url, {
    method: "POST",
    headers: {
      accept: "application/json, text/event-stream",
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      "mcp-protocol-version": version,
      "mcp-method": "tools/call",
      "mcp-name": name,
    },
    body: JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: { name, arguments: args, _meta: meta },
    }),
  });
  const answer = await said.json();
  if (answer.result?.structuredContent?.success !== true) throw new Error(JSON.stringify(answer));
}

async function submit(mesh, from, to) {
  const token = readFileSync(`${mesh.data(1)}/token`, "utf8").trim();
  let next = from;
  const caller = async () => {
    while (next < to) {
      const n = next++;
      const task = { task_type: "echo", payload: { n, text: "a few words, as they come" }, task_id: `task-${n}` };
      await call(mesh, 1, token, "task_submit", task);
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
}

async function tasks(count, amounts) {
  const mesh = await started(count, `tasks-${count}`);
  const nodes = [...mesh.nodes.keys()];
  const say = async (what) => {
    const read = await Promise.all(nodes.map((n) => metrics(mesh, n)));
    const resident = read.map((of) => of("process_resident_memory_bytes"));
    const disks = nodes.map((n) => disk(mesh, n));
    console.log(`  ${what.padEnd(22)} resident ${each(resident, mib)}, store ${each(disks, mib)}`);
  };
  console.log(`${count} with tasks:`);
  await say("none");
  mesh.call(1, "queue", "pause");
  let there = 0;
  for (const amount of amounts) {
    await submit(mesh, there, amount);
    there = amount;
    await pause(5_000);
    await say(`${amount} wait`);
  }
  mesh.call(1, "queue", "resume");
  await until(() => mesh.json(1, "queue", "stats").completed_count >= there, "all have ended", 900_000);
  await pause(10_000);
  await say(`${there} have ended`);
  await mesh.stop();
}

let running;
process.on("SIGINT", () => void running?.stop().finally(() => process.exit(1)));
try {
  if (wanted !== "tasks") for (const count of [1, 3, 10]) await idle(count);
  if (wanted !== "idle") await tasks(1, [10_000, 100_000]);
  if (wanted !== "idle") await tasks(3, [10_000]);
} finally {
  await running?.stop();
}
