// Where the reader is: the part of the address after "#", as a path and a query.

import { signal } from "./vendor/ui.js";

const read = () => {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").filter(Boolean).map(decodeURIComponent), query: Object.fromEntries(new URLSearchParams(query)) };
};

export const route = signal(read());

addEventListener("hashchange", () => (route.value = read()));

export const go = (hash) => (location.hash = hash);

/** The same place with other fields of the query; it takes the place of this one in the history. */
export function narrow(fields) {
  const query = Object.entries({ ...route.value.query, ...fields }).filter(([, value]) => value !== "" && value != null);
  const path = location.hash.split("?")[0] || "#/";
  history.replaceState(null, "", path + (query.length ? "?" + new URLSearchParams(query) : ""));
  route.value = read();
}
