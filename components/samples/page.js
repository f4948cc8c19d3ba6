// The page itself: filters, and a list that holds only the rows in view.

const TALLEST = 8e6; // pixels; browsers show no element that is much taller
const list = $("list");
const space = $("space");
const CONTROLS = ["iteration", "group", "cut", "sort", "order"];

// Puts the rows in view into the list. Beyond TALLEST the scroll bar stands for all rows, and a pixel for several.
function renderRows() {
  const row = Number.parseFloat(getComputedStyle(list).getPropertyValue("--row"));
  const total = view.rows.length * row;
  const height = Math.min(total, TALLEST);
  const seen = list.clientHeight;
  space.style.height = `${height}px`;
  const offset = height > seen ? (list.scrollTop / (height - seen)) * (total - seen) : 0;
  const first = Math.max(0, Math.floor(offset / row) - 2);
  const last = Math.min(view.rows.length, Math.ceil((offset + seen) / row) + 2);
  const made = [];
  for (let at = first; at < last; at++) made.push(rowElement(at, list.scrollTop + at * row - offset));
  space.replaceChildren(...made);
  if (view.at >= first && view.at < last) list.setAttribute("aria-activedescendant", `row-${view.at}`);
  else list.removeAttribute("aria-activedescendant");
}

// Scrolls until a row is in view.
function reveal(position) {
  const row = Number.parseFloat(getComputedStyle(list).getPropertyValue("--row"));
  const [total, seen] = [view.rows.length * row, list.clientHeight];
  const scale = total > TALLEST ? (TALLEST - seen) / (total - seen) : 1;
  const offset = list.scrollTop / scale;
  if (position * row < offset) list.scrollTop = position * row * scale;
  else if ((position + 1) * row > offset + seen) list.scrollTop = ((position + 1) * row - seen) * scale;
}

// Shows a row's sample in full; `open` brings it to the front where there is no room for both.
function choose(position, open = true) {
  view.at = position;
  const detail = $("detail");
  const back = el("button", { type: "button", class: "back", text: "Back to the list" });
  back.addEventListener("click", () => {
    document.body.classList.remove("open");
    reveal(view.at); // some browsers forget how far a hidden list was scrolled
    renderRows();
    list.focus();
  });
  const index = view.rows[position];
  const parts = index === undefined ? [] : view.tab === "trained" ? trainedDetail(index) : heldOutDetail(index);
  detail.replaceChildren(back, ...parts);
  document.body.classList.toggle("open", open && index !== undefined);
  detail.scrollTop = 0;
  if (open && getComputedStyle(back).display !== "none") back.focus();
  renderRows();
}

function update() {
  const state = states[view.tab];
  const group = state.group === "" ? null : groupsOf(DATA[view.tab])[Number(state.group)].slice(0, 2);
  const table = tables[view.tab];
  const asked = { ...state, group, query: $("query").value, descending: state.order !== "lowest" };
  view.rows = table.select(asked);
  $("order").disabled = state.sort === "";
  $("count").textContent = `${view.rows.length.toLocaleString("en")} of ${one(table.size, table.noun)}`;
  list.scrollTop = 0;
  choose(0, false);
}

// [field, value, prompts] of every group.
function groupsOf(side) {
  const found = [];
  for (const field of side.fields) {
    const counts = new Map();
    for (const { metadata } of side.prompts) {
      if (Object.hasOwn(metadata, field)) counts.set(metadata[field], (counts.get(metadata[field]) ?? 0) + 1);
    }
    const values = [...counts.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    found.push(...values.map((value) => [field, value, counts.get(value)]));
  }
  return found;
}

function fill(id, entries) {
  const options = entries.map(([value, text]) => el("option", { value, text }));
  $(id).replaceChildren(...options);
  $(id).value = states[view.tab][id];
}

// The filters of one side, as they were left.
function showTab(tab) {
  view.tab = tab;
  for (const name of Object.keys(tables)) $(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
  const table = tables[tab];
  const groups = groupsOf(DATA[tab]);
  fill("iteration", table.iterations);
  fill("group", [["", "all"], ...groups.map(([field, value, n], at) => [String(at), `${field}: ${value} (${n})`])]);
  fill("cut", [["", "all"], ["truncated", "yes"], ["whole", "no"]]);
  fill("sort", table.sorts);
  fill("order", [["", "highest first"], ["lowest", "lowest first"]]);
  $("group").disabled = groups.length === 0;
  update();
}

function onKey(event) {
  const page = Math.max(1, Math.floor(list.clientHeight / 90));
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key === "Enter" && view.rows.length) choose(view.at);
  if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const position = Math.min(view.rows.length - 1, Math.max(0, view.at + steps[event.key]));
  if (position < 0) return;
  reveal(position);
  choose(position, false);
}

// What the head of the page says.
function about() {
  const [reference, ...policies] = DATA.held_out.batches;
  const names = (batches) => batches.map((batch) => batch.iteration).join(", ") || "none";
  const told = [
    `${one(tables.trained.size, "responses")} to ${one(DATA.trained.prompts.length, "training prompts")} (iterations: ${names(DATA.trained.batches)})`,
    `answers to ${one(reference.prompts.length, "held-out prompts")} by the reference and after iterations: ${names(policies)}`,
  ];
  return [`${told.join(", ")}.`, ...DATA.notes].join(" ");
}

function begin() {
  document.title = `Samples of ${DATA.run}`;
  $("title").textContent = DATA.run;
  $("about").textContent = about();
  $("tab-trained").disabled = tables.trained.size === 0;
  for (const name of Object.keys(tables)) $(`tab-${name}`).addEventListener("click", () => showTab(name));
  for (const name of CONTROLS) {
    $(name).addEventListener("change", () => {
      states[view.tab][name] = $(name).value;
      update();
    });
  }
  let waiting = 0;
  $("query").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(update, 150);
  });
  list.addEventListener("scroll", () => requestAnimationFrame(renderRows));
  list.addEventListener("keydown", onKey);
  new ResizeObserver(renderRows).observe(list);
  showTab(view.tab);
  performance.mark("ready");
}

begin();
