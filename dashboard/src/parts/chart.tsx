// A chart of a few series over time, by uPlot, in the page's colours. What it
// shows is also in words, for those who do not see it.

import { useEffect, useRef } from "preact/hooks";
import { signal } from "@preact/signals";
import uPlot from "uplot";
import { compact, moment } from "../format.ts";

export interface Series {
  label: string;
  /** The name of a colour of style.css. */
  colour: string;
  bars?: boolean;
}

interface Props {
  title: string;
  /** Seconds, then the values of each series. */
  data: [number[], ...(number | null)[][]];
  series: Series[];
  unit?: string;
  height?: number;
}

/** Changes when the colours do. */
export const scheme = signal(0);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (scheme.value += 1));

export function Chart({ title, data, series, unit = "", height = 190 }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const told = useRef<HTMLDivElement>(null);
  const dark = scheme.value;
  const latest = useRef(data);
  latest.current = data;

  const tell = (at: number | null) => {
    const row = told.current;
    if (!row) return;
    const [times, ...values] = latest.current;
    const n = at ?? times.length - 1;
    row.querySelectorAll("b").forEach((cell, of) => (cell.textContent = `${compact(values[of]?.[n])}${unit}`));
    const time = row.querySelector("time");
    if (time) time.textContent = at === null || times[n] === undefined ? "now" : moment(times[n] * 1000);
  };

  useEffect(() => {
    const host = box.current;
    if (!host) return;
    const made = new uPlot(options(host, series, height, tell), latest.current, host);
    plot.current = made;
    const sized = new ResizeObserver(() => made.setSize({ width: host.clientWidth, height }));
    sized.observe(host);
    return () => {
      sized.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [dark, height, series.length]);

  useEffect(() => {
    plot.current?.setData(data);
    tell(null);
  }, [data]);

  const last = data[0].length - 1;
  const summary = series.map((s, n) => `${s.label} ${compact(data[n + 1]?.[last])}${unit}`).join(", ");
  return (
    <figure class="chart" role="img" aria-label={`${title}: ${summary}, over ${data[0].length} points`}>
      <div class="legend" ref={told} aria-hidden="true">
        {series.map((s) => (
          <span key={s.label}>
            <i class={`swatch ${s.colour}`} />
            {s.label} <b />
          </span>
        ))}
        <time>now</time>
      </div>
      <div class="plot" ref={box} aria-hidden="true" />
    </figure>
  );
}

/** A colour of the style sheet as canvas understands it. */
function colour(host: HTMLElement, name: string): string {
  const probe = document.createElement("i");
  probe.className = `swatch ${name}`;
  host.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

function faint(of: string, part: number): string {
  return of.startsWith("rgb(") ? of.replace("rgb(", "rgba(").replace(")", `, ${part})`) : of;
}

/** Seconds are told only where the marks are less than a minute apart. */
function clock(at: number, fine: boolean): string {
  const time = moment(at * 1000);
  return fine ? time : time.replace(/:\d\d$/, "");
}

function options(
  host: HTMLElement,
  series: Series[],
  height: number,
  tell: (at: number | null) => void,
): uPlot.Options {
  const ink = colour(host, "ink");
  const grid = { stroke: colour(host, "line"), width: 1 };
  const font = `11px ${getComputedStyle(host).fontFamily}`;
  const axis = { stroke: ink, font, grid, ticks: { show: false } };
  const bars = uPlot.paths.bars?.({ size: [0.7, 24, 1], radius: 0.2 });
  return {
    width: host.clientWidth || 300,
    height,
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    padding: [8, 24, 0, 0],
    scales: {
      x: { time: true, range: (_plot, min, max) => (bars && series[0]?.bars ? [min - 40, max + 40] : [min, max]) },
      y: { range: (_plot, _min, max) => [0, Math.max(4, Math.ceil(max * 1.15))] },
    },
    axes: [
      {
        ...axis,
        size: 30,
        space: 70,
        values: (_plot, splits) => splits.map((at) => clock(at, (splits[1] ?? Infinity) - (splits[0] ?? 0) < 60)),
      },
      {
        ...axis,
        size: 44,
        space: 36,
        values: (_plot, splits) => splits.map((n) => (Number.isInteger(n) ? compact(n) : "")),
      },
    ],
    series: [
      {},
      ...series.map((s) => {
        const stroke = colour(host, s.colour);
        if (s.bars && bars)
          return { label: s.label, stroke, fill: faint(stroke, 0.85), width: 0, paths: bars, points: { show: false } };
        return { label: s.label, stroke, fill: faint(stroke, 0.12), width: 2, points: { show: false } };
      }),
    ],
    hooks: { setCursor: [(plot) => tell(plot.cursor.idx ?? null)] },
  };
}
