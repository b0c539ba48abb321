// Builds elements. Text is always set as text, never as HTML: ids and descriptions come from the stream.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function makeSvg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Sets a text only when it differs: a live region says it again otherwise, and a selection is lost.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Where columns do not fit side by side, each cell is a line that names its column.
export function named(tr, names) {
  [...tr.cells].forEach((cell, i) => (cell.dataset.name = names[i]));
  return tr;
}

export const cells = (...texts) => texts.map((text) => make("td", null, text));

export const number = (text) => make("td", { class: "number" }, text);

export const userLink = (userId) => make("a", { href: `#user/${encodeURIComponent(userId)}` }, userId);

// Shows rows in place, a node per key, so that focus and selection stay when other rows come and go.
export function keep(parent, rows, keyOf, build, renew) {
  const wanted = new Set(rows.map((row) => String(keyOf(row))));
  for (const node of [...parent.children]) if (!wanted.has(node.dataset.key)) node.remove(); // first: the others need not move
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let next = parent.firstElementChild;
  for (const row of rows) {
    const key = String(keyOf(row));
    let node = known.get(key);
    if (node) {
      renew?.(node, row);
    } else {
      node = build(row);
      node.dataset.key = key;
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
}
