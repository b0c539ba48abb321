// How values read. Amounts are TRY in major units, times RFC 3339.

const whole = new Intl.NumberFormat(undefined, {
  style: "currency",
  currency: "TRY",
  currencyDisplay: "narrowSymbol",
  maximumFractionDigits: 0,
});
const exact = new Intl.NumberFormat(undefined, { style: "currency", currency: "TRY", currencyDisplay: "narrowSymbol" });
const short = new Intl.NumberFormat(undefined, {
  style: "currency",
  currency: "TRY",
  currencyDisplay: "narrowSymbol",
  notation: "compact",
  maximumFractionDigits: 1,
});

export const money = (amount) => (Math.abs(amount) >= 10_000_000 ? short : whole).format(amount);
export const moneyExact = (amount) => exact.format(amount);
export const moneyShort = (amount) => short.format(amount);
export const count = (n) => n.toLocaleString();
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export const clock = (time) => new Date(time).toLocaleTimeString(undefined, { hourCycle: "h23" });
export const minute = (time) =>
  new Date(time).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
export const dateAndTime = (time) => new Date(time).toLocaleString(undefined, { hourCycle: "h23" });

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
