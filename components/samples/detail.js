// What the page shows of a sample: a row of the list, and everything once it is chosen.

const $ = (id) => document.getElementById(id);
const DATA = JSON.parse($("data").textContent);
const MINUS = "\u2212";
const tables = { trained: new Trained(DATA.trained), held_out: new HeldOut(DATA.held_out) };
const fresh = () => ({ iteration: "", group: "", cut: "", sort: "", order: "" });
const states = { trained: fresh(), held_out: fresh() }; // of the filters
const view = { tab: tables.trained.size ? "trained" : "held_out", rows: [], at: -1 }; // `at`: the chosen one of `rows`

// An element; texts are set as text, never as markup.
function el(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (name === "text") made.textContent = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function number(value, signed = false, digits = 4) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size >= 1e6 || (size && size < 1e-4) ? size.toExponential(2) : String(Number(size.toPrecision(digits)));
  return (value < 0 ? MINUS : signed && value > 0 ? "+" : "") + text;
}

const tag = (text, kind = "") => el("span", { class: `tag ${kind}`, text });
const one = (count, noun) => `${count.toLocaleString("en")} ${noun}`;

// Figures of one response.
function figures(batch, row) {
  const tags = [];
  if (batch.reward[row] !== null) tags.push(tag(`reward ${number(batch.reward[row])}`));
  if (batch.win_rate) tags.push(tag(`win rate ${number(batch.win_rate[row])}`));
  for (const [name, values] of Object.entries(batch.parts)) tags.push(tag(`${name} ${number(values[row])}`, "part"));
  if (batch.log_ratio) tags.push(tag(`log-ratio ${number(batch.log_ratio[row], true)}`));
  if (batch.logp) tags.push(tag(`log-prob ${number(batch.logp[row])}`));
  tags.push(tag(`${batch.tokens[row]} tokens`));
  if (batch.truncated[row]) tags.push(tag("truncated", "cut"));
  return el("div", { class: "figures" }, ...tags);
}

function textBlock(text) {
  return text === "" ? el("p", { class: "text empty", text: "(empty)" }) : el("p", { class: "text", dir: "auto", text });
}

const response = (batch, row) => el("section", { class: "response" }, figures(batch, row), textBlock(batch.texts[row]));

function promptBlock(prompt) {
  const block = el("section", { class: "prompt" });
  for (const [role, content] of prompt.messages) block.append(el("h3", { text: role }), textBlock(content));
  if (prompt.answer !== null) block.append(el("h3", { text: "answer for the judge" }), textBlock(prompt.answer));
  const facts = Object.entries(prompt.metadata).map(([name, value]) => tag(`${name}: ${value}`));
  if (facts.length) block.append(el("div", { class: "figures" }, ...facts));
  return block;
}

// The chosen response, and the others to its prompt.
function trainedDetail(index) {
  const { batch, row, group, prompt } = tables.trained.at(index);
  const others = Array.from({ length: batch.k }, (_, k) => group * batch.k + k).filter((r) => r !== row);
  const head = el("h2", { text: `${prompt.id}, iteration ${batch.iteration}` });
  return [
    ...[head, promptBlock(prompt), el("h3", { text: "this response" }), response(batch, row)],
    el("h3", { text: `the other ${others.length} of its group, best win rate first` }),
    ...sorted(others, (r) => batch.win_rate[r], true).map((r) => response(batch, r)),
  ];
}

// The pieces of a text, the changed ones marked but for the white space at their ends.
function marked(pieces, name) {
  const parts = pieces.flatMap(({ text, changed }) => {
    const core = changed ? text.trim() : "";
    const start = text.indexOf(core);
    return changed ? [text.slice(0, start), el(name, { text: core }), text.slice(start + core.length)] : [text];
  });
  return parts.length ? el("p", { class: "text", dir: "auto" }, ...parts) : textBlock("");
}

// The reference's answers beside a policy's, word by word.
function compared(reference, policy, index) {
  const block = el("div", { class: "pairs" });
  for (let k = 0; k < policy.k; k++) {
    const [theirs, ours] = [index * reference.k + (k % reference.k), index * policy.k + k];
    const [left, right] = diff(reference.texts[theirs], policy.texts[ours]);
    block.append(
      el("section", { class: "response" }, el("h4", { text: "reference" }), figures(reference, theirs), marked(left, "del")),
      el("section", { class: "response" }, el("h4", { text: "policy" }), figures(policy, ours), marked(right, "ins")),
    );
  }
  return block;
}

function heldOutDetail(index) {
  const held = tables.held_out;
  const prompt = held.side.prompts[held.reference.prompts[index]];
  const shown = [el("h2", { text: prompt.id }), promptBlock(prompt)];
  const average = (batch) => mean(held.of(batch, "reward", index));
  for (const policy of [...held.policies].reverse()) {
    const rewards = [policy, held.reference].map((batch) => number(average(batch)));
    const reward = average(policy) === null ? "" : `: reward ${rewards[0]}, reference's ${rewards[1]}`;
    const part = el("details", {}, el("summary", { text: `After iteration ${policy.iteration}${reward}` }));
    part.addEventListener("toggle", () => part.childElementCount > 1 || part.append(compared(held.reference, policy, index)));
    part.open = policy === held.policy(states.held_out.iteration);
    shown.push(part);
  }
  if (held.policies.length) return shown;
  const own = Array.from({ length: held.reference.k }, (_, k) => index * held.reference.k + k);
  return [...shown, el("h3", { text: "the reference's answers" }), ...own.map((row) => response(held.reference, row))];
}

// What a row of the list shows: prompt, response, figures, and whether the response was cut off.
function trainedRow(index) {
  const { batch, row, prompt } = tables.trained.at(index);
  const shown = [["reward", "reward"], ["win_rate", "win"], ["log_ratio", "ratio"]];
  const known = shown.filter(([name]) => batch[name][row] !== null);
  const tags = known.map(([name, label]) => tag(`${label} ${number(batch[name][row], name === "log_ratio", 3)}`));
  tags.unshift(tag(`it. ${batch.iteration}`));
  return { prompt, text: batch.texts[row], tags, tokens: batch.tokens[row], cut: batch.truncated[row] };
}

function heldOutRow(index) {
  const held = tables.held_out;
  const { iteration } = states.held_out;
  const policy = held.policy(iteration);
  const value = (name) => held.figure(name, iteration)(index);
  const tags = value("reward") === null ? [] : [tag(`reward ${number(value("reward"), false, 3)}`)];
  const change = held.policies.length ? value("change") : null;
  if (change !== null) tags.push(tag(`change ${number(change, true, 3)}`, change > 0 ? "up" : change < 0 ? "down" : ""));
  const prompt = held.side.prompts[held.reference.prompts[index]];
  const cut = held.of(policy, "truncated", index).includes(true);
  return { prompt, text: policy.texts[index * policy.k], tags, tokens: value("tokens"), cut };
}

const snippet = (text) => text.slice(0, 240).replace(/\s+/g, " ");

function rowElement(position, top) {
  const { prompt, text, tags, tokens, cut } = (view.tab === "trained" ? trainedRow : heldOutRow)(view.rows[position]);
  tags.push(tag(`${number(tokens)} tok${cut ? ", cut" : ""}`, cut ? "cut" : ""));
  const place = { "aria-selected": position === view.at, "aria-setsize": view.rows.length, "aria-posinset": position + 1 };
  const made = el(
    "div",
    { class: "row", role: "option", id: `row-${position}`, ...place },
    el("div", { class: "line muted", dir: "auto", text: snippet(prompt.messages.at(-1)[1]) }),
    el("div", { class: "line", dir: "auto", text: snippet(text) || "(empty)" }),
    el("div", { class: "figures" }, ...tags),
  );
  made.style.top = `${top}px`;
  made.addEventListener("click", () => choose(position));
  return made;
}
