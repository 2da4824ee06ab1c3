// Makes the pages quicker than links and forms alone, which work without it.
"use strict";
document.documentElement.classList.add("js");

const calm = matchMedia("(prefers-reduced-motion: reduce)");

async function fragment(address) {
  const answer = await fetch(address);
  return { ok: answer.ok, html: await answer.text() };
}

function withPart(address) {
  return address + (address.includes("?") ? "&" : "?") + "part=1";
}

// Suggestions below a search field.
function suggest(input) {
  const box = document.getElementById(input.getAttribute("aria-controls"));
  let asked = 0;
  const close = () => { box.hidden = true; };
  input.addEventListener("input", async () => {
    const mine = ++asked;
    const query = new URLSearchParams({ q: input.value, part: input.dataset.suggest });
    const { ok, html } = await fragment("/search?" + query);
    if (mine !== asked) return;
    box.innerHTML = ok ? html : "";
    box.hidden = !ok || !html;
  });
  input.closest(".find").addEventListener("keydown", (event) => {
    if (event.key === "Escape") { close(); input.focus(); }
    if (event.key === "Enter" && input.dataset.suggest === "items") event.preventDefault();
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const places = [input, ...box.querySelectorAll("a, input")];
    const next = places.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    if (!box.hidden && places[next]) { event.preventDefault(); places[next].focus(); }
  });
  document.addEventListener("click", (event) => {
    if (!input.closest(".find").contains(event.target)) close();
  });
  if (input.dataset.suggest !== "items") return;
  // What is picked from the suggestions moves to the items below.
  const picks = document.getElementById("picks");
  box.addEventListener("change", (event) => {
    const same = [...picks.querySelectorAll("input")].find((one) => one.value === event.target.value);
    if (same) same.checked = true;
    else picks.prepend(event.target.closest("li"));
    input.value = "";
    close();
    input.focus();
  });
}

// An item of the list fetches its explanation when it is opened.
async function load(details) {
  const body = details.querySelector(".why");
  body.classList.add("busy");
  const { html } = await fragment(withPart(details.dataset.load));
  body.innerHTML = html;
  body.classList.remove("busy");
}

function whenOpened(list) {
  list.addEventListener("toggle", (event) => {
    if (event.target.matches("details[data-load]") && event.target.open) load(event.target);
  }, true);
}

// Where items were, so that they are seen to move to where they are.
function places(list) {
  const found = new Map();
  for (const row of list.querySelectorAll(".rec")) found.set(row.dataset.item, row.getBoundingClientRect().top);
  return found;
}

function replaceList(list, html) {
  const before = places(list);
  const open = new Map();
  for (const row of list.querySelectorAll(".rec:has(details[open])")) {
    open.set(row.dataset.item, row.querySelector(".why").innerHTML);
  }
  const picked = new Set([...list.querySelectorAll(".pick input:checked")].map((one) => one.value));
  list.innerHTML = html;
  for (const row of list.querySelectorAll(".rec")) {
    if (open.has(row.dataset.item)) {
      row.querySelector(".why").innerHTML = open.get(row.dataset.item);
      row.querySelector("details").open = true;
    }
    row.querySelector(".pick input").checked = picked.has(row.dataset.item);
  }
  if (!calm.matches) {
    for (const row of list.querySelectorAll(".rec")) {
      const was = before.get(row.dataset.item);
      if (was === undefined) continue;
      row.style.transition = "none";
      row.style.transform = `translateY(${was - row.getBoundingClientRect().top}px)`;
      requestAnimationFrame(() => { row.style.transition = ""; row.style.transform = ""; });
    }
  }
  document.getElementById("told").textContent = list.querySelector("p").textContent;
  showCompare(list);
}

function whatIf(form, list) {
  let wanted = null;
  let running = false;
  const fields = () => {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (!/^a\d+$/.test(name) || value !== "1") query.append(name, value);
    }
    return query;
  };
  const tell = () => {
    for (const range of form.querySelectorAll("input[type=range]")) {
      range.closest(".slider").classList.toggle("moved", range.value !== "1");
      range.closest(".slider").querySelector("output").textContent = "×" + Number(range.value);
    }
  };
  const refresh = async () => {
    tell();
    wanted = form.getAttribute("action") + "?" + fields();
    if (running) return;  // the one under way sees that another is wanted
    running = true;
    while (wanted) {
      const address = wanted;
      wanted = null;
      const { ok, html } = await fragment(withPart(address));
      if (ok) {
        replaceList(list, html);
        history.replaceState(null, "", address);
      }
    }
    running = false;
  };
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
  form.querySelector("[data-reset]").addEventListener("click", (event) => {
    event.preventDefault();
    for (const range of form.querySelectorAll("input[type=range]")) range.value = "1";
    for (const box of form.querySelectorAll("input[type=checkbox]")) box.checked = false;
    refresh();
  });
  tell();
  // Narrow pages show the list first; the sliders are a touch away.
  if (matchMedia("(max-width: 59.9rem)").matches) form.querySelector(".fold").open = false;
}

function showCompare(list) {
  const picked = list.querySelectorAll(".pick input:checked").length;
  const bar = list.querySelector(".compare");
  if (!bar) return;
  bar.classList.toggle("ready", picked > 0);
  const button = bar.querySelector("button");
  button.disabled = picked !== 2;
  button.textContent = picked === 2 ? "Compare the two" : picked < 2 ? "Pick one more to compare" : "Pick only two";
}

for (const input of document.querySelectorAll("[data-suggest]")) suggest(input);
const list = document.querySelector("[data-list]");
if (list) {
  whenOpened(list);
  list.addEventListener("change", () => showCompare(list));
  showCompare(list);
  whatIf(document.querySelector("[data-what-if]"), list);
}
