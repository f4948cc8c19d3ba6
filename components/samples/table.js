// Which rows match and in which order; nothing of the page.

// A function that tells whether a text holds what is searched for, whatever its case and white space.
function matcher(query) {
  const wanted = query.trim();
  if (!wanted) return () => true;
  const plain = wanted.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  const pattern = new RegExp(plain.replace(/\s+/g, "\\s+"), "iu");
  return (text) => pattern.test(text);
}

// Indices by a figure of each; those without one come last, equal ones stay as they are.
function sorted(indices, figure, descending) {
  const figures = new Map(indices.map((index) => [index, figure(index)]));
  const sign = descending ? -1 : 1;
  return indices.sort((a, b) => {
    const [x, y] = [figures.get(a), figures.get(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (x - y);
  });
}

// The figures of one of the judge's parts; a batch may have none of that name.
const partOf = (batch, name) => (Object.hasOwn(batch.parts, name) ? batch.parts[name] : null);

function mean(figures) {
  const known = figures.filter((figure) => figure !== null);
  return known.length ? known.reduce((sum, figure) => sum + figure, 0) / known.length : null;
}

// For each prompt whether it belongs to a group and whether its own text matches.
function promptTests(side, { group, matches }) {
  const texts = (prompt) => [prompt.id, ...prompt.messages.map((turn) => turn[1]), prompt.answer ?? ""];
  return {
    inGroup: side.prompts.map((prompt) => !group || prompt.metadata[group[0]] === group[1]),
    found: side.prompts.map((prompt) => matches([...texts(prompt), ...Object.values(prompt.metadata)].join("\n"))),
  };
}

const MEASURES = [
  ["reward", "reward"],
  ["win_rate", "win rate"],
  ["log_ratio", "log-ratio to the reference"],
  ["tokens", "length"],
];

// Names of the judge's parts in any batch.
function partNames(side) {
  return [...new Set(side.batches.flatMap((batch) => Object.keys(batch.parts)))];
}

// The responses that the policy was trained on: a row for each.
class Trained {
  constructor(side) {
    this.side = side;
    this.starts = [0];
    for (const batch of side.batches) this.starts.push(this.starts.at(-1) + batch.texts.length);
    this.size = this.starts.at(-1);
    this.noun = "responses";
    this.iterations = [["", "all"], ...side.batches.map((batch) => [String(batch.iteration), String(batch.iteration)])];
    this.sorts = [["", "drawn"], ...MEASURES, ...partNames(side).map((name) => [`part ${name}`, name])];
  }

  at(index) {
    let number = 0;
    while (index >= this.starts[number + 1]) number++;
    const batch = this.side.batches[number];
    const row = index - this.starts[number];
    const group = Math.floor(row / batch.k);
    return { batch, row, group, prompt: this.side.prompts[batch.prompts[group]] };
  }

  figure(name) {
    return (index) => {
      const { batch, row } = this.at(index);
      const figures = name.startsWith("part ") ? partOf(batch, name.slice(5)) : batch[name];
      return figures ? figures[row] : null;
    };
  }

  // Indices of the rows that match, sorted.
  select({ query, iteration, group, cut, sort, descending }) {
    const matches = matcher(query);
    const { inGroup, found } = promptTests(this.side, { group, matches });
    const chosen = [];
    this.side.batches.forEach((batch, number) => {
      if (iteration && String(batch.iteration) !== iteration) return;
      for (let row = 0; row < batch.texts.length; row++) {
        const prompt = batch.prompts[Math.floor(row / batch.k)];
        if (!inGroup[prompt] || (cut && batch.truncated[row] !== (cut === "truncated"))) continue;
        if (found[prompt] || matches(batch.texts[row])) chosen.push(this.starts[number] + row);
      }
    });
    return sort ? sorted(chosen, this.figure(sort), descending) : chosen;
  }
}

// The held-out prompts: a row for each, with the answers of the reference and of one policy.
class HeldOut {
  constructor(side) {
    this.side = side;
    [this.reference, ...this.policies] = side.batches;
    this.size = this.reference.prompts.length;
    this.noun = "held-out prompts";
    const last = this.policies.at(-1);
    this.iterations = last
      ? [["", `last (${last.iteration})`], ...this.policies.map((b) => [String(b.iteration), String(b.iteration)])]
      : [["", "reference only"]];
    this.sorts = [
      ["", "as in the file"],
      ...(last ? [["change", "change of reward"]] : []),
      ["reward", "reward"],
      ["tokens", "length"],
      ...(last ? [["reference", "reference's reward"]] : []),
      ...partNames(side).map((name) => [`part ${name}`, name]),
    ];
  }

  // The policy that an iteration's answers are of; the reference where none was evaluated.
  policy(iteration) {
    return this.policies.find((b) => String(b.iteration) === iteration) ?? this.policies.at(-1) ?? this.reference;
  }

  // A batch's figures of one prompt.
  of(batch, name, index) {
    const figures = name.startsWith("part ") ? partOf(batch, name.slice(5)) : batch[name];
    return figures ? figures.slice(index * batch.k, (index + 1) * batch.k) : [];
  }

  figure(name, iteration) {
    const policy = this.policy(iteration);
    const own = (batch, what) => (index) => mean(this.of(batch, what, index));
    if (name === "reference") return own(this.reference, "reward");
    if (name !== "change") return own(policy, name);
    const [ours, theirs] = [own(policy, "reward"), own(this.reference, "reward")];
    return (index) => (ours(index) === null || theirs(index) === null ? null : ours(index) - theirs(index));
  }

  // Indices of the prompts that match, sorted; any answer may hold what is searched for.
  select({ query, iteration, group, cut, sort, descending }) {
    const matches = matcher(query);
    const { inGroup, found } = promptTests(this.side, { group, matches });
    const policy = this.policy(iteration);
    const chosen = [];
    for (let index = 0; index < this.size; index++) {
      const row = this.reference.prompts[index];
      if (!inGroup[row]) continue;
      if (cut && this.of(policy, "truncated", index).includes(true) !== (cut === "truncated")) continue;
      const told = () => this.side.batches.some((batch) => this.of(batch, "texts", index).some(matches));
      if (found[row] || told()) chosen.push(index);
    }
    return sort ? sorted(chosen, this.figure(sort, iteration), descending) : chosen;
  }
}
