// Tables, and pages of them. At phone width each row is a card (style.css), in
// which a cell says what it is.

import type { ComponentChildren } from "preact";
import { count } from "../format.ts";
import { call } from "../mcp.ts";
import { go } from "../route.ts";
import type { Paged } from "../types.ts";
import { Meter } from "./basics.tsx";

/** A name that begins with `#` is of a column of numbers, one in brackets is not shown. */
export function Table({ of, columns, children }: { of: string; columns: string[]; children: ComponentChildren }) {
  return (
    <div class="table" tabIndex={0} role="group" aria-label={`Table of ${of}`}>
      <table>
        <thead>
          <tr>
            {columns.map((name) => (
              <th key={name} scope="col" class={name.startsWith("#") ? "number" : undefined}>
                {name.startsWith("(") ? <span class="hidden">{name.slice(1, -1)}</span> : name.replace("#", "")}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

/** A cell, by the name of its column. */
export function Cell({ of, class: more = "", children }: { of: string; class?: string; children: ComponentChildren }) {
  const number = of.startsWith("#") ? "number nowrap" : "";
  return (
    <td data-name={of.replace("#", "")} class={`${number} ${more}`.trim() || undefined}>
      {children}
    </td>
  );
}

/** How many slots are in use, as a bar and in figures. */
export function Slots({ busy, of }: { busy: number | null; of: number }) {
  return (
    <>
      <Meter value={busy ?? 0} of={of} label={`${busy ?? "unknown"} of ${of} slots`} />
      <span class="figure small">
        {count(busy)} of {count(of)}
      </span>
    </>
  );
}

export type Filter = Record<string, unknown>;

/** The farthest place that a node counts to by itself; beyond it, each page leads to the next. */
const REACH = 5_000;

/** A list in pages, newest first unless the address has `order=oldest`. Its page is in the address too. */
export class Pages<T extends Paged> {
  /** Cursors of the last filter: `cursors[n]` leads to page n. */
  private cursors: (string | undefined)[] = [];
  private key = "";

  constructor(
    private readonly operation: string,
    readonly limit: number,
  ) {}

  /** The page that is asked for, or the first where nothing leads to that one. */
  number(query: URLSearchParams, filter: Filter): number {
    const asked = Math.max(0, Math.floor(Number(query.get("page") ?? 1)) - 1 || 0);
    return asked * this.limit > REACH && this.led(filter)[asked] === undefined ? 0 : asked;
  }

  async read(filter: Filter, n: number, signal: AbortSignal): Promise<T> {
    const led = this.led(filter);
    const at = led[n] === undefined ? { offset: n * this.limit } : { cursor: led[n] };
    const got = await call<T>(this.operation, { ...filter, limit: this.limit, ...at }, signal);
    led[n + 1] = got.next_cursor ?? undefined;
    return got;
  }

  private led(filter: Filter): (string | undefined)[] {
    const key = JSON.stringify(filter);
    if (key !== this.key) this.cursors = [];
    this.key = key;
    return this.cursors;
  }
}

/** What an operation takes for the order that the address asks for. */
export function order(query: URLSearchParams): { newest_first: boolean } {
  return { newest_first: query.get("order") !== "oldest" };
}

interface PagerProps {
  list: Paged;
  n: number;
  limit: number;
  query: URLSearchParams;
  /** The address of the same list with another order or page. */
  href: (change: { order?: string; page?: string }) => string;
}

export function Pager({ list, n, limit, query, href }: PagerProps) {
  const { newest_first } = order(query);
  const kept = newest_first ? undefined : "oldest";
  const turn = (to: number, first: string | undefined) => {
    go(href({ order: first, page: to > 0 ? String(to + 1) : undefined }));
    scrollTo({ top: 0 });
  };
  const button = (label: string, off: boolean, act: () => void) => (
    <button type="button" class="button" disabled={off} onClick={act}>
      {label}
    </button>
  );
  const from = n * limit + 1;
  const range = `${count(from)} to ${count(from + list.returned_count - 1)} of ${count(list.total_count)}`;
  return (
    <nav class="pager" aria-label="Pages">
      <span class="dim figure" role="status">
        {range}, {newest_first ? "newest" : "oldest"} first
      </span>
      <span class="row">
        {button("Newest", newest_first && n === 0, () => turn(0, undefined))}
        {button("Previous", n === 0, () => turn(n - 1, kept))}
        {button("Next", !list.has_more, () => turn(n + 1, kept))}
        {button("Oldest", !newest_first && n === 0, () => turn(0, "oldest"))}
      </span>
    </nav>
  );
}
