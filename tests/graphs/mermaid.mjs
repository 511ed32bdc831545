// Whether mermaid's own parser takes the graphs of a folder:
//
//     node mermaid.mjs MODULES FOLDER
//
// MODULES is the folder that .ci/npm filled, with mermaid and jsdom: mermaid
// cleans its texts by means of a browser's document.

import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, folder] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${modules}/`));
const { JSDOM } = require("jsdom");
const { window } = new JSDOM("");
globalThis.window = window;
globalThis.document = window.document;
const { default: mermaid } = await import(pathToFileURL(require.resolve("mermaid/dist/mermaid.core.mjs")));

async function complaint(text) {
  try {
    const { diagramType } = await mermaid.parse(text);
    return diagramType.startsWith("flowchart") ? null : `taken for a ${diagramType}`;
  } catch (e) {
    return e.message;
  }
}

// A parser that takes everything shows nothing.
for (const wrong of ["flowchart LR\n  end[\"a\"]\n", "flowchart LR\n  a[\"b\"\n", "no graph"]) {
  if ((await complaint(wrong)) === null) throw new Error(`mermaid takes ${JSON.stringify(wrong)}`);
}
const files = readdirSync(folder).filter((name) => name.endsWith(".mmd"));
if (files.length === 0) throw new Error(`${folder} has no graphs`);
for (const name of files) {
  const text = readFileSync(join(folder, name), "utf8");
  const problem = await complaint(text);
  if (problem !== null) throw new Error(`${name}: ${problem}\n${text}`);
}
console.log(`mermaid takes all ${files.length} graphs`);
