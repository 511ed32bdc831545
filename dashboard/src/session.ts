// Who looks: a token that came in the fragment of the address, which no server
// is sent, or that was pasted. It lives as long as the tab.

import { signal } from "@preact/signals";
import { become } from "./route.ts";

const KEY = "taskmesh.token";
/** No token of a mesh is longer; what an authorisation server gives may be. */
const LONGEST = 16 * 1024;

export const token = signal<string | null>(null);
/** Why the last token was let go of, for the form that asks for another. */
export const refused = signal<string | null>(null);

/** Takes the token out of the address, so that it stays in no history of this tab. */
export function begin(): void {
  token.value = sessionStorage.getItem(KEY);
  take();
  // An address that is opened where the page is open already loads nothing.
  addEventListener("hashchange", take);
}

function take(): void {
  const given = /^#token=([^&]+)$/.exec(location.hash)?.[1];
  if (given === undefined) return;
  become(location.pathname + location.search);
  enter(given);
}

export function enter(text: string): boolean {
  const shown = text.trim();
  // What is no header can't be sent.
  if (!/^[\x21-\x7e]+$/.test(shown) || shown.length > LONGEST) return false;
  sessionStorage.setItem(KEY, shown);
  refused.value = null;
  token.value = shown;
  return true;
}

export function leave(why: string | null = null): void {
  sessionStorage.removeItem(KEY);
  refused.value = why;
  token.value = null;
}
