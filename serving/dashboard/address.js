// The filters, kept in the address: a link to the page shows what its sender sees.

export const FILTERS = ["rule", "state", "q"];

export function filters() {
  const given = new URLSearchParams(location.search);
  return Object.fromEntries(FILTERS.map((name) => [name, given.get(name) ?? ""]));
}

// Without a step in the history: Back leaves what is open, it does not undo each letter of a search.
export function setFilter(name, value) {
  const url = new URL(location.href);
  if (value) url.searchParams.set(name, value);
  else url.searchParams.delete(name);
  history.replaceState(null, "", url);
}
