// What only a person can give: approvals and answers.

import { h } from "./dom.js";
import { prose } from "./text.js";

/** A form for the interrupts of a run. `send(answers)` posts them; it may throw. */
export function askForm(interrupts, send) {
  const fields = interrupts.map(field);
  const alert = h("p", { class: "notice bad", role: "alert", hidden: true });
  const submit = async (e) => {
    e.preventDefault();
    const answers = fields.map((f) => f.read(e.submitter));
    const buttons = form.querySelectorAll("button");
    buttons.forEach((b) => (b.disabled = true));
    try {
      await send(answers);
    } catch (error) {
      alert.hidden = false;
      alert.textContent = error.status === 409 ? "Somebody else has answered already." : error.message;
      buttons.forEach((b) => (b.disabled = false));
    }
  };
  const onlyApproval = interrupts.length === 1 && interrupts[0].kind === "approval";
  const form = h(
    "form", { class: "question", "aria-label": "The agent waits for you", onsubmit: submit },
    h("h2", null, onlyApproval ? "May I?" : "Waiting for you"), fields.map((f) => f.node),
    onlyApproval
      ? h("div", { class: "row" }, h("button", { class: "primary", name: "verdict", value: "yes" }, "Approve"), h("button", { name: "verdict", value: "no" }, "Reject"))
      : h("div", { class: "row" }, h("button", { class: "primary" }, "Send")),
    alert,
  );
  return form;
}

function field(interrupt) {
  return interrupt.kind === "approval" ? approval(interrupt) : question(interrupt);
}

const resolved = (interrupt, payload) => ({ interruptId: interrupt.id, status: "resolved", payload });

function approval(interrupt) {
  const note = h("input", { type: "text", id: `note-${interrupt.id}`, placeholder: "Why (the agent reads it)", "aria-label": "Why, for the agent" });
  const choice = h("select", { "aria-label": "Your decision" }, h("option", { value: "yes" }, "Approve"), h("option", { value: "no" }, "Reject"));
  const read = (button) => {
    const approved = (button?.name === "verdict" ? button.value : choice.value) === "yes";
    return resolved(interrupt, note.value.trim() ? { approved, reason: note.value.trim() } : { approved });
  };
  const node = h("div", { class: "field" }, words(interrupt), given(interrupt.payload), h("div", { class: "row" }, note));
  queueMicrotask(() => !node.closest("form")?.querySelector("[name=verdict]") && node.lastChild.prepend(choice));
  return { node, read };
}

function question(interrupt) {
  const options = optionsOf(interrupt);
  const id = `answer-${interrupt.id}`;
  const input = options
    ? h("select", { id }, options.map((o) => h("option", { value: JSON.stringify(o) }, typeof o === "string" ? o : JSON.stringify(o))))
    : h("textarea", { id, rows: 2, required: true });
  const read = () => resolved(interrupt, options ? JSON.parse(input.value) : typed(interrupt.schema, input.value.trim()));
  return { node: h("div", { class: "field" }, words(interrupt, id), options ? null : given(interrupt.payload), input), read };
}

const words = (interrupt, id) => h(id ? "label" : "div", id ? { for: id, class: "prompt" } : { class: "prompt" }, prose(interrupt.prompt || "The agent asks for an answer."));

function given(payload) {
  if (payload == null) return null;
  return h("pre", { tabindex: "0", "aria-label": "What it is about" }, typeof payload === "string" ? payload : JSON.stringify(payload, null, 2));
}

function optionsOf({ schema, payload }) {
  const list = schema?.enum ?? payload?.choices ?? payload?.options ?? (schema?.type === "boolean" ? [true, false] : null);
  return Array.isArray(list) && list.length ? list : null;
}

function typed(schema, text) {
  if (!schema || schema.type === "string") return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
