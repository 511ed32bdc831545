// The mesh as a graph: nodes with their slots, the links of this node with
// their latency, and who runs work for whom. Places are computed once for a set
// of nodes (d3-force, from a fixed start), so that nothing moves by itself.

import { forceCollide, forceManyBody, forceSimulation, forceX, forceY, type SimulationNodeDatum } from "d3-force";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { FleetNode, Flow } from "../fleet.ts";
import { millis, plural, short8 } from "../format.ts";
import { to } from "../route.ts";
import { Arrow } from "./arrow.tsx";

interface Spot extends SimulationNodeDatum {
  id: string;
  x: number;
  y: number;
}

/** So few nodes stand at the corners of a figure, more around the one that is asked. */
const CORNERS = 4;
/** Above that, latency is told in the list of nodes alone. */
const LABELLED = 16;
/** Above that, names and figures would cover each other. */
const NAMED = 40;

/** Half of how wide a name is, with room around it, and how far it reaches below its node. */
const NAME = { width: 50, height: 24 };

function radius(nodes: number): number {
  return nodes <= 8 ? 33 : nodes <= NAMED ? 20 : nodes <= 150 ? 10 : 6;
}

/** Places in a space without edges first, stretched to the box afterwards. */
function places(ids: string[], own: string | undefined, width: number, height: number): Map<string, Spot> {
  const r = radius(ids.length);
  const spots: Spot[] = ids.map((id, n) => {
    const angle = (2 * Math.PI * n) / ids.length - Math.PI / 2;
    const spot = { id, x: 100 * Math.cos(angle), y: 100 * Math.sin(angle) };
    // All links are its own: amid the others they cross nothing.
    return id === own && ids.length > CORNERS ? { id, x: 0, y: 0, fx: 0, fy: 0 } : spot;
  });
  forceSimulation(spots)
    .force("apart", forceManyBody().strength(-600))
    .force("x", forceX(0).strength(0.12))
    .force("y", forceY(0).strength(0.12))
    .force("room", forceCollide(r * 1.6))
    .stop()
    .tick(300);
  const [xs, ys] = [spots.map((spot) => spot.x), spots.map((spot) => spot.y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [wide, high] = [Math.max(...xs) - left, Math.max(...ys) - top];
  // Room for names below and beside; figures of few nodes are not drawn apart for its own sake.
  const [side, above, below] = [r + 30, r + 12, r + 46];
  const room = {
    x: Math.min(width - 2 * side, (ids.length > CORNERS ? 3 : 2.1) * (height - above - below)),
    y: height - above - below,
  };
  return new Map(
    spots.map((spot) => {
      const x = wide > 1 ? (width - room.x) / 2 + ((spot.x - left) / wide) * room.x : width / 2;
      const y = high > 1 ? above + ((spot.y - top) / high) * room.y : above + room.y / 2;
      return [spot.id, { ...spot, x, y }];
    }),
  );
}

export function MeshGraph({ nodes, flows }: { nodes: FleetNode[]; flows: Flow[] }) {
  const box = useRef<HTMLDivElement>(null);
  const [width, measured] = useState(0);
  useEffect(() => {
    const host = box.current;
    if (!host) return;
    const sized = new ResizeObserver(() => measured(Math.round(host.clientWidth / 20) * 20));
    sized.observe(host);
    return () => sized.disconnect();
  }, []);
  const height = width < 480 ? 340 : 380;
  const ids = nodes.map((node) => node.id).join(" ");
  const spots = useMemo(
    () =>
      width > 0
        ? places(
            nodes.map((n) => n.id),
            nodes.find((n) => n.own)?.id,
            width,
            height,
          )
        : null,
    [ids, width, height],
  );
  return (
    <div class="mesh" ref={box}>
      {spots && <Drawing nodes={nodes} flows={flows} spots={spots} width={width} height={height} />}
    </div>
  );
}

interface DrawingProps {
  nodes: FleetNode[];
  flows: Flow[];
  spots: Map<string, Spot>;
  width: number;
  height: number;
}

function Drawing({ nodes, flows, spots, width, height }: DrawingProps) {
  const r = radius(nodes.length);
  const named = nodes.length <= NAMED;
  const own = nodes.find((node) => node.own);
  const home = own && spots.get(own.id);
  const linked = nodes.flatMap((node) => {
    const spot = spots.get(node.id);
    return spot && !node.own ? [{ node, spot }] : [];
  });
  const up = nodes.filter((node) => node.health !== "down").length;
  return (
    <svg
      class={named ? "" : "crowd"}
      width={width}
      height={height}
      viewBox={`0 0 ${width} ${height}`}
      role="group"
      aria-label={`The mesh: ${up} of ${plural(nodes.length, "node")} up`}
    >
      <defs>
        <Arrow id="tip" size={7} />
      </defs>
      {home &&
        linked.map(({ node, spot }) => (
          <line key={node.id} class={`link ${node.health}`} x1={home.x} y1={home.y} x2={spot.x} y2={spot.y} />
        ))}
      {flows.map((flow) => (
        <FlowLine key={`${flow.owner} ${flow.executor}`} flow={flow} spots={spots} r={r} named={named} />
      ))}
      {home &&
        nodes.length <= LABELLED &&
        linked.map(({ node, spot }) => {
          const latency = node.peer?.metrics.latency_ms;
          if (node.health === "down" || latency == null) return null;
          return (
            <text key={node.id} class="latency" x={(home.x + spot.x) / 2} y={(home.y + spot.y) / 2 + 4}>
              {millis(latency)}
            </text>
          );
        })}
      {nodes.map((node) => {
        const spot = spots.get(node.id);
        return spot && <NodeMark key={node.id} node={node} spot={spot} r={r} named={named} />;
      })}
    </svg>
  );
}

interface FlowProps {
  flow: Flow;
  spots: Map<string, Spot>;
  r: number;
  named: boolean;
}

function FlowLine({ flow, spots, r, named }: FlowProps) {
  const [from, to] = [spots.get(flow.owner), spots.get(flow.executor)];
  if (!from || !to) return null;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = Math.hypot(dx, dy) || 1;
  const [nx, ny] = [-dy / length, dx / length];
  const bend = Math.min(46, length / 4);
  const [cx, cy] = [(from.x + to.x) / 2 + nx * bend, (from.y + to.y) / 2 + ny * bend];
  const edge = (at: Spot, off: number): [number, number] => {
    const [ex, ey] = [cx - at.x, cy - at.y];
    const far = Math.hypot(ex, ey) || 1;
    // Below a node is its name.
    const away = named && ey > 0 && Math.abs(ex / ey) < NAME.width / (r + NAME.height) ? off + NAME.height : off;
    return [at.x + (ex / far) * away, at.y + (ey / far) * away];
  };
  const [[x1, y1], [x2, y2]] = [edge(from, r + 5), edge(to, r + 7)];
  const [lx, ly] = [(x1 + x2) / 4 + cx / 2, (y1 + y2) / 4 + cy / 2];
  const heavy = Math.min(5, 1.5 + Math.log2(flow.tasks + 1) / 2);
  return (
    <g class="flow">
      <title>{`${short8(flow.executor)} runs ${plural(flow.tasks, "task")} of ${short8(flow.owner)}`}</title>
      <path d={`M${x1} ${y1}Q${cx} ${cy} ${x2} ${y2}`} stroke-width={heavy} marker-end="url(#tip)" />
      {named && <circle cx={lx} cy={ly} r="9" />}
      {named && (
        <text x={lx} y={ly + 4}>
          {flow.tasks}
        </text>
      )}
    </g>
  );
}

function NodeMark({ node, spot, r, named }: { node: FleetNode; spot: Spot; r: number; named: boolean }) {
  const around = 2 * Math.PI * (r + 4);
  const part = node.slots > 0 ? Math.min(1, node.busy / node.slots) : 0;
  const state = node.health === "down" ? "down" : node.health === "draining" ? "draining" : "up";
  const about = state === "down" ? "lost" : `${state}, owns ${plural(node.owns, "running task")}`;
  const [name, figure] = [short8(node.id), node.slots > 0 ? `${node.busy}/${node.slots}` : "–"];
  const tag = state === "down" ? "lost" : state === "draining" ? "draining" : node.own ? "this node" : "";
  // A name for those who speak begins with what can be read.
  const read = (named ? [name, state === "down" ? "" : figure, tag] : [name]).filter(Boolean).join(" ");
  return (
    <a
      href={to(["nodes", node.id])}
      class={`node ${state}`}
      data-node={node.id}
      data-health={state}
      aria-label={`${read}: node, ${about}`}
    >
      <circle class="halo" cx={spot.x} cy={spot.y} r={r + 4} />
      {state !== "down" && (
        <circle
          class="load"
          cx={spot.x}
          cy={spot.y}
          r={r + 4}
          stroke-dasharray={`${around * part} ${around}`}
          transform={`rotate(-90 ${spot.x} ${spot.y})`}
        />
      )}
      <circle class="body" cx={spot.x} cy={spot.y} r={r} />
      {named && (
        <text class="name" x={spot.x} y={spot.y + r + 21}>
          {name}
        </text>
      )}{" "}
      {state === "down" && <path class="cross" d={cross(spot, r * 0.36)} />}
      {named && state !== "down" && (
        <text class="figure" x={spot.x} y={spot.y + 5}>
          {figure}
        </text>
      )}{" "}
      {named && tag && (
        <text class="about" x={spot.x} y={spot.y + r + 36}>
          {tag}
        </text>
      )}
    </a>
  );
}

function cross({ x, y }: Spot, d: number): string {
  return `M${x - d} ${y - d}L${x + d} ${y + d}M${x + d} ${y - d}L${x - d} ${y + d}`;
}
