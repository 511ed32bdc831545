// The address after `#`: a path, and what is asked for on it. Everything that a
// page shows can be linked to and gone back to.

import { signal } from "@preact/signals";

export interface Place {
  path: string[];
  query: URLSearchParams;
}

function read(): Place {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { path: parts, query: new URLSearchParams(query) };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const place = signal<Place>(read());
addEventListener("hashchange", () => (place.value = read()));

export function to(path: string[], query: Record<string, string | undefined> = {}): string {
  const kept = Object.entries(query).filter((entry): entry is [string, string] => !!entry[1]);
  const asked = new URLSearchParams(kept).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${asked ? `?${asked}` : ""}`;
}

export function go(href: string): void {
  location.hash = href;
}

/** As `go`, but going back does not lead here. */
export function become(href: string): void {
  history.replaceState(null, "", href);
  place.value = read();
}
