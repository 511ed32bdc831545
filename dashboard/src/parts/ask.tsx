// Nothing is changed without a question first: one dialog for all actions.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { may, refresh } from "../live.ts";
import { call, Refusal } from "../mcp.ts";
import { toast } from "./basics.tsx";

interface Field {
  name: string;
  label: string;
  kind: "text" | "number" | "check";
  value?: string;
  hint?: string;
}

export interface Question {
  title: string;
  /** What will happen, in a sentence. */
  about: string;
  /** What the button that does it says. */
  verb: string;
  danger?: true;
  fields?: Field[];
  /** Does it, and says what came of it. */
  act: (answers: Answers) => Promise<string>;
}

export interface Answers {
  text: (name: string) => string | undefined;
  number: (name: string) => number;
  check: (name: string) => boolean;
}

const asked = signal<Question | null>(null);
const working = signal(false);
const problem = signal<string | null>(null);

export function ask(question: Question): void {
  problem.value = null;
  working.value = false;
  asked.value = question;
}

interface ActionProps {
  operation: string;
  question: () => Question;
  children: string;
  danger?: boolean;
}

/** A button for an operation, where the token may call it. */
export function Action({ operation, question, children, danger = false }: ActionProps) {
  if (!may.value.has(operation)) return null;
  return (
    <button type="button" class={danger ? "button danger" : "button"} onClick={() => ask(question())}>
      {children}
    </button>
  );
}

export function Dialog() {
  const question = asked.value;
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (question && !dialog.current?.open) dialog.current?.showModal();
    if (!question && dialog.current?.open) dialog.current.close();
  }, [question]);

  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (!question || working.peek()) return;
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const text = (name: string) => String(form.get(name) ?? "").trim() || undefined;
    working.value = true;
    try {
      const said = await question.act({
        text,
        number: (name) => Number(text(name)),
        check: (name) => form.get(name) === "on",
      });
      asked.value = null;
      toast("good", said);
      refresh();
    } catch (caught) {
      problem.value = caught instanceof Refusal ? caught.message : String(caught);
    }
    working.value = false;
  };

  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="dialog-title" onClose={() => (asked.value = null)}>
      {question && (
        <form onSubmit={submit}>
          <h2 id="dialog-title">{question.title}</h2>
          <p class="dim">{question.about}</p>
          {question.fields?.map((field) => (
            <FieldRow key={field.name} field={field} />
          ))}
          {problem.value && (
            <p class="note tone-bad" role="alert">
              {problem.value}
            </p>
          )}
          <div class="row end">
            <button type="button" class="button" onClick={() => (asked.value = null)}>
              Keep as it is
            </button>
            <button
              type="submit"
              class={question.danger ? "button danger solid" : "button solid"}
              disabled={working.value}
            >
              {working.value ? "Working…" : question.verb}
            </button>
          </div>
        </form>
      )}
    </dialog>
  );
}

function FieldRow({ field }: { field: Field }) {
  if (field.kind === "check") {
    return (
      <label class="check">
        <input type="checkbox" name={field.name} />
        <span>
          {field.label}
          {field.hint && <small class="dim">{field.hint}</small>}
        </span>
      </label>
    );
  }
  const number = field.kind === "number";
  return (
    <label class="field">
      <span>{field.label}</span>
      {number ? (
        <input
          type="number"
          name={field.name}
          defaultValue={field.value}
          required
          min="0.000001"
          step="any"
          autocomplete="off"
        />
      ) : (
        <input type="text" name={field.name} defaultValue={field.value} maxLength={1_000} autocomplete="off" />
      )}
      {field.hint && <small class="dim">{field.hint}</small>}
    </label>
  );
}

export function cancelTask(id: string): Question {
  return {
    title: "Cancel this task?",
    about: `${id} will not complete. If it waits, it ends at once; if it runs, its program is asked to stop.`,
    verb: "Cancel the task",
    danger: true,
    fields: [
      { name: "reason", label: "Reason (optional)", kind: "text" },
      { name: "force", label: "Kill its program instead of asking", kind: "check" },
    ],
    act: async ({ text, check }) => {
      const { status } = await call<{ status: string }>("task_cancel", {
        task_id: id,
        reason: text("reason"),
        force: check("force"),
      });
      return status === "cancelled" ? `${id} is cancelled` : `${id} was asked to stop`;
    },
  };
}

export function retryTask(id: string, opened: (id: string) => void): Question {
  return {
    title: "Try this task again?",
    about: `A new task is made with the work of ${id}. This one stays as it is, and each names the other.`,
    verb: "Try again",
    act: async () => {
      const { retry_task_id } = await call<{ retry_task_id: string }>("task_retry", { task_id: id });
      opened(retry_task_id);
      return `Submitted as ${retry_task_id}`;
    },
  };
}

export function changePriority(id: string, priority: number | null): Question {
  return {
    title: "Change the priority?",
    about: `${id} takes another place in the queue. Higher runs earlier.`,
    verb: "Change it",
    fields: [
      {
        name: "priority",
        label: "New priority",
        kind: "number",
        value: priority === null ? "" : String(priority),
        hint: "Above 0; 1 is usual.",
      },
    ],
    act: async ({ number }) => {
      const done = await call<{ old_priority: number; new_priority: number }>("task_priority", {
        task_id: id,
        new_priority: number("priority"),
      });
      return `Priority ${done.old_priority} is now ${done.new_priority}`;
    },
  };
}

export function pauseQueue(): Question {
  return {
    title: "Pause the queue of the whole mesh?",
    about: "No node starts anything new until the queue is resumed. What runs goes on, and tasks are still accepted.",
    verb: "Pause the queue",
    danger: true,
    fields: [{ name: "reason", label: "Reason, for others who look", kind: "text" }],
    act: async ({ text }) => {
      const { queued_tasks } = await call<{ queued_tasks: number }>("queue_pause", { reason: text("reason") });
      return `Paused: ${queued_tasks} tasks wait`;
    },
  };
}

export function resumeQueue(): Question {
  return {
    title: "Resume the queue?",
    about: "Waiting tasks start again on every node.",
    verb: "Resume",
    act: async () => {
      await call("queue_resume");
      return "The queue goes on";
    },
  };
}

export function drainWorker(worker: string): Question {
  return {
    title: "Drain this worker?",
    about: `${worker} takes no more tasks. What it runs may end; what has not ended in time is handed to other workers. Its node stays a member and keeps its tasks.`,
    verb: "Drain the worker",
    danger: true,
    fields: [{ name: "timeout", label: "Seconds until what still runs is handed back", kind: "number", value: "300" }],
    act: async ({ number }) => {
      const done = await call<{ status: string }>("worker_unregister", {
        worker_id: worker,
        graceful: true,
        timeout: Math.round(number("timeout")),
      });
      return done.status === "draining" ? `${worker} drains` : `${worker} takes no more tasks`;
    },
  };
}

export function cancelWorkflow(id: string): Question {
  return {
    title: "Cancel this workflow?",
    about: `No step of ${id} begins any more, and running ones are asked to stop. Results of steps that have ended stay.`,
    verb: "Cancel the workflow",
    danger: true,
    fields: [
      { name: "reason", label: "Reason (optional)", kind: "text" },
      { name: "force", label: "Kill what runs instead of asking", kind: "check" },
    ],
    act: async ({ text, check }) => {
      const done = await call<{ cancelled_steps: string[] }>("workflow_cancel", {
        workflow_id: id,
        reason: text("reason"),
        force: check("force"),
      });
      return `${id} is cancelled, with ${done.cancelled_steps.length} steps`;
    },
  };
}
