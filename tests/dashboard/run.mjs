// The dashboard in a real Chromium, before real nodes:
//
//     node run.mjs MODULES TASKMESH FOLDER
//
// MODULES has playwright-core and axe-core (dashboard/ after `npm ci`), TASKMESH
// is the program, FOLDER gets the nodes' data and the screenshots. CHROMIUM
// names the browser if it is not /usr/bin/chromium; DIST a folder whose files are
// tested in place of those in the program, which need not be compiled then.
// Nothing is left running.

import { createRequire } from "node:module";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Mesh } from "./mesh.mjs";
import { Page, check } from "./page.mjs";

const [modules, taskmesh, folder] = process.argv.slice(2).map((path) => resolve(path));
const require = createRequire(pathToFileURL(`${modules}/`));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const screens = `${folder}/screens`;
rmSync(folder, { recursive: true, force: true });
mkdirSync(screens, { recursive: true });

const mesh = new Mesh(taskmesh, `${folder}/nodes`);
let browser;
const began = Date.now();

async function test(what, body) {
  const from = Date.now();
  const said = await body();
  console.log(`ok  ${what}${said ? `: ${said}` : ""} (${((Date.now() - from) / 1000).toFixed(1)} s)`);
}

async function main() {
  await mesh.start(3);
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu"],
  });
  const opened = await Page.open(browser, mesh.dashboard(1));
  const { page } = opened;

  await test("who shows no token, or a wrong one, sees nothing", () => strangers());
  await test("the address opens the page, and the token leaves it", () => opens(opened));
  await test("a task is seen from its submission to its result", () => followed(page));
  await test("texts from the mesh stay texts", () => escaped(page));
  await test("a waiting task gets another priority while the queue is paused", () => paused(page));
  await test("a running task is cancelled after a question, and tried again", () => cancelled(page));
  await test("a workflow is drawn with its critical path and ends on screen", () => workflow(page));
  await test("a viewer is offered nothing that it may not do", () => viewer());
  await test("10,000 tasks are paged through", () => many(opened));
  await test("the keyboard is enough", () => keyboard(page));
  await test("axe finds nothing serious", () => accessible(page));
  await test("nothing is wider than a phone", () => narrow(page));
  await test("a killed node turns red, on the page of every node", () => killed(page));
  await test("a worker is drained", () => drained(page));
  opened.well();
  await test("what does not answer says so", () => silent(opened));
  console.log(`all well in ${Math.round((Date.now() - began) / 1000)} s`);
}

async function strangers() {
  const visitor = await Page.open(browser, mesh.page(1));
  const { page } = visitor;
  await page.getByRole("heading", { name: "Open the dashboard" }).waitFor();
  await page.getByLabel("Or paste a token").fill("tmt_nonsense");
  await page.getByRole("button", { name: "Open" }).click();
  await page.getByRole("alert").filter({ hasText: "does not hold" }).waitFor();
  check((await page.getByText("Overview").count()) === 0, "the overview is shown to nobody");
  await visitor.close(/401/);
}

async function opens({ page }) {
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await page.locator("[data-line=live]").waitFor();
  check(!page.url().includes("token"), `the token stays in ${page.url()}`);
  check(
    await page.evaluate(() => sessionStorage.length === 1 && localStorage.length === 0),
    "the token is kept elsewhere",
  );
  await page.locator(".mesh [data-health=up]").nth(2).waitFor();
  await page.reload();
  await page.locator("[data-line=live]").waitFor();
  const external = page.requests.filter((url) => new URL(url).origin !== new URL(page.url()).origin);
  check(external.length === 0, `asked elsewhere: ${external}`);
}

async function followed(page) {
  await page.goto(`${mesh.page(1)}#/tasks`);
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  const script = "echo to the log >&2; echo $((6 * 7)); sleep 1";
  mesh.submit(2, { task_type: "exec", payload: { argv: ["sh", "-c", script] }, task_id: "answer", tags: ["seen"] });
  await page.getByRole("link", { name: "answer", exact: true }).click();
  await page.locator("h1", { hasText: "answer" }).waitFor();
  await page.locator("pre", { hasText: "to the log" }).waitFor();
  await page.locator(".title .chip", { hasText: "completed" }).waitFor();
  await page.locator("pre", { hasText: "42" }).first().waitFor();
  check((await page.locator(".holders li").count()) === 3, "three holders");
}

async function escaped(page) {
  const evil = "<img/src=x/onerror=alert(1)>";
  mesh.submit(2, {
    task_type: "fail",
    payload: { error: `${evil}<script>alert(2)</script>` },
    task_id: evil,
    tags: [evil],
    retry_policy: { max_retries: 0 },
  });
  await page.goto(`${mesh.page(1)}#/tasks?status=failed`);
  await page.getByRole("link", { name: evil }).first().click();
  await page.locator("h1", { hasText: evil }).waitFor();
  await page.locator(".note", { hasText: "<script>" }).waitFor();
  check((await page.locator("main img, main script").count()) === 0, "a text became an element");
}

async function ask(page, button, verb, fill = async () => {}) {
  await page.getByRole("button", { name: button, exact: true }).first().click();
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  await fill(dialog);
  await dialog.getByRole("button", { name: verb }).click();
  await dialog.waitFor({ state: "hidden" });
}

async function paused(page) {
  await page.goto(`${mesh.page(1)}#/`);
  // A question that is not answered changes nothing.
  await page.getByRole("button", { name: "Pause the queue" }).click();
  await page.getByRole("button", { name: "Keep as it is" }).click();
  check(mesh.json(2, "queue", "stats").paused === false, "paused without a yes");
  await ask(page, "Pause the queue", "Pause the queue", (dialog) => dialog.getByLabel(/Reason/).fill("new disks"));
  await page.getByText("The queue is paused", { exact: true }).waitFor();
  const stats = mesh.json(3, "queue", "stats");
  check(stats.paused && stats.pause_reason === "new disks", JSON.stringify(stats));

  mesh.submit(2, { task_type: "echo", payload: {}, task_id: "urgent" });
  await page.goto(`${mesh.page(1)}#/tasks/urgent`);
  await page.getByText("Why it waits").waitFor();
  await ask(page, "Change priority", "Change it", (dialog) => dialog.getByLabel("New priority").fill("7.5"));
  await page.getByText("is now 7.5").waitFor();
  const listed = mesh.json(3, "task", "list").tasks.find((task) => task.task_id === "urgent");
  check(listed.priority === 7.5, JSON.stringify(listed));

  await page.goto(`${mesh.page(1)}#/`);
  await ask(page, "Resume the queue", "Resume");
  await page.getByText("The queue is paused", { exact: true }).waitFor({ state: "hidden" });
  await page.goto(`${mesh.page(1)}#/tasks/urgent`);
  await page.locator(".title .chip", { hasText: "completed" }).waitFor();
}

async function cancelled(page) {
  mesh.submit(2, { task_type: "sleep", payload: { ms: 600_000 }, task_id: "endless" });
  await page.goto(`${mesh.page(1)}#/tasks/endless`);
  await page.locator(".title .chip", { hasText: "running" }).waitFor();
  await ask(page, "Cancel", "Cancel the task", (dialog) => dialog.getByLabel(/Reason/).fill("too long"));
  await page.locator(".title .chip", { hasText: "cancelled" }).waitFor();
  check(mesh.json(3, "task", "status", "endless").status === "cancelled", "cancelled on screen alone");
  await ask(page, "Try again", "Try again");
  await page.locator("h1", { hasText: "endless-retry-1" }).waitFor();
  await ask(page, "Cancel", "Cancel the task");
  await page.locator(".title .chip", { hasText: "cancelled" }).waitFor();
}

async function workflow(page) {
  const step = (step_id, action, inputs, ...depends_on) => ({ step_id, action, inputs, depends_on });
  // One step goes on until this file is there: all else has ended then, and it is the critical one.
  const gate = `${folder}/gate`;
  const steps = [
    step("fetch", "sleep", { ms: 200 }),
    step("clean", "sleep", { ms: 100 }, "fetch"),
    step("enrich", "exec", { argv: ["sh", "-c", `until [ -e '${gate}' ]; do sleep 0.1; done`] }, "fetch"),
    step("sum", "sleep", { ms: 100 }, "clean"),
    step("plot", "sleep", { ms: 100 }, "clean", "enrich"),
    step("publish", "sleep", { ms: 100 }, "sum", "plot"),
  ];
  const given = steps.flatMap((step) => ["--step", JSON.stringify(step)]);
  mesh.call(2, "workflow", "submit", "Nightly report", "--workflow-id", "nightly", ...given);
  await page.goto(`${mesh.page(1)}#/workflows`);
  await page.reload();
  await page.getByRole("link", { name: "Nightly report" }).click();
  await page.locator("[data-step=enrich][data-status=running]").waitFor();
  await page.locator("[data-step=sum][data-status=completed]").waitFor();
  await page.screenshot({ path: `${screens}/workflow.png` });
  writeFileSync(gate, "");
  await page.locator("[data-step=publish][data-status=completed]").waitFor();
  const path = await page.locator(".step.critical").evaluateAll((all) => all.map((step) => step.dataset.step));
  check(path.includes("enrich") && !path.includes("sum"), `critical: ${path}`);
  check((await page.locator(".edge").count()) === 7, "seven edges");
}

async function viewer() {
  const url = mesh.dashboard(2, "--role", "viewer", "--expires", "10m");
  const visitor = await Page.open(browser, url);
  const { page } = visitor;
  await page.locator("[data-line=live]").waitFor();
  await page.goto(`${mesh.page(2)}#/nodes`);
  await page.getByRole("heading", { name: "Workers" }).waitFor();
  await page.locator("td .meter").first().waitFor();
  check((await page.getByRole("button", { name: "Drain" }).count()) === 0, "a viewer may drain");
  await page.goto(`${mesh.page(2)}#/tasks/endless`);
  await page.locator(".title .chip", { hasText: "cancelled" }).waitFor();
  check((await page.getByRole("button", { name: "Try again" }).count()) === 0, "a viewer may retry");
  await visitor.close();
}

async function many({ page }) {
  const items = Array.from({ length: 10_000 }, (_, n) => ({ n }));
  mesh.submit(1, {
    task_type: "echo",
    payload: {},
    task_id: "many",
    tags: ["many"],
    not_before: "2099-01-01T00:00:00Z",
    items,
  });
  await page.goto(`${mesh.page(1)}#/tasks?tag=many`);
  const shown = page.locator(".pager [role=status]");
  await shown.filter({ hasText: "1 to 100 of 10,000" }).waitFor();
  await page.evaluate(() => {
    window.shifts = 0;
    window.longest = 0;
    new PerformanceObserver((list) =>
      list.getEntries().forEach((e) => (window.shifts += e.hadRecentInput ? 0 : e.value)),
    ).observe({ type: "layout-shift" });
    new PerformanceObserver((list) =>
      list.getEntries().forEach((e) => (window.longest = Math.max(window.longest, e.duration))),
    ).observe({ type: "longtask" });
  });
  const times = [];
  const turn = async (button, text) => {
    const from = Date.now();
    await page.getByRole("button", { name: button }).click();
    await shown.filter({ hasText: text }).waitFor();
    await page.locator("section[aria-busy=false]").waitFor();
    times.push(Date.now() - from);
  };
  const first = () => page.locator("tbody th a").first().textContent();
  const newest = await first();
  check(newest === "many/9999", `the newest is ${newest}`);
  for (let n = 1; n <= 12; n += 1)
    await turn("Next", `${(100 * n + 1).toLocaleString("en")} to ${(100 * n + 100).toLocaleString("en")} of`);
  await turn("Previous", "1,101 to 1,200");
  await turn("Oldest", "1 to 100 of 10,000, oldest first");
  const oldest = await first();
  check(oldest === "many/0", `the oldest is ${oldest}`);
  check((await page.locator("tbody tr").count()) === 100, "a hundred rows");
  await turn("Next", "101 to 200 of 10,000, oldest first");
  await turn("Newest", "1 to 100 of 10,000, newest first");
  const { shifts, longest } = await page.evaluate(() => ({ shifts: window.shifts, longest: window.longest }));
  const sorted = [...times].sort((a, b) => a - b);
  const median = sorted[sorted.length >> 1];
  check(shifts < 0.1, `layout shifts add up to ${shifts}`);
  check(longest < 400, `the page stood still for ${longest} ms`);
  check(median < 2_000, `a page takes ${times} ms`);
  return `median ${median} ms, slowest ${sorted.at(-1)} ms, longest task ${Math.round(longest)} ms, layout shift ${shifts.toFixed(3)}`;
}

async function keyboard(page) {
  await page.goto(`${mesh.page(1)}#/nodes`);
  await page.reload();
  await page.getByRole("heading", { name: "Nodes" }).waitFor();
  await page.keyboard.press("Tab");
  check(
    (await page.evaluate(() => document.activeElement?.textContent)) === "Skip to the content",
    "the first stop leads to the content",
  );
  await page.goto(`${mesh.page(1)}#/tasks`);
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("endle");
  await page
    .getByRole("region", { name: "Matching ids" })
    .getByRole("link", { name: "endless", exact: true })
    .waitFor();
  await page.keyboard.type("ss-retry-1");
  await page.keyboard.press("Enter");
  await page.locator("h1", { hasText: "endless-retry-1" }).waitFor();
  const button = page.getByRole("button", { name: "Try again" });
  await button.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  check(await button.evaluate((b) => b === document.activeElement), "the focus comes back");
}

const VIEWS = ["", "tasks", "tasks/answer", "workflows", "workflows/nightly", "nodes", "events"];

async function accessible(page) {
  let runs = 0;
  const looked = async (what) => {
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    const bad = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    const text = bad
      .map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary}`).join("; ")}`)
      .join("\n");
    check(bad.length === 0, `${what}:\n${text}`);
    runs += 1;
  };
  for (const view of VIEWS) {
    await page.goto(`${mesh.page(1)}#/${view}`);
    await page.locator("main h1").waitFor();
    await page.locator(".skeleton").first().waitFor({ state: "detached" });
    if (runs === 0) await page.evaluate(axe);
    for (const [colorScheme, width, height] of [
      ["light", 1280, 900],
      ["dark", 1280, 900],
      ["light", 390, 844],
      ["dark", 390, 844],
    ]) {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await looked(`/${view}, ${colorScheme}, ${width} wide`);
    }
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto(`${mesh.page(1)}#/tasks/endless`);
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByRole("dialog").waitFor();
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await looked(`a question, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "no-preference" });
  await page.keyboard.press("Escape");
  return `${runs} looks`;
}

async function narrow(page) {
  await page.setViewportSize({ width: 360, height: 780 });
  for (const view of VIEWS) {
    await page.goto(`${mesh.page(1)}#/${view}`);
    await page.locator("main h1").waitFor();
    await page.locator(".skeleton").first().waitFor({ state: "detached" });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    check(wide <= 0, `/${view} is ${wide} px wider than the phone`);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
}

async function drained(page) {
  const worker = await mesh.worker(2);
  await page.goto(`${mesh.page(1)}#/nodes`);
  const row = page
    .locator("tr", { has: page.getByRole("link", { name: worker, exact: true }) })
    .filter({ has: page.getByRole("button", { name: "Drain" }) });
  await row.getByRole("button", { name: "Drain" }).click();
  // It has tasks that go on for a minute: they are handed back after a second.
  await page.getByLabel(/^Seconds until/).fill("1");
  await page.getByRole("button", { name: "Drain the worker" }).click();
  await page.getByText(/takes no more tasks|drains/).waitFor();
  await row.waitFor({ state: "detached" });
  const known = mesh
    .json(1, "queue", "stats", "--include-worker-stats")
    .worker_stats.find((w) => w.worker_id === worker);
  check(known === undefined || known.status === "draining", JSON.stringify(known));
}

async function killed(page) {
  const items = Array.from({ length: 12 }, (_, n) => ({ ms: 60_000 + n }));
  mesh.submit(1, { task_type: "sleep", payload: { ms: 1 }, task_id: "render", tags: ["night"], items });
  await page.goto(`${mesh.page(1)}#/`);
  await page.reload();
  const lost = mesh.peer(3);
  await page.locator(`.mesh [data-node="${lost}"][data-health=up]`).waitFor();
  await page.locator(".mesh .figure", { hasText: "4/4" }).nth(2).waitFor();
  await page.locator(".flow").nth(1).waitFor();
  await page.screenshot({ path: `${screens}/overview.png` });
  const from = Date.now();
  await mesh.kill(3);
  await page.locator(`.mesh [data-node="${lost}"][data-health=down]`).waitFor();
  const seen = Date.now() - from;
  const red = await page.locator(`.mesh [data-node="${lost}"] .body`).evaluate((mark) => getComputedStyle(mark).stroke);
  const [r, g, b] = red.match(/\d+/g).map(Number);
  check(r > 150 && g < 100 && b < 100, `its colour is ${red}`);
  await page.getByText("Node lost").first().waitFor();
  const other = await Page.open(browser, mesh.dashboard(2), {
    colorScheme: "dark",
    viewport: { width: 390, height: 844 },
  });
  await other.page.locator(`.mesh [data-node="${lost}"][data-health=down]`).waitFor();
  check((await other.page.locator(".mesh [data-node]").count()) === 3, "every node shows the whole mesh");
  await other.page.evaluate(() => scrollTo({ top: document.querySelector(".mesh").getBoundingClientRect().top - 140 }));
  await other.page.screenshot({ path: `${screens}/phone.png` });
  await other.close();
  return `red after ${(seen / 1000).toFixed(1)} s`;
}

async function silent(opened) {
  const { page } = opened;
  await mesh.kill(1);
  await page.getByRole("alert").filter({ hasText: "does not answer" }).waitFor();
  check((await page.locator("tr[data-node]").count()) === 3, "what was known is shown still");
  // A node that is gone refuses connections: the browser says so by itself.
  opened.well(/net::ERR_/);
}

let status = 0;
try {
  await main();
} catch (problem) {
  console.error(problem instanceof Error ? problem.stack : problem);
  const left = browser?.contexts().at(0)?.pages().at(0);
  await left?.screenshot({ path: `${screens}/failed.png`, fullPage: true }).catch(() => {});
  console.error(`what was on screen: ${screens}/failed.png; the nodes' logs: ${folder}/nodes/*.log`);
  status = 1;
}
await browser?.close();
await mesh.stop();
process.exit(status);
