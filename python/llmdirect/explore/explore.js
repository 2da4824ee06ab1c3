// Faster navigation; links and forms work without it.
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
  let latest = 0;
  const close = () => { box.hidden = true; };
  input.addEventListener("input", async () => {
    const request = ++latest;
    const query = new URLSearchParams({ q: input.value, part: input.dataset.suggest });
    const { ok, html } = await fragment("/search?" + query);
    if (request !== latest) return;
    box.innerHTML = ok ? html : "";
    box.hidden = !ok || !html;
  });
  input.closest(".find").addEventListener("keydown", (event) => {
    if (event.key === "Escape") { close(); input.focus(); }
    if (event.key === "Enter" && input.dataset.suggest === "items") event.preventDefault();
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const targets = [input, ...box.querySelectorAll("a, input")];
    const next = targets.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    if (!box.hidden && targets[next]) { event.preventDefault(); targets[next].focus(); }
  });
  document.addEventListener("click", (event) => {
    if (!input.closest(".find").contains(event.target)) close();
  });
  if (input.dataset.suggest !== "items") return;
  // A picked suggestion moves to the items below.
  const picks = document.getElementById("picks");
  box.addEventListener("change", (event) => {
    const same = [...picks.querySelectorAll("input")].find((box) => box.value === event.target.value);
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

// Vertical positions of the items, for the transition to their new ones.
function positions(list) {
  const tops = new Map();
  for (const row of list.querySelectorAll(".rec")) tops.set(row.dataset.item, row.getBoundingClientRect().top);
  return tops;
}

function replaceList(list, html) {
  const before = positions(list);
  const open = new Map();
  for (const row of list.querySelectorAll(".rec:has(details[open])")) {
    open.set(row.dataset.item, row.querySelector(".why").innerHTML);
  }
  const picked = new Set([...list.querySelectorAll(".pick input:checked")].map((box) => box.value));
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
  document.getElementById("status").textContent = list.querySelector("p").textContent;
  showCompare(list);
}

function whatIf(form, list) {
  let pending = null;
  let running = false;
  const fields = () => {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (!/^a\d+$/.test(name) || value !== "1") query.append(name, value);
    }
    return query;
  };
  const showFactors = () => {
    for (const range of form.querySelectorAll("input[type=range]")) {
      range.closest(".slider").classList.toggle("moved", range.value !== "1");
      range.closest(".slider").querySelector("output").textContent = "×" + Number(range.value);
    }
  };
  const refresh = async () => {
    showFactors();
    pending = form.getAttribute("action") + "?" + fields();
    if (running) return;  // the running request sees the pending one
    running = true;
    while (pending) {
      const address = pending;
      pending = null;
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
  showFactors();
  // Narrow pages show the list first, with the sliders folded.
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
