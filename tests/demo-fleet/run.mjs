// A fleet as an operator has it: three nodes joined by one invite, a real
// Prometheus that finds them through one of them, and the dashboard in Chromium,
// while tasks, an array, a schedule and a workflow go through. Then one node is
// killed.
//
//     node run.mjs TASKMESH FOLDER [MODULES]
//
// TASKMESH is the program; FOLDER gets the nodes' data and the screenshots.
// MODULES has playwright-core; without it, or without Chromium (CHROMIUM names
// it), nothing is looked at. Without `prometheus` nobody watches. STAY=1 shows
// where everything is and waits for Ctrl-C. Nothing is left running.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Mesh, until } from "../dashboard/mesh.mjs";
import { Page, check } from "../dashboard/page.mjs";
import { Prometheus } from "./prometheus.mjs";
import { APPROVAL, ITEMS, Work } from "./work.mjs";

const [taskmesh, folder, modules] = process.argv.slice(2).map((path) => resolve(path));
const chromium = process.env.CHROMIUM ?? "/usr/bin/chromium";
const stays = !!process.env.STAY;
// A lost node is noticed in seconds, not in a minute.
const SETTINGS = ["mesh.beat_ms=300", "mesh.lease_ms=3000", "mesh.stagger_ms=300", "mesh.away_ms=8000"];
const LOST = 3;

for (const part of ["nodes", "prometheus"]) rmSync(`${folder}/${part}`, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
const mesh = new Mesh(taskmesh, `${folder}/nodes`, SETTINGS);
const work = new Work(mesh);
const began = Date.now();
const summary = [];
let prometheus;
let browser;
let tab;

function tell(text) {
  console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(6)} s  ${text}`);
}
function sum(text) {
  summary.push(text);
  tell(text);
}
function seconds(from) {
  return `${((Date.now() - from) / 1000).toFixed(1)} s`;
}
function runs(program) {
  try {
    execFileSync(program, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

async function main() {
  await mesh.start(3);
  sum("three nodes are up; two of them joined by the first one's invite");
  if (runs("prometheus")) await watched();
  else tell("skipped: Prometheus watches the fleet (it can't be installed here)");
  work.begin();
  tell("work goes in through all three nodes");
  if (modules && existsSync(chromium)) await opened();
  else tell(`skipped: the dashboard in Chromium (${modules ? "Chromium" : "playwright-core"} can't be installed here)`);
  if (stays) return await stay();

  if (prometheus) await well();
  await approval();
  if (tab) await pictures();
  await loss();
  await counted();
}

async function watched() {
  const url = mesh.info(1).metrics_url;
  prometheus = await Prometheus.start(`${folder}/prometheus`, [url]);
  const addresses = [1, 2, 3].map((n) => new URL(mesh.info(n).metrics_url).host).sort();
  await until(async () => String(await prometheus.instances()) === String(addresses), "all three nodes are scraped");
  sum(`Prometheus finds all three through ${url}/sd: ${addresses.join(", ")}`);
}

async function opened() {
  const { chromium: playwright } = createRequire(pathToFileURL(`${modules}/`))("playwright-core");
  browser = await playwright.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-gpu"],
    // Signals end everything in order, below.
    handleSIGINT: false,
    handleSIGTERM: false,
  });
  tab = await Page.open(browser, mesh.dashboard(1));
  await tab.page.locator("[data-line=live]").waitFor();
  await tab.page.locator(".mesh [data-health=up]").nth(2).waitFor();
  sum("the dashboard of node 1 shows three nodes, live");
}

/** While nothing is wrong. */
async function well() {
  const busy = "sum(rate(taskmesh_runs_ended_total[1m])) > 0";
  await until(async () => (await prometheus.query(busy)).length > 0, "runs are counted");
  const rules = await prometheus.checkRules();
  const { names, absent } = await prometheus.checkNames(mesh.info(1).metrics_url);
  const { expressions, empty } = await prometheus.checkDashboards();
  sum(`${rules} rules and ${expressions} expressions of the Grafana dashboards evaluate, on ${names} metrics`);
  for (const name of [...absent, ...empty]) tell(`  no data, as nothing of that kind has happened: ${name}`);
  const firing = await prometheus.firing();
  const early = ["TaskmeshNodeDown", "TaskmeshShortOfCopies"].filter((name) => firing.has(name));
  check(early.length === 0, `nothing is wrong yet, and it fires: ${early}`);
}

/** The workflow comes to the step that a person decides. */
async function approval() {
  const waits = () => mesh.json(2, "workflow", "status", "release").steps.find((s) => s.step_id === "approve").status;
  await until(() => waits() === "input_required", "the workflow waits for its approval");
  if (!tab) {
    mesh.call(2, "workflow", "approve", APPROVAL);
  } else {
    const { page } = tab;
    await show("workflows/release");
    await page.locator("[data-step=approve][data-status=input_required]").waitFor();
    await shot("workflow-waits");
    await page.locator("[data-step=approve]").click();
    await page.getByRole("button", { name: "Approve", exact: true }).click();
    await page.getByRole("dialog").waitFor();
    await shot("approval");
    await page.getByRole("dialog").getByRole("button", { name: "Approve" }).click();
    await show("workflows/release");
    await page.locator("[data-step=announce][data-status=completed]").waitFor();
    await shot("workflow");
  }
  await until(() => mesh.json(3, "workflow", "status", "release").status === "completed", "the workflow completes");
  sum(`the workflow waited for approval, was approved ${tab ? "on the page" : "by command"} and completed`);
}

async function show(path) {
  await tab.page.goto(`${mesh.page(1)}#/${path}`);
  await tab.page.locator("main h1").waitFor();
  await tab.page.locator(".skeleton").first().waitFor({ state: "detached" });
}
async function shot(name, page = tab.page, options = {}) {
  // The pointer rests nowhere, and what was done has been said.
  await page.mouse.move(0, 0);
  await page.screenshot({ path: `${folder}/${name}.png`, ...options });
}

async function pictures() {
  const { page } = tab;
  // A chart of a few points shows nothing.
  await until(() => Date.now() - began > 35_000, "the charts have something to show");
  const running = [...work.list(2, "--status", "running").keys()].find((id) => id.startsWith("report-"));
  if (running) {
    await show(`tasks/${running}`);
    await shot("task-running");
  }
  const done = work.accepted.find(({ fails }) => !fails);
  await show(`tasks/${done.id}`);
  await page.locator(".title .chip", { hasText: "completed" }).waitFor();
  await shot("task", page, { fullPage: true });
  await show("tasks/heartbeat");
  await shot("schedule", page, { fullPage: true });
  for (const path of ["tasks", "nodes", "events"]) {
    await show(path);
    await shot(path);
  }
  await show("tasks?status=expired");
  await shot("tasks-none");
  await show("");
  await page.locator(".flow").first().waitFor();
  await shot("overview", page, { fullPage: true });
  await page.emulateMedia({ colorScheme: "dark" });
  await shot("overview-dark", page, { fullPage: true });
  await page.setViewportSize({ width: 390, height: 844 });
  await shot("phone-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await shot("phone");
  await page.evaluate(() => scrollTo({ top: document.querySelector(".mesh").getBoundingClientRect().top - 80 }));
  await shot("phone-mesh");
  await show("tasks");
  await shot("phone-tasks");
  await page.setViewportSize({ width: 1280, height: 900 });
  await show("");
}

/** One node is killed: the page and Prometheus say so, and work goes on. */
async function loss() {
  const victim = mesh.peer(LOST);
  const instance = new URL(mesh.info(LOST).metrics_url).host;
  const before = mesh.json(2, "queue", "stats").completed_count;
  if (tab) await tab.page.locator(`.mesh [data-node="${victim}"][data-health=up]`).waitFor();
  const running = () => [...work.list(2, "--status", "running").values()];
  await until(() => running().some((task) => task.home_node === victim), "it owns what runs");
  const killed = Date.now();
  await mesh.kill(LOST);
  tell(`node ${LOST} is killed (SIGKILL)`);
  await Promise.all([tab && red(victim, killed), prometheus && alerted(instance, killed)]);
  await until(() => mesh.json(2, "queue", "stats").completed_count > before + 30, "work goes on");
  const more = mesh.json(2, "queue", "stats").completed_count - before;
  sum(`work goes on: ${more} more tasks completed ${seconds(killed)} after the kill`);
  if (tab) {
    await show("nodes");
    await shot("nodes-lost");
    tab.well();
  }
}

async function red(victim, killed) {
  const { page } = tab;
  await page.locator(`.mesh [data-node="${victim}"][data-health=down]`).waitFor();
  sum(`the page shows it red ${seconds(killed)} after the kill`);
  const stroke = await page.locator(`.mesh [data-node="${victim}"] .body`).evaluate((m) => getComputedStyle(m).stroke);
  const [r, g, b] = stroke.match(/\d+/g).map(Number);
  check(r > 150 && g < 100 && b < 100, `its colour is ${stroke}`);
  await page.getByText("Node lost").first().waitFor();
  await shot("lost", page, { fullPage: true });
}

async function alerted(instance, killed) {
  const down = `ALERTS{alertname="TaskmeshNodeDown", alertstate="firing", instance="${instance}"}`;
  await until(async () => (await prometheus.query(down)).length > 0, "the alert for the killed node fires");
  sum(`Prometheus fires TaskmeshNodeDown for ${instance} ${seconds(killed)} after the kill`);
  await until(async () => (await prometheus.firing()).has("TaskmeshShortOfCopies"), "so does the one for copies");
  sum(`Prometheus fires TaskmeshShortOfCopies ${seconds(killed)} after the kill`);
  await prometheus.checkRules();
  if (!browser) return;
  const { page, context } = await Page.open(browser, await prometheus.page("alerts"));
  await page.getByText("TaskmeshNodeDown").first().waitFor();
  await shot("alerts", page);
  await context.close();
}

/** Whatever was accepted has ended as it should, through a node that was not killed. */
async function counted() {
  await work.end();
  let missing;
  await until(() => (missing = work.missing(2)).length === 0, "all that was accepted ends").catch((late) => {
    throw new Error(`${late.message}: ${missing.length} of ${work.count}, such as ${missing.slice(0, 5)}`);
  });
  const ticks = [...work.list(2, "--workflow", "heartbeat").values()];
  const fired = mesh.json(2, "task", "status", "heartbeat").schedule.ticks;
  const kept = ticks.filter((tick) => tick.status === "completed").length;
  check(fired > 0 && kept === fired, `${fired} ticks, and ${kept} completed tasks of them`);
  const kinds = `${work.accepted.length} tasks, an array of ${ITEMS}, the steps of a workflow`;
  sum(`lost: none of ${work.count} (${kinds}), as node 2 counts`);
  sum(`the schedule fired ${fired} times, and each is a completed task`);
  if (work.refused > 0) sum(`${work.refused} calls to the killed node got no answer, and are not counted as accepted`);
}

async function stay() {
  await browser?.close();
  console.log("\nOpen, and close with Ctrl-C:");
  for (const n of [1, 2, 3]) console.log(`  node ${n} (pid ${mesh.nodes.get(n).pid}): ${mesh.dashboard(n)}`);
  if (prometheus) console.log(`  Prometheus: ${await prometheus.page("alerts")}`);
  console.log(`  by command: ${taskmesh} --data-dir ${mesh.data(1)} status`);
  console.log(`The workflow \`release\` waits for approval; kill a node (kill -9 PID) and look at the others.`);
  await new Promise(() => {});
}

/** A second call changes nothing. */
let stopping;
function stop() {
  stopping ??= (async () => {
    work.ending.abort();
    await browser?.close();
    await prometheus?.stop();
    await mesh.stop();
  })();
  return stopping;
}
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => void stop().finally(() => process.exit(stays ? 0 : 1)));
}

let status = 0;
try {
  await main();
} catch (problem) {
  if (!stopping) {
    console.error(problem instanceof Error ? problem.stack : problem);
    await tab?.page.screenshot({ path: `${folder}/failed.png`, fullPage: true }).catch(() => {});
    console.error(`what was on screen: ${folder}/failed.png; the logs: ${folder}/nodes/*.log`);
  }
  status = 1;
}
await stop();
console.log(`\nSeen in ${Math.round((Date.now() - began) / 1000)} s:`);
for (const line of summary) console.log(`  ${line}`);
if (tab) console.log(`  screenshots: ${folder}/*.png`);
process.exit(status);
