// Three helpers instead of a framework.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `on…` properties are listeners, `--x` are CSS variables, the rest attributes; null and false are left out. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false && c !== ""));
  return node;
}

/** Make the children of `parent` those of `items`, touching only what changed: a log must not be read out twice. */
export function sync(parent, items, make) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let cursor = parent.firstElementChild;
  for (const item of items) {
    let node = old.get(item.key);
    if (node && node.dataset.rev === item.rev) old.delete(item.key);
    else {
      const fresh = make(item);
      fresh.dataset.key = item.key;
      fresh.dataset.rev = item.rev;
      if (node) {
        if (cursor === node) cursor = fresh;
        node.replaceWith(fresh);
        old.delete(item.key);
      }
      node = fresh;
    }
    if (node === cursor) cursor = cursor.nextElementSibling;
    else parent.insertBefore(node, cursor);
  }
  for (const node of old.values()) node.remove();
}

/** Set text only when it differs, so that live regions speak only when something changed. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
