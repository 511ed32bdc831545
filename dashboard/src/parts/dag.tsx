// A workflow as a graph in layers (dagre). Places depend on steps and edges
// alone: what happens changes colours, and moves nothing.

import { Graph as Layers, layout } from "@dagrejs/dagre";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { words } from "../format.ts";
import { to } from "../route.ts";
import type { Graph, Step } from "../types.ts";
import { Arrow } from "./arrow.tsx";
import { toneOf } from "./basics.tsx";

/** One task, or the list of those that a step with many is made of. */
export function stepHref(workflow: string, id: string, step: Step | null): string {
  const task = step?.task_id ?? `${workflow}/${id}`;
  return step?.tasks != null ? to(["tasks"], { workflow: task }) : to(["tasks", task]);
}

/** Above that nobody finds anything in a drawing, and the list of steps does. */
export const DRAWN = 300;

const WIDTH = 172;
const HEIGHT = 54;
/** Of its size: the smallest text is 8 px high then. */
const SMALLEST = 0.7;
/** Around the drawing: style.css. */
const PADDING = 10;

interface Box {
  x: number;
  y: number;
}

interface Drawn {
  boxes: Map<string, Box>;
  lines: { from: string; to: string; path: string }[];
  width: number;
  height: number;
}

function drawn(graph: Graph, direction: "LR" | "TB"): Drawn {
  const layers = new Layers();
  layers.setGraph({ rankdir: direction, nodesep: 22, ranksep: 54, marginx: 10, marginy: 10 });
  layers.setDefaultEdgeLabel(() => ({}));
  for (const { id } of graph.nodes) layers.setNode(id, { width: WIDTH, height: HEIGHT });
  const known = new Set(graph.nodes.map((node) => node.id));
  const edges = graph.edges.filter((edge) => known.has(edge.from) && known.has(edge.to));
  for (const { from, to } of edges) layers.setEdge(from, to);
  layout(layers);
  const boxes = new Map(
    graph.nodes.map(({ id }) => {
      const { x, y } = layers.node(id) as Box;
      return [id, { x, y }];
    }),
  );
  const lines = edges.map(({ from, to }) => {
    const { points } = layers.edge(from, to) as { points: Box[] };
    // From the middle of one side to the middle of the other; between them as dagre leads around boxes.
    const ends = [boxes.get(from), boxes.get(to)].map((box, n) =>
      side(box ?? { x: 0, y: 0 }, direction, n === 0 ? 1 : -1),
    );
    const [first = { x: 0, y: 0 }, last = { x: 0, y: 0 }] = ends;
    return { from, to, path: smooth([first, ...points.slice(1, -1), last], direction) };
  });
  const { width = 0, height = 0 } = layers.graph() as { width?: number; height?: number };
  return { boxes, lines, width, height };
}

function side({ x, y }: Box, direction: "LR" | "TB", way: 1 | -1): Box {
  return direction === "LR" ? { x: x + (way * WIDTH) / 2, y } : { x, y: y + (way * HEIGHT) / 2 };
}

/** Through the points, leaving and entering along the direction of the graph. */
function smooth(points: Box[], direction: "LR" | "TB"): string {
  const [first, ...rest] = points;
  if (!first) return "";
  let path = `M${first.x} ${first.y}`;
  let last = first;
  for (const point of rest) {
    const [mx, my] = [(last.x + point.x) / 2, (last.y + point.y) / 2];
    path +=
      direction === "LR"
        ? `C${mx} ${last.y} ${mx} ${point.y} ${point.x} ${point.y}`
        : `C${last.x} ${my} ${point.x} ${my} ${point.x} ${point.y}`;
    last = point;
  }
  return path;
}

export function Dag({ graph, steps, workflow }: { graph: Graph; steps: Step[]; workflow: string }) {
  const box = useRef<HTMLDivElement>(null);
  const [room, measured] = useState(0);
  useEffect(() => {
    const host = box.current;
    if (!host) return;
    const sized = new ResizeObserver(() => measured(host.clientWidth));
    sized.observe(host);
    return () => sized.disconnect();
  }, []);
  const shape = JSON.stringify([graph.nodes.map((n) => n.id), graph.edges]);
  const narrow = room < 620;
  const { boxes, lines, width, height } = useMemo(() => drawn(graph, narrow ? "TB" : "LR"), [shape, narrow]);
  // A little too wide is made to fit; what would be too small to read is scrolled.
  const scale = Math.max(SMALLEST, Math.min(1, (room - 2 * PADDING) / width));
  const known = new Map(steps.map((step) => [step.step_id, step]));
  const critical = new Set(graph.critical_path);
  const follows = new Set(graph.critical_path.slice(1).map((id, n) => `${graph.critical_path[n]} ${id}`));
  const onPath = (line: { from: string; to: string }) => follows.has(`${line.from} ${line.to}`);
  // What is critical covers the rest.
  const inOrder = [...lines].sort((a, b) => Number(onPath(a)) - Number(onPath(b)));
  return (
    <div class="dag" ref={box} tabIndex={0} role="group" aria-label={`Graph of ${graph.nodes.length} steps`}>
      <svg width={width * scale} height={height * scale} viewBox={`0 0 ${width} ${height}`}>
        <defs>
          <Arrow id="arrow" size={6} />
          <Arrow id="arrow-critical" size={5} class="critical" />
        </defs>
        {inOrder.map((line) => {
          const on = onPath(line);
          return (
            <path
              key={`${line.from} ${line.to}`}
              class={on ? "edge critical" : "edge"}
              d={line.path}
              marker-end={on ? "url(#arrow-critical)" : "url(#arrow)"}
            />
          );
        })}
        {graph.nodes.map(({ id, label, status }) => {
          const place = boxes.get(id);
          if (!place) return null;
          const step = known.get(id);
          const state = step?.status ?? status;
          const about = label.startsWith(`${id}: `) ? label.slice(id.length + 2) : label;
          const parts = step?.tasks != null && step.tasks > 1 ? ` ${step.tasks_ended ?? 0}/${step.tasks}` : "";
          const [first, second] = [cut(id, 19), cut(`${words(state)}${parts} · ${about}`, 25)];
          const inner = (
            <>
              <rect width={WIDTH} height={HEIGHT} rx="10" />
              <rect class="mark" x="0" y="12" width="4" height={HEIGHT - 24} rx="2" />
              <text class="name" x="16" y="23">
                {first}
              </text>{" "}
              <text class="about" x="16" y="41">
                {second}
              </text>
            </>
          );
          const common = {
            class: `step tone-${toneOf(state)}${critical.has(id) ? " critical" : ""}`,
            transform: `translate(${place.x - WIDTH / 2} ${place.y - HEIGHT / 2})`,
            "data-step": id,
            "data-status": state,
          };
          // A step that has not begun is no task yet.
          if (step && step.task_id === null)
            return (
              <g key={id} {...common}>
                {inner}
              </g>
            );
          return (
            <a
              key={id}
              {...common}
              href={stepHref(workflow, id, step ?? null)}
              aria-label={`${first} ${second}: step ${id}${critical.has(id) ? ", on the critical path" : ""}`}
            >
              {inner}
            </a>
          );
        })}
      </svg>
    </div>
  );
}

function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
