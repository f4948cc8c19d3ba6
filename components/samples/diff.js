"use strict";

// Words that differ between two texts: a longest common subsequence of words; white space decides nothing.

const LETTERS = "\\p{L}\\p{M}\\p{N}_";
const UNSPACED = "[\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}]"; // a word each sign
const WORD = new RegExp(`(${UNSPACED}|(?:(?!${UNSPACED})[${LETTERS}])+|\\S)(\\s*)`, "gu");
const CELLS = 16e6; // of the table: about 0.1 s; beyond, all between the first and the last difference counts as changed

// [{word, text}]: a word, and the same with the white space around it as the text has it.
function words(text) {
  const found = [];
  for (const match of text.matchAll(WORD)) {
    const before = found.length === 0 ? text.slice(0, match.index) : "";
    found.push({ word: match[1], text: before + match[0] });
  }
  return found;
}

// How long a subsequence the ends of both have in common, from each pair of positions on; rows of b.length + 1.
function table(a, b) {
  const width = b.length + 1;
  const common = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const here = i * width + j;
      common[here] =
        a[i].word === b[j].word ? common[here + width + 1] + 1 : Math.max(common[here + width], common[here + 1]);
    }
  }
  return common;
}

// Which words of both are in the subsequence: two arrays of booleans.
function matched(a, b) {
  const kept = [new Array(a.length).fill(false), new Array(b.length).fill(false)];
  if ((a.length + 1) * (b.length + 1) > CELLS) return kept;
  const common = table(a, b);
  const width = b.length + 1;
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    if (a[i].word === b[j].word) kept[0][i++] = kept[1][j++] = true;
    else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) i++;
    else j++;
  }
  return kept;
}

// Pieces of one text, [{text, changed}]; neighbours differ in `changed`.
function pieces(words, kept) {
  const joined = [];
  words.forEach((word, at) => {
    const last = joined.at(-1);
    if (last && last.changed === !kept[at]) last.text += word.text;
    else joined.push({ text: word.text, changed: !kept[at] });
  });
  return joined;
}

// The pieces of both texts.
function diff(left, right) {
  const [a, b] = [words(left), words(right)];
  const short = Math.min(a.length, b.length);
  let [head, tail] = [0, 0];
  while (head < short && a[head].word === b[head].word) head++;
  while (tail < short - head && a[a.length - 1 - tail].word === b[b.length - 1 - tail].word) tail++;
  const kept = matched(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const same = (count) => new Array(count).fill(true);
  return [a, b].map((all, side) => pieces(all, [...same(head), ...kept[side], ...same(tail)]));
}
