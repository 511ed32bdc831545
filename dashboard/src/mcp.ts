// The node, by MCP 2026-07-28 without a session: one POST for each call, and one
// stream that says which resources have changed. There is no other way to it.

import { leave, token } from "./session.ts";

const PROTOCOL = "2026-07-28";
/** A call ends within 47 s; the network gets the rest. */
const PATIENCE_MS = 60_000;

/** Why there is no answer. `code` is one of the operations' codes, or `unreachable`. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly code: string,
    readonly retryable: boolean,
  ) {
    super(message);
  }
}

type Json = Record<string, unknown>;

/** How far the node's clock is ahead of the browser's, in ms: ages are of its times. */
export let ahead = 0;

function compare(response: Response): void {
  const told = Date.parse(response.headers.get("date") ?? "");
  const by = told - Date.now();
  // The header has whole seconds, and the answer took a while.
  if (Number.isFinite(by)) ahead = Math.abs(by) < 2_500 ? 0 : by;
}

function meta(capabilities: Json): Json {
  return {
    "io.modelcontextprotocol/protocolVersion": PROTOCOL,
    "io.modelcontextprotocol/clientCapabilities": capabilities,
    "io.modelcontextprotocol/clientInfo": { name: "taskmesh-dashboard", version: "1" },
  };
}

/** Names in headers are ASCII, or written as MCP has it for the rest. */
function headerText(text: string): string {
  if (/^[\x21-\x7e]+$/.test(text)) return text;
  const bytes = new TextEncoder().encode(text);
  return `=?base64?${btoa(String.fromCharCode(...bytes))}?=`;
}

async function post(
  method: string,
  name: string | null,
  params: Json,
  capabilities: Json,
  signal: AbortSignal,
): Promise<Response> {
  const shown = token.peek();
  if (shown === null) throw new Refusal("There is no token to show.", "unauthenticated", false);
  const headers: Record<string, string> = {
    Accept: "application/json, text/event-stream",
    Authorization: `Bearer ${shown}`,
    "Content-Type": "application/json",
    "MCP-Protocol-Version": PROTOCOL,
    "Mcp-Method": method,
  };
  if (name !== null) headers["Mcp-Name"] = headerText(name);
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: meta(capabilities) } });
  let response: Response;
  try {
    const url = new URL("../mcp", document.baseURI);
    response = await fetch(url, {
      method: "POST",
      headers,
      body,
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (problem) {
    if (signal.aborted && signal.reason instanceof Refusal) throw signal.reason;
    if (signal.aborted) throw problem;
    throw new Refusal(
      "This node does not answer. Is it running, and is the network between you well?",
      "unreachable",
      true,
    );
  }
  compare(response);
  if (response.ok) return response;
  throw await refusal(response, shown);
}

async function refusal(response: Response, shown: string): Promise<Refusal> {
  const text = await response.text().catch(() => "");
  let envelope: Json = {};
  try {
    envelope = JSON.parse(text) as Json;
  } catch {
    // Told as text.
  }
  const said = typeof envelope.error === "string" ? envelope.error : undefined;
  if (response.status === 401) {
    // Another may have been entered meanwhile.
    if (token.peek() === shown) leave(said ?? "The node does not know this token.");
    return new Refusal(said ?? "Unauthenticated", "unauthenticated", false);
  }
  if (response.status === 403 && said === undefined) {
    const why = `This node does not go by the name ${location.host}: add it to api.hosts in its settings.`;
    return new Refusal(why, "permission_denied", false);
  }
  const rpc = envelope.error as { message?: string } | undefined;
  const message = said ?? rpc?.message ?? `The node answered with HTTP ${response.status}.`;
  return new Refusal(message, String(envelope.code ?? "internal"), response.status >= 429);
}

async function ask(
  method: string,
  name: string | null,
  params: Json,
  outer?: AbortSignal,
  capabilities: Json = {},
): Promise<Json> {
  const late = new AbortController();
  const timer = setTimeout(
    () => late.abort(new Refusal("No answer within a minute.", "deadline_exceeded", true)),
    PATIENCE_MS,
  );
  try {
    const signal = outer ? AbortSignal.any([outer, late.signal]) : late.signal;
    const response = await post(method, name, params, capabilities, signal);
    const answer = (await response.json()) as { result?: Json; error?: { message?: string; data?: Json } };
    if (answer.result) return answer.result;
    const { message, data } = answer.error ?? {};
    throw new Refusal(
      String(data?.error ?? message ?? "no result"),
      String(data?.code ?? "internal"),
      data?.retryable === true,
    );
  } finally {
    clearTimeout(timer);
  }
}

/** Calls an operation: its answer, with `success: true`. */
export async function call<T>(operation: string, args: Json = {}, signal?: AbortSignal): Promise<T> {
  const result = await ask("tools/call", operation, { name: operation, arguments: args }, signal);
  const content = result.structuredContent as Json | undefined;
  if (content?.success === true) return content as T;
  throw new Refusal(
    String(content?.error ?? "The node gave no answer."),
    String(content?.code ?? "internal"),
    content?.retryable === true,
  );
}

/** Names of the operations that this token may call. */
export async function offered(signal?: AbortSignal): Promise<Set<string>> {
  const { tools } = (await ask("tools/list", null, {}, signal)) as { tools: { name: string }[] };
  return new Set(tools.map((tool) => tool.name));
}

/** Ids of tasks that begin with `begun`, and whether there may be more. */
export async function complete(begun: string, signal?: AbortSignal): Promise<{ values: string[]; hasMore: boolean }> {
  const ref = { type: "ref/resource", uri: "mesh://tasks/{id}" };
  const { completion } = await ask(
    "completion/complete",
    null,
    { ref, argument: { name: "id", value: begun } },
    signal,
  );
  const { values, hasMore } = completion as { values: string[]; hasMore?: boolean };
  return { values, hasMore: hasMore === true };
}

/** Answers the approval that a step of a workflow waits for. */
export async function approve(task: string, yes: boolean): Promise<void> {
  const inputResponses = { approve: { action: "accept", content: { approve: yes } } };
  await ask("tasks/update", task, { taskId: task, inputResponses }, undefined, {
    extensions: { "io.modelcontextprotocol/tasks": {} },
  });
}

/** The URIs of resources that have changed, as the node tells of them, until `signal`. */
export async function* changes(uris: string[], signal: AbortSignal): AsyncGenerator<string | null> {
  const response = await post(
    "subscriptions/listen",
    null,
    { notifications: { resourceSubscriptions: uris } },
    {},
    signal,
  );
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split(/\r?\n\r?\n/);
    text = events.pop() ?? "";
    for (const event of events) {
      const data = event
        .split(/\r?\n/)
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5))
        .join("\n");
      if (!data) continue;
      const message = JSON.parse(data) as { method?: string; params?: { uri?: string } };
      if (message.method === "notifications/subscriptions/acknowledged") yield null;
      if (message.method === "notifications/resources/updated" && message.params?.uri) yield message.params.uri;
    }
  }
}

/** The URI of a task, as the node writes it. */
export function taskUri(task: string): string {
  return (
    "mesh://tasks/" +
    encodeURIComponent(task).replace(/[!'()*]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase())
  );
}
