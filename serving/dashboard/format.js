// How values read. Amounts are in main units of a currency, times RFC 3339.

const LIRA = "TRY"; // of rows that an older release wrote without a currency
const SHAPES = {
  whole: { maximumFractionDigits: 0 },
  exact: {},
  short: { notation: "compact", maximumFractionDigits: 1 },
};
const formats = new Map(); // making one takes longer than using it

function formatted(shape, amount, code) {
  const currency = code ?? LIRA;
  const key = shape + currency;
  if (!formats.has(key)) {
    const style = { style: "currency", currency, currencyDisplay: "narrowSymbol", ...SHAPES[shape] };
    formats.set(key, new Intl.NumberFormat(undefined, style));
  }
  return formats.get(key).format(amount);
}

export const money = (amount, currency) => formatted(Math.abs(amount) >= 10_000_000 ? "short" : "whole", amount, currency);
export const moneyExact = (amount, currency) => formatted("exact", amount, currency);
export const moneyShort = (amount, currency) => formatted("short", amount, currency);
export const count = (n) => n.toLocaleString();
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

// In the reader's locale and zone; what stands alone names the zone.
const formatOf = (shape) => {
  const format = new Intl.DateTimeFormat(undefined, shape);
  return (time) => format.format(new Date(time));
};
export const clock = formatOf({ timeStyle: "medium" });
export const minute = formatOf({ hour: "2-digit", minute: "2-digit" });
const date = formatOf({ dateStyle: "short" });
export const shortDateAndTime = formatOf({ dateStyle: "short", timeStyle: "short" });
export const dateAndTime = formatOf({
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "numeric",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});
// The clock of today, the date of other days.
export const when = (time) => (date(time) === date(Date.now()) ? clock(time) : shortDateAndTime(time));

export function zone() {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const parts = new Intl.DateTimeFormat(undefined, { timeZoneName: "shortOffset" }).formatToParts(new Date());
  return `${timeZone} (${parts.find((part) => part.type === "timeZoneName").value})`;
}

export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 100 * 60) return `${Math.round(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} days`;
}

// HIGH_VALUE_BURST → High value burst
export function words(name) {
  const text = name.replaceAll("_", " ").toLowerCase();
  return text.charAt(0).toUpperCase() + text.slice(1);
}
