// Numbers, times and names as people read them. What was not measured is a dash.

export const NONE = "–";

const plain = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function count(n: number | null | undefined): string {
  return n == null ? NONE : plain.format(n);
}

export function compact(n: number | null | undefined): string {
  if (n == null) return NONE;
  return Math.abs(n) < 100_000 ? plain.format(Math.round(n * 10) / 10) : short.format(n);
}

/** Seconds as the two greatest units that matter. */
export function span(seconds: number | null | undefined): string {
  if (seconds == null) return NONE;
  if (seconds < 0) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${(Math.round(seconds * 10) / 10).toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** The same without fractions, for what ticks on screen. */
export function whole(seconds: number | null | undefined): string {
  return seconds == null ? NONE : seconds < 60 ? `${Math.floor(seconds)} s` : span(seconds);
}

export function between(from: string | null, to: string | null, now: number): number | null {
  if (!from) return null;
  const end = to ? Date.parse(to) : now;
  return Math.max(0, (end - Date.parse(from)) / 1000);
}

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
});
const day = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  hour12: false,
});

/** The time today, else with its day. */
export function moment(time: string | number | null | undefined, now = Date.now()): string {
  if (time == null) return NONE;
  const at = new Date(time);
  return at.toDateString() === new Date(now).toDateString() ? clock.format(at) : day.format(at);
}

export function millis(ms: number | null | undefined): string {
  if (ms == null) return NONE;
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

export function bytes(n: number | null | undefined): string {
  if (n == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let size = n;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** Peer ids begin alike: their ends tell them apart, as in the names of workers. */
export function short8(id: string): string {
  return id.length > 12 ? id.slice(-8) : id;
}

export function plural(n: number, one: string, many = one + "s"): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** `waiting_for_a_worker` and the like, as words. */
export function words(name: string): string {
  return name.replaceAll("_", " ");
}

export function pretty(value: unknown): string {
  return JSON.stringify(value, null, 2) ?? "";
}
