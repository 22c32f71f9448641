// What a model wrote, as DOM nodes: paragraphs, headings, lists, quotes, code, emphasis, places like `src/a.py:12`.
// Nothing is ever parsed as HTML, and no link is made: words of a model are words.

import { h } from "./dom.js";

/** A fragment for a text. Unclosed marks stay as they were written: text may be half here. */
export function prose(text) {
  const out = document.createDocumentFragment();
  const lines = String(text).replace(/\r\n?/g, "\n").split("\n");
  for (let i = 0; i < lines.length; ) {
    const [node, next] = block(lines, i);
    if (node) out.append(node);
    i = next;
  }
  return out;
}

const ITEM = /^\s{0,3}(?:[-*•]|(\d{1,3})[.)])\s+(.*)$/;
const starts = (line) => /^\s*$|^\s*(```|~~~)|^#{1,6} |^> ?/.test(line) || ITEM.test(line);

function block(lines, i) {
  const line = lines[i];
  if (/^\s*$/.test(line)) return [null, i + 1];
  const fence = /^\s*(```|~~~)/.exec(line)?.[1];
  if (fence) return fenced(lines, i, fence);
  const title = /^#{1,6} +(.*)$/.exec(line);
  if (title) return [h("p", { class: "title" }, inline(title[1])), i + 1];
  if (/^> ?/.test(line)) return quoted(lines, i);
  if (ITEM.test(line)) return list(lines, i);
  let end = i + 1;
  while (end < lines.length && !starts(lines[end])) end++;
  return [h("p", null, inline(lines.slice(i, end).join("\n"))), end];
}

function fenced(lines, i, fence) {
  let end = i + 1;
  while (end < lines.length && !lines[end].trimStart().startsWith(fence)) end++;
  const code = lines.slice(i + 1, end).join("\n");
  return [h("pre", { tabindex: "0", "aria-label": "Code" }, h("code", null, code)), end + 1];
}

function quoted(lines, i) {
  let end = i;
  while (end < lines.length && /^>/.test(lines[end])) end++;
  return [h("blockquote", null, prose(lines.slice(i, end).map((l) => l.replace(/^> ?/, "")).join("\n"))), end];
}

function list(lines, i) {
  const number = ITEM.exec(lines[i])[1];
  const items = [];
  let end = i;
  for (; end < lines.length; end++) {
    const item = ITEM.exec(lines[end]);
    if (item) items.push(item[2]);
    else if (/^\s+\S/.test(lines[end]) && items.length) items[items.length - 1] += `\n${lines[end].trim()}`;
    else break;
  }
  return [h(number ? "ol" : "ul", number ? { start: number } : null, items.map((t) => h("li", null, inline(t)))), end];
}

const PLACE = String.raw`(?:[\w.@-]+\/)*[\w@-]+(?:\.[\w-]+)*\.[A-Za-z]\w{0,5}:\d+(?:[-–:]\d+)?`;
const INLINE = new RegExp(String.raw`(\`+)([\s\S]+?)\1|\*\*([^\s*](?:[\s\S]*?[^\s*])?)\*\*|(?<![\w*])[*_]([^\s*_](?:[^*_]*[^\s*_])?)[*_](?![\w*])|(?<![\w/])(${PLACE})`, "g");
const ONLY_PLACE = new RegExp(`^${PLACE}$`);

export function inline(text) {
  const out = [];
  let from = 0;
  for (const m of text.matchAll(INLINE)) {
    out.push(text.slice(from, m.index));
    if (m[2] !== undefined) out.push(h("code", ONLY_PLACE.test(m[2].trim()) ? { class: "place" } : null, m[2]));
    else if (m[3] !== undefined) out.push(h("strong", null, inline(m[3])));
    else if (m[4] !== undefined) out.push(h("em", null, inline(m[4])));
    else out.push(h("code", { class: "place" }, m[5]));
    from = m.index + m[0].length;
  }
  out.push(text.slice(from));
  return out;
}

/** Any output as nodes: text as prose, the rest as JSON. */
export function shown(value) {
  if (typeof value === "string") return prose(value);
  return h("pre", { tabindex: "0", "aria-label": "Output" }, JSON.stringify(value, null, 2));
}
