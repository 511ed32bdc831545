// What this page has seen happen.

import { useState } from "preact/hooks";
import { moment } from "../format.ts";
import { happenings, since, type Happening } from "../memory.ts";
import { Empty } from "../parts/basics.tsx";

const KINDS = [
  ["all", "All"],
  ["node", "Nodes"],
  ["task", "Tasks"],
  ["queue", "Queue"],
] as const;

export function Events() {
  const [kind, choose] = useState<string>("all");
  const list = happenings.value.filter((h) => kind === "all" || h.kind === kind);
  return (
    <>
      <div class="title">
        <h1>Events</h1>
      </div>
      <p class="dim lead">
        What this page has seen since {moment(since)}: nodes that come and go, tasks that start and end, the queue.
        Nodes keep no such list. Who called what is in <code>taskmesh audit</code>.
      </p>
      <div class="segments" role="group" aria-label="Kind">
        {KINDS.map(([name, label]) => (
          <button key={name} type="button" aria-pressed={kind === name} onClick={() => choose(name)}>
            {label}
          </button>
        ))}
      </div>
      <section class="card" aria-label="Events">
        <Happenings list={list} most={200} />
      </section>
    </>
  );
}

export function Happenings({ list, most }: { list: Happening[]; most: number }) {
  if (list.length === 0) return <Empty title="Nothing has happened yet">Events come in while this page is open.</Empty>;
  return (
    <ol class="rows events">
      {list.slice(0, most).map((h) => (
        <li key={h.id} class="event">
          <i class={`dot tone-${h.tone}`} aria-hidden="true" />
          <span class="grow">
            {h.subject === null && h.href ? <a href={h.href}>{h.text}</a> : h.text}
            {h.subject !== null && (
              <>
                {" "}
                {h.href ? (
                  <a class="mono task-link" href={h.href}>
                    {h.subject}
                  </a>
                ) : (
                  <span class="mono">{h.subject}</span>
                )}
              </>
            )}
          </span>
          <time class="dim small figure" dateTime={new Date(h.at).toISOString()}>
            {moment(h.at)}
          </time>
        </li>
      ))}
    </ol>
  );
}
