// The TypeScript clients of MCP against a running node, and the budget of the
// tools' definitions in tokens:
//
//     node clients.mjs MODULES URL TOKEN-FILE VIEWER-FILE TASKMESH DATA-FOLDER
//
// MODULES is the folder that .ci/npm filled. Client 2 (both eras) and SDK 1,
// each over HTTP and stdio: connects, lists, submits an echo and an exec task,
// waits, reads, and is refused clearly, for its arguments and for a token that
// may only look.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, url, tokenFile, viewerFile, binary, folder] = process.argv.slice(2);
const resolve = createRequire(pathToFileURL(`${modules}/`)).resolve;
const load = (name) => import(pathToFileURL(resolve(name)));
const viewer = readFileSync(viewerFile, "utf8").trim();
const bearer = (token) => ({ requestInit: { headers: { Authorization: `Bearer ${token}` } } });
const owner = bearer(readFileSync(tokenFile, "utf8").trim());
// All 26 operations must stay below; what is left is for those to come.
const TOKENS = 8000;

function check(condition, message) {
  if (!condition) throw new Error(message);
}

async function call(client, name, args) {
  const result = await client.callTool({ name, arguments: args });
  check(JSON.stringify(JSON.parse(result.content[0].text)) === JSON.stringify(result.structuredContent), name);
  return [result.isError === true, result.structuredContent];
}

async function succeeds(client, name, args) {
  const [failed, content] = await call(client, name, args);
  check(!failed && content.success, `${name}: ${JSON.stringify(content)}`);
  return content;
}

async function fails(client, name, args) {
  const [failed, content] = await call(client, name, args);
  check(failed && content.success === false, `${name}: ${JSON.stringify(content)}`);
  return content;
}

async function ended(client, task_id) {
  for (let n = 0; n < 20; n++) {
    const left = await succeeds(client, "task_result", { task_id, wait_ms: 5000 });
    if (["completed", "failed", "cancelled", "expired"].includes(left.status)) return left;
  }
  throw new Error(`${task_id} has not ended`);
}

async function works(client) {
  const { tools } = await client.listTools();
  check(tools.some((tool) => tool.name === "task_submit"), "no task_submit");
  const payload = { greeting: "grün", numbers: [1, 2.5, null] };
  const echo = await succeeds(client, "task_submit", { task_type: "echo", payload });
  check(JSON.stringify((await ended(client, echo.task_id)).result) === JSON.stringify(payload), "another echo");
  const program = { task_type: "exec", payload: { argv: ["echo", "from a program"] } };
  const exec = await succeeds(client, "task_submit", program);
  check((await ended(client, exec.task_id)).output === "from a program\n", "another output");
  const read = await client.readResource({ uri: `mesh://tasks/${exec.task_id}` });
  check(JSON.parse(read.contents[0].text).status === "completed", JSON.stringify(read));
  const missing = await fails(client, "task_status", { task_id: "no-such-task" });
  check(missing.code === "not_found", JSON.stringify(missing));
  const unknown = await fails(client, "task_status", { task_id: "x", explian: true });
  check(unknown.code === "invalid_argument" && unknown.error.includes("explain"), JSON.stringify(unknown));
  for (const [args, named] of [
    [{ task_type: "echo" }, "payload"],
    [{ payload: {} }, "task_type"],
    [{ task_type: "echo", payload: "text" }, "payload"],
    [{ task_type: "echo", payload: {}, priority: -1 }, "priority"],
  ]) {
    const bad = await fails(client, "task_submit", args);
    check(bad.code === "invalid_argument" && bad.error.includes(named), JSON.stringify(bad));
  }
  return tools;
}

// With a viewer's token: reads, and is told what it lacks for more.
async function looks(client) {
  const { tools } = await client.listTools();
  check(!tools.some((tool) => tool.name === "task_submit"), "task_submit is offered to a viewer");
  await succeeds(client, "queue_stats", {});
  const refused = await fails(client, "task_submit", { task_type: "echo", payload: {} });
  check(refused.code === "permission_denied", JSON.stringify(refused));
  check(/the role submitter.*viewer/.test(refused.error), JSON.stringify(refused));
}

const info = { name: "test", version: "1" };
const stdio = { command: binary, args: ["mcp", "--data-dir", folder] };
const lookStdio = { ...stdio, env: { TASKMESH_TOKEN: viewer } };
let definitions = [];

async function talk(what, client, transport, looker, look) {
  await client.connect(transport);
  definitions = await works(client);
  await client.close();
  await looker.connect(look);
  await looks(looker);
  await looker.close();
  console.log(`${what}: ${definitions.length} tools: well`);
}

const { Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client");
const { StdioClientTransport } = await load("@modelcontextprotocol/client/stdio");
const http = (auth) => new StreamableHTTPClientTransport(new URL(url), auth);
const piped = (server) => new StdioClientTransport(server);
for (const mode of ["auto", "legacy"]) {
  const client = () => new Client(info, { versionNegotiation: { mode } });
  await talk(`client 2, ${mode}, over HTTP`, client(), http(owner), client(), http(bearer(viewer)));
  await talk(`client 2, ${mode}, over stdio`, client(), piped(stdio), client(), piped(lookStdio));
}

const sdk = "@modelcontextprotocol/sdk/client";
const { Client: Client1 } = await load(`${sdk}/index.js`);
const { StreamableHTTPClientTransport: Http1 } = await load(`${sdk}/streamableHttp.js`);
const { StdioClientTransport: Stdio1 } = await load(`${sdk}/stdio.js`);
const client1 = () => new Client1(info);
const http1 = (auth) => new Http1(new URL(url), auth);
await talk("sdk 1 over HTTP", client1(), http1(owner), client1(), http1(bearer(viewer)));
await talk("sdk 1 over stdio", client1(), new Stdio1(stdio), client1(), new Stdio1(lookStdio));

const { getEncoding } = await load("js-tiktoken");
const tokens = getEncoding("o200k_base").encode(JSON.stringify(definitions)).length;
console.log(`${definitions.length} definitions: ${tokens} tokens (o200k_base) of ${TOKENS}`);
check(tokens <= TOKENS, "the definitions of the tools are over their budget");
