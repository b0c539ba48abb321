// Keys for those who go through many alerts: j and k to the next and the one before, Enter opens, c, f and n say what it
// is, / searches, ? shows this.

import { byId } from "./dom.js";
import { setState, stateOf } from "./states.js";

const STATES = { c: "confirmed", f: "false_alarm", n: "new" };
const isWriting = (element) => element.matches("input:not([type=button]), select, textarea");

// Args: find(id): the alert of a card; refused(text): shows why a state was not kept.
export function listen({ find, refused }) {
  const list = byId("alerts").querySelector("ol");
  const help = byId("help");
  const drawer = byId("detail");

  const idOf = (card) => decodeURIComponent(card.querySelector(".cover").hash.split("/")[2]);
  const cards = () => [...list.children];
  const current = () =>
    drawer.open ? cards().find((card) => card.querySelector(".cover").hash === location.hash) : document.activeElement.closest("#alerts ol > li");

  function go(step) {
    const all = cards();
    const at = all.indexOf(current());
    const card = all[at < 0 ? 0 : Math.min(Math.max(at + step, 0), all.length - 1)];
    if (!card) return;
    const cover = card.querySelector(".cover");
    if (drawer.open) {
      location.replace(cover.hash); // one step back leaves the drawer, however many were looked at
      card.scrollIntoView({ block: "nearest" });
    } else cover.focus();
  }

  async function label(state) {
    if (drawer.open) {
      byId("judgement")?.querySelector(`[data-state="${state}"]`)?.click(); // with the note that stands there
      return;
    }
    const card = current();
    const alert = card && find(idOf(card));
    if (!alert || stateOf(alert.alert_id).state === state) return;
    const after = card?.nextElementSibling ?? card?.previousElementSibling;
    try {
      await setState(alert, state);
      // It may have left a list of one state; who was on it goes on at the next.
      requestAnimationFrame(() => requestAnimationFrame(() => card.isConnected || after?.querySelector(".cover").focus()));
    } catch (error) {
      refused(`Not kept: ${error.message}.`);
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isWriting(event.target) || help.open) return;
    const { key } = event;
    if (key === "j" || key === "k") go(key === "j" ? 1 : -1);
    else if (key in STATES) {
      if (!event.repeat) label(STATES[key]);
    }
    else if (key === "/" && !drawer.open) byId("search").focus();
    else if (key === "?") help.showModal();
    else return;
    event.preventDefault();
  });
  byId("help-open").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());
  help.addEventListener("click", (event) => event.target === help && help.close());
}
