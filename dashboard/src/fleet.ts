// The nodes of the mesh, put together from what is known of peers, workers and
// running tasks. Links are those of the node that serves the page: it measures
// no others.

import type { Peer, Task, Worker } from "./types.ts";

export type Health = "up" | "draining" | "down";

export interface FleetNode {
  id: string;
  own: boolean;
  health: Health;
  peer: Peer | null;
  workers: Worker[];
  slots: number;
  busy: number;
  /** Running tasks that it owns. */
  owns: number;
}

export interface Flow {
  owner: string;
  executor: string;
  tasks: number;
}

/** `own` can't be told where the serving node has no worker: it goes by this name. */
export const THIS = "this node";

export function fleet(peers: Peer[], workers: Worker[], tasks: Task[]): FleetNode[] {
  const known = new Map(peers.map((peer) => [peer.peer_id, peer]));
  const strangers = workers.map((worker) => worker.node).filter((node) => !known.has(node));
  // A node that left for good is no peer any more, but its worker may be remembered.
  const own = strangers.find((node) => workers.some((w) => w.node === node && w.status !== "offline")) ?? THIS;
  const ids = new Set([own, ...known.keys(), ...workers.map((worker) => worker.node)]);
  return [...ids].sort().map((id) => {
    const told = workers.filter((worker) => worker.node === id);
    const peer = known.get(id) ?? null;
    const state = health(id === own, peer, told);
    // A lost connection is known before the lease of its workers has ended.
    const gone = state === "down" ? { status: "offline", running_tasks: null } : {};
    const here = told.map((worker) => ({ ...worker, ...gone }));
    return {
      id,
      own: id === own,
      health: state,
      peer,
      workers: here,
      slots: here.reduce((sum, worker) => sum + worker.max_concurrent_tasks, 0),
      busy: here.reduce((sum, worker) => sum + (worker.running_tasks ?? 0), 0),
      owns: tasks.filter((task) => task.home_node === id).length,
    };
  });
}

function health(own: boolean, peer: Peer | null, workers: Worker[]): Health {
  if (!own && peer?.status !== "connected") return "down";
  if (workers.length > 0 && workers.every((worker) => worker.status === "offline")) return "down";
  if (workers.length > 0 && workers.every((worker) => worker.status === "draining")) return "draining";
  return "up";
}

/** Who runs what for whom, where that is another node, and both are there. */
export function flows(tasks: Task[], nodes: FleetNode[]): Flow[] {
  const there = nodes.filter((node) => node.health !== "down");
  const nodeOf = new Map(there.flatMap(({ id, workers }) => workers.map((worker) => [worker.worker_id, id])));
  const owners = new Set(there.map((node) => node.id));
  const found = new Map<string, Flow>();
  for (const task of tasks) {
    const executor = task.worker_id === null ? undefined : nodeOf.get(task.worker_id);
    if (executor === undefined || executor === task.home_node || !owners.has(task.home_node)) continue;
    const key = `${task.home_node} ${executor}`;
    const flow = found.get(key) ?? { owner: task.home_node, executor, tasks: 0 };
    flow.tasks += 1;
    found.set(key, flow);
  }
  return [...found.values()];
}
