"use strict";

// A classic script in the head: the chosen theme is there before the first paint. Modules run after it.
(() => {
  const KEY = "streamforge.theme";
  const NEXT = { system: "light", light: "dark", dark: "system" };
  const root = document.documentElement;

  function remembered() {
    try {
      const theme = localStorage.getItem(KEY);
      return theme in NEXT ? theme : "system";
    } catch {
      return "system"; // storage is forbidden: the choice lasts as long as the page
    }
  }

  function use(theme) {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${theme}`;
    document.dispatchEvent(new Event("themechange"));
  }

  function choose(theme) {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // as above
    }
    use(theme);
  }

  use(remembered());
  addEventListener("DOMContentLoaded", () => {
    use(root.dataset.theme);
    document.getElementById("theme").addEventListener("click", () => choose(NEXT[root.dataset.theme]));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => use(root.dataset.theme));
  });
})();
