// A real Prometheus with the configuration and the rules of deploy/, but for how
// often it looks and how long a condition must hold.

import { spawn } from "node:child_process";
import { mkdirSync, openSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { until } from "../dashboard/mesh.mjs";
import { check } from "../dashboard/page.mjs";

const TREE = new URL("../../", import.meta.url).pathname;
const DEPLOY = `${TREE}deploy`;
const RATE = "1m";
/** What no node can show in a minute that is well: a panel of these may be empty. */
const MOSTLY = 0.8;

export class Prometheus {
  /** Finds the fleet through `/sd` of the nodes at `urls`. */
  static async start(folder, urls) {
    const own = new Prometheus();
    mkdirSync(`${folder}/rules`, { recursive: true });
    writeFileSync(`${folder}/prometheus.yml`, configuration(urls));
    for (const name of readdirSync(`${DEPLOY}/prometheus/rules`)) {
      const rules = readFileSync(`${DEPLOY}/prometheus/rules/${name}`, "utf8");
      // A condition that must hold for five minutes must hold for five seconds here.
      const brisk = rules.replaceAll(/\bfor: (\d+)([mh])$/gm, (_, n, unit) => `for: ${n}${unit === "h" ? "m" : "s"}`);
      check(!/\bfor: \d+h/.test(brisk), `deploy/prometheus/rules/${name} has a time that is not known here`);
      writeFileSync(`${folder}/rules/${name}`, brisk);
    }
    const address = `127.0.0.1:${await freePort()}`;
    const log = openSync(`${folder}/prometheus.log`, "w");
    const flags = [`--config.file=${folder}/prometheus.yml`, `--storage.tsdb.path=${folder}/tsdb`];
    own.process = spawn("prometheus", [...flags, `--web.listen-address=${address}`], { stdio: ["ignore", log, log] });
    own.url = `http://${address}`;
    await until(async () => {
      check(own.process.exitCode === null, `Prometheus ended: ${readFileSync(`${folder}/prometheus.log`, "utf8")}`);
      return await fetch(`${own.url}/-/ready`).then((said) => said.ok, () => false);
    }, "Prometheus is ready");
    return own;
  }

  async stop() {
    if (this.process.exitCode !== null) return;
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGTERM");
    if ((await Promise.race([ended, pause(20_000, "late")])) === "late") this.process.kill("SIGKILL");
    await ended;
  }

  /** The address of one of its pages: Debian's has the classic ones alone. */
  async page(name) {
    const said = await fetch(`${this.url}/${name}`);
    return said.ok ? said.url : `${this.url}/classic/${name}`;
  }

  async ask(path, query = {}) {
    const said = await fetch(`${this.url}/api/v1/${path}?${new URLSearchParams(query)}`);
    const answer = await said.json();
    // What is wrong with a query stands in the answer.
    check(answer.status === "success", `${JSON.stringify(query)}: ${answer.error}`);
    return answer.data;
  }

  async query(expression) {
    return (await this.ask("query", { query: expression })).result;
  }

  /** The addresses of all nodes that are scraped, in order. */
  async instances() {
    return (await this.query('up{job="taskmesh"} == 1')).map(({ metric }) => metric.instance).sort();
  }

  async firing() {
    return new Set((await this.query('ALERTS{alertstate="firing"}')).map(({ metric }) => metric.alertname));
  }

  async rules() {
    return (await this.ask("rules")).groups.flatMap((group) => group.rules);
  }

  /** Every rule evaluates: how many there are. */
  async checkRules() {
    await until(async () => (await this.rules()).every((rule) => rule.health !== "unknown"), "all rules are evaluated");
    const rules = await this.rules();
    const wrong = rules.filter((rule) => rule.health !== "ok").map((rule) => `${rule.name}: ${rule.lastError}`);
    check(rules.length > 0 && wrong.length === 0, wrong.join("\n"));
    return rules.length;
  }

  /** Every metric that a rule or a dashboard names is one that a node exposes: how many, and which not yet. */
  async checkNames(nodeUrl) {
    // A counter by reason is not there before it has one.
    const docs = readFileSync(`${TREE}docs/metrics.md`, "utf8");
    const later = new Set([...docs.matchAll(/^\| `(\w+)` \| counter \| `/gm)].map(([, name]) => name));
    const exposed = new Set();
    const text = await (await fetch(`${nodeUrl}/metrics`)).text();
    for (const [, name, type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
      const parts = type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
      for (const part of parts) exposed.add(name + part);
    }
    const rules = (await this.rules()).map((rule) => rule.query);
    const asked = [...rules, ...panels().map((panel) => panel.expression)].join("\n");
    // What is recorded has colons in its name.
    const named = new Set(asked.match(/(?<![\w:])(taskmesh|process|libp2p)_\w+(?![\w:])/g));
    const absent = [...named].filter((name) => !exposed.has(name));
    const unknown = absent.filter((name) => !later.has(name));
    check(named.size > 40 && unknown.length === 0, `no node exposes ${unknown}`);
    return { names: named.size, absent };
  }

  /** Every expression of the dashboards evaluates: how many, and which have no data. */
  async checkDashboards() {
    const all = panels();
    const empty = [];
    for (const panel of all) if ((await this.query(panel.expression)).length === 0) empty.push(panel.name);
    check(all.length > 0 && empty.length < (1 - MOSTLY) * all.length, `most panels are empty: ${empty.join(", ")}`);
    return { expressions: all.length, empty: [...new Set(empty)] };
  }
}

function configuration(urls) {
  const targets = urls.map((url) => `      - url: ${url}/sd\n        refresh_interval: 1s\n`).join("");
  const text = readFileSync(`${DEPLOY}/prometheus/prometheus.yml`, "utf8");
  const one = / {6}- url: \S+\n {8}refresh_interval: \S+\n/g;
  check(text.match(one)?.length === 1, "deploy/prometheus/prometheus.yml has one url");
  return text.replaceAll(/(scrape|evaluation)_interval: \S+/g, "$1_interval: 1s").replace(one, targets);
}

/** What Grafana would ask, with its variables filled in. */
function panels() {
  return readdirSync(`${DEPLOY}/grafana/dashboards`).flatMap((name) => {
    const dashboard = JSON.parse(readFileSync(`${DEPLOY}/grafana/dashboards/${name}`, "utf8"));
    return dashboard.panels.flatMap((panel) =>
      (panel.targets ?? []).map(({ expr }) => ({
        name: `${dashboard.title}: ${panel.title}`,
        expression: expr
          .replaceAll("$__rate_interval", RATE)
          .replaceAll("$job", "taskmesh")
          .replaceAll("$instance", ".*"),
      })),
    );
  });
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
