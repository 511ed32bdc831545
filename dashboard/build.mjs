// Bundles the page into dist/, which is committed and built into the node:
//
//     node build.mjs            writes dist/
//     node build.mjs --check    fails if dist/ is not what the source gives
//
// dist/licences.txt has the licence of every package that is in the bundle.

import { build } from "esbuild";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");

/** Every file of the page by its name, as bytes. */
export async function bundle({ minify = true } = {}) {
  const { outputFiles, metafile } = await build({
    absWorkingDir: here,
    entryPoints: { app: "src/main.tsx" },
    outdir: "dist",
    bundle: true,
    format: "esm",
    target: ["chrome123", "firefox121", "safari17.5"],
    jsx: "automatic",
    jsxImportSource: "preact",
    minify,
    charset: "utf8",
    legalComments: "none",
    metafile: true,
    write: false,
  });
  const files = new Map(outputFiles.map((file) => [relative(dist, file.path), Buffer.from(file.contents)]));
  for (const name of ["index.html", "icon.svg"]) files.set(name, readFileSync(join(here, "src", name)));
  files.set("licences.txt", Buffer.from(licences(Object.keys(metafile.inputs))));
  return files;
}

function licences(inputs) {
  const packages = new Set();
  for (const path of inputs) {
    const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
    if (found) packages.add(found[1]);
  }
  const texts = [...packages].sort().map((name) => {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} has no licence file`);
    // What a package has bundled itself.
    const legal = inputs
      .map((path) => join(here, `${path}.LEGAL.txt`))
      .find((path) => path.startsWith(folder) && existsSync(path));
    const own = [join(folder, file), ...(legal ? [legal] : [])].map((path) => readFileSync(path, "utf8").trim());
    return `${name} ${version} (${license})\n\n${own.join("\n\n")}\n`;
  });
  const head = "The dashboard of taskmesh contains these packages, under their own licences.\n";
  return [head, ...texts].join("\n" + "-".repeat(80) + "\n\n");
}

async function main() {
  const files = await bundle();
  if (process.argv.includes("--check")) {
    const committed = existsSync(dist) ? readdirSync(dist).sort() : [];
    const made = [...files.keys()].sort();
    const differs = made.filter(
      (name) => !committed.includes(name) || !readFileSync(join(dist, name)).equals(files.get(name)),
    );
    const extra = committed.filter((name) => !files.has(name));
    if (differs.length || extra.length) {
      console.error(
        `dashboard/dist is not what the source gives: ${[...differs, ...extra].join(", ")}; run make dashboard`,
      );
      process.exit(1);
    }
    console.log(`dashboard/dist is what the source gives: ${made.length} files`);
    return;
  }
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(dist, { recursive: true });
  for (const [name, bytes] of files) {
    writeFileSync(join(dist, name), bytes);
    console.log(`${name.padEnd(14)} ${(bytes.length / 1024).toFixed(1)} KiB`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
