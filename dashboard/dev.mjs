// Serves the page from its source, built anew for each load, before a node that
// runs, so that working on the page compiles no Rust:
//
//     npm run dev -- DATA-FOLDER [PORT]
//
// DATA-FOLDER is the node's. The address with its token is printed.

import { createServer, request } from "node:http";
import { readFileSync } from "node:fs";
import { bundle } from "./build.mjs";

const [folder, port = "0"] = process.argv.slice(2);
const node = () => JSON.parse(readFileSync(`${folder}/node.json`, "utf8"));
const types = {
  html: "text/html; charset=utf-8",
  js: "text/javascript",
  css: "text/css",
  svg: "image/svg+xml",
  txt: "text/plain",
};
// As the node has it: src/api/dashboard.rs.
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

let files = await bundle({ minify: false });
const server = createServer(async (asked, answer) => {
  if (asked.url.startsWith("/mcp")) {
    const target = new URL(node().api_url);
    const { host, origin, ...headers } = asked.headers;
    const onward = request({
      host: target.hostname,
      port: target.port,
      path: target.pathname,
      method: asked.method,
      headers,
    });
    onward.on("response", (given) => {
      answer.writeHead(given.statusCode, given.headers);
      given.pipe(answer);
    });
    onward.on("error", () => answer.writeHead(502).end());
    answer.on("close", () => onward.destroy());
    asked.pipe(onward);
    return;
  }
  const name = asked.url.replace(/^\/dashboard\/?/, "").split("?")[0] || "index.html";
  if (name === "index.html") files = await bundle({ minify: false }).catch((e) => (console.error(e.message), files));
  const bytes = files.get(name);
  if (!bytes) return answer.writeHead(404).end();
  answer.writeHead(200, { "content-type": types[name.split(".").pop()], "content-security-policy": POLICY }).end(bytes);
});
server.listen(Number(port), "127.0.0.1", () => {
  const token = readFileSync(`${folder}/token`, "utf8").trim();
  console.log(`http://127.0.0.1:${server.address().port}/dashboard/#token=${token}`);
});
