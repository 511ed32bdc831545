// A tab that notices everything that goes wrong in it.

import { readFileSync } from "node:fs";

export function check(condition, message) {
  if (!condition) throw new Error(message);
}

/** The files of a folder in place of those in the program, with the node's headers. */
async function freshly(context, folder) {
  await context.route(/\/dashboard\/[a-z.]*$/, async (route) => {
    const name = new URL(route.request().url()).pathname.split("/").pop() || "index.html";
    const response = await route.fetch().catch(() => null);
    if (!response) return route.abort("connectionrefused");
    await route.fulfill({ response, body: readFileSync(`${folder}/${name}`) });
  });
}

export class Page {
  static async open(browser, url, options = {}) {
    const context = await browser.newContext({
      viewport: { width: 1280, height: 900 },
      colorScheme: "light",
      ...options,
    });
    context.setDefaultTimeout(30_000);
    const opened = new Page();
    opened.context = context;
    opened.page = await context.newPage();
    opened.wrong = [];
    opened.page.requests = [];
    opened.page.on("request", (request) => opened.page.requests.push(request.url()));
    opened.page.on("pageerror", (error) => opened.wrong.push(`error: ${error.stack}`));
    opened.page.on("dialog", (dialog) => opened.wrong.push(`dialog: ${dialog.message()}`) && dialog.dismiss());
    opened.page.on("console", (said) => {
      if (["error", "warning"].includes(said.type()))
        opened.wrong.push(`console: ${said.text()} ${said.location().url}`);
    });
    if (process.env.DIST) await freshly(context, process.env.DIST);
    await opened.page.goto(url);
    return opened;
  }

  /** Nothing went wrong, but for what is expected. */
  well(expected) {
    const wrong = this.wrong.filter((said) => !expected?.test(said));
    check(wrong.length === 0, `in the tab:\n${wrong.join("\n")}`);
    if (expected) check(this.wrong.length > 0, `nothing said ${expected}`);
  }

  async close(expected) {
    this.well(expected);
    await this.context.close();
  }
}
