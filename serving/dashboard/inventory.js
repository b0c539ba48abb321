// Products that are low on stock, as the job that follows the database tells; nothing while there is no such job.

import { byId, keep, make, number, say } from "./dom.js";
import { count, moneyExact } from "./format.js";

function row(product) {
  return make(
    "tr",
    null,
    make("td", null, product.name, " ", make("span", { class: "hint" }, product.category ?? "")),
    make("td", { class: `number${product.stock > 0 ? "" : " bad"}` }, count(product.stock)),
    number(count(product.low_stock_threshold)),
    number(moneyExact(product.price, product.currency)),
  );
}

export function showInventory(products, isRunning) {
  const panel = byId("inventory");
  const empty = panel.querySelector(".empty");
  panel.hidden = !products.length && !isRunning;
  keep(panel.querySelector("tbody"), products, (p) => `${p.product_id} ${p.stock} ${p.price} ${p.name}`, row);
  panel.querySelector(".scroll").hidden = !products.length;
  empty.hidden = products.length > 0;
  say(empty, "No product is low on stock.");
}
