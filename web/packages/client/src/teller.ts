import type { Envelope, Interrupt, Part, PartEvent, RunView } from "./types.js";

export type Kind = "text" | "thought";
export type Result = Extract<Part, { type: "result" }>;
/** How a run stands: the row, or the newest answer. */
export type Standing = Pick<Envelope | RunView, "status" | "stopReason" | "output" | "error" | "interrupts" | "step">;

/** Words of this attempt: `whole` once the agent has given them whole, `kept` once they came committed. */
interface Said {
  kind: Kind;
  id: string;
  text: string;
  whole: boolean;
  kept: boolean;
}

/**
 * The parts of a run as the events of a protocol with open and closed things: every text, call and result once.
 *
 * Words come up to three times: in pieces, whole, and committed. What came live and is not in what was committed is taken
 * back, and so is what an attempt said that another one follows.
 */
export abstract class Teller<E> {
  /** Calls without a result: the agent's id -> the name here. */
  protected open = new Map<string, string>();
  private opened = new Map<string, string>(); // as they were when the step began
  private step: number | null = null;
  private attempt: number | "c" = "c";
  private heard = false; // something of this attempt
  private committed: Part[] = [];
  private said: Said[] = [];
  private speaking: { said: Said; id: string } | null = null;
  private called = new Set<string>();
  private answered = new Set<string>();
  private words = 0;

  constructor(protected readonly run: string) {}

  part({ at: [step, attempt, index], part }: PartEvent): E[] {
    const events: E[] = [];
    if (step !== this.step) events.push(...this.leave(), ...this.enter(step, attempt));
    else if (attempt === "c") {
      if (index < this.committed.length) return []; // told again, to somebody who had missed it
    } else if (!index && this.heard) events.push(...this.retract(attempt));
    this.heard = true;
    if (attempt === "c") this.committed.push(part);
    return [...events, ...this.tell(part, attempt === "c")];
  }

  /** The last events. */
  end(now: Standing): E[] {
    const events = this.step !== null && now.step < this.step ? this.retract("c") : this.settle();
    const asked = now.status === "AWAITING_INPUT" ? now.interrupts : [];
    events.push(...asked.flatMap((interrupt) => this.asks(interrupt)));
    return [...events, ...this.leave(), ...this.ending(now)];
  }

  // ---------------------------------------------------------------- steps

  private enter(step: number, attempt: number | "c"): E[] {
    this.step = step;
    this.opened = new Map(this.open);
    this.begin(attempt);
    this.committed = [];
    return this.entered(step);
  }

  private begin(attempt: number | "c") {
    this.attempt = attempt;
    this.heard = false;
    this.said = [];
    this.called.clear();
    this.answered.clear();
  }

  private retract(attempt: number | "c"): E[] {
    const events = this.close();
    this.open = new Map(this.opened);
    this.begin(attempt);
    return [...events, ...this.retracted()];
  }

  /** What was only said live gives way to what was committed. */
  private settle(): E[] {
    if (this.step === null || this.said.every((said) => said.kept)) return this.close();
    const { attempt } = this;
    return [...this.retract(attempt), ...this.committed.flatMap((part) => this.tell(part, true)), ...this.close()];
  }

  private leave(): E[] {
    if (this.step === null) return [];
    const events = [...this.settle(), ...this.left(this.step)];
    this.step = null;
    return events;
  }

  // ---------------------------------------------------------------- parts

  private tell(part: Part, kept: boolean): E[] {
    switch (part.type) {
      case "text":
      case "thought":
        if (part.type === "text" && part.role === "user") return []; // the reader said it
        return part.delta ? this.piece(part.type, part.id ?? "", part.text) : this.whole(part.type, part.text, kept);
      case "call":
        return this.call(part.id, part.name, part.args);
      case "result":
        return this.result(part);
      case "state":
        return this.state(part.value);
      case "end":
        return part.status === "COMPLETED" && part.output != null ? this.answer(shown(part.output)) : [];
      default:
        return []; // told by the end
    }
  }

  private piece(kind: Kind, id: string, text: string): E[] {
    if (!text) return [];
    const events: E[] = [];
    if (this.speaking?.said.kind !== kind || this.speaking.id !== id) {
      events.push(...this.close(), ...this.needsStep());
      const said = this.next(kind);
      this.speaking = { said, id };
      events.push(...this.starts(kind, said.id));
    }
    const { said } = this.speaking!;
    said.text += text;
    return [...events, this.grows(kind, said.id, text)];
  }

  private whole(kind: Kind, text: string, kept: boolean): E[] {
    if (!text.trim()) return [];
    const fits = (s: Said) => s.kind === kind && s.text.trim() === text.trim() && !(kept ? s.kept : s.whole);
    const known = this.said.find(fits);
    if (known) {
      known.whole = true;
      known.kept ||= kept;
      return this.close();
    }
    const open = this.speaking?.said;
    if (open && open.kind === kind && text.startsWith(open.text)) {
      const rest = text.slice(open.text.length);
      Object.assign(open, { text, whole: true, kept });
      return [this.grows(kind, open.id, rest), ...this.close()];
    }
    const events = [...this.close(), ...this.needsStep()];
    const said = Object.assign(this.next(kind), { text, whole: true, kept });
    return [...events, ...this.starts(kind, said.id), this.grows(kind, said.id, text), ...this.ends(kind, said.id)];
  }

  /** An output is words for the reader too, unless the step that gave it has used others. */
  private answer(output: string): E[] {
    return this.said.some((s) => s.kind === "text" && s.kept) ? [] : this.whole("text", output, true);
  }

  private next(kind: Kind): Said {
    const said = { kind, id: `${this.run}:${this.step}:${kind}${this.words++}`, text: "", whole: false, kept: false };
    this.said.push(said);
    return said;
  }

  private close(): E[] {
    const said = this.speaking?.said;
    this.speaking = null;
    return said ? this.ends(said.kind, said.id) : [];
  }

  private call(id: string, name: string, args: unknown): E[] {
    if (this.called.has(id)) return [];
    this.called.add(id);
    if (this.open.has(id)) return []; // shown by an earlier step
    const call = this.name(id);
    this.open.set(id, call);
    return [...this.close(), ...this.needsStep(), ...this.calls(call, name, args)];
  }

  /** What a call of this attempt is called here. */
  protected name(id: string): string {
    return `${this.run}:${this.step}.${this.attempt}:${id}`;
  }

  private result(result: Result): E[] {
    if (this.answered.has(result.id)) return [];
    const events = this.call(result.id, result.name, undefined); // none is without its call
    this.answered.add(result.id);
    const call = this.open.get(result.id) ?? result.id;
    this.open.delete(result.id);
    return [...this.close(), ...events, ...this.answers(call, result)];
  }

  // ---------------------------------------------------------------- how a protocol says it

  /** Something new is about to be told. */
  protected needsStep(): E[] {
    return [];
  }
  protected asks(_interrupt: Interrupt): E[] {
    return [];
  }
  protected abstract entered(step: number): E[];
  protected abstract left(step: number): E[];
  /** Everything told of this step is to go. */
  protected abstract retracted(): E[];
  protected abstract starts(kind: Kind, id: string): E[];
  protected abstract grows(kind: Kind, id: string, text: string): E;
  protected abstract ends(kind: Kind, id: string): E[];
  protected abstract calls(call: string, name: string, args: unknown): E[];
  protected abstract answers(call: string, result: Result): E[];
  protected abstract state(value: unknown): E[];
  protected abstract ending(now: Standing): E[];
}

/** The agent's id of the call an interrupt is about: named in its payload, or the end of its id. */
export function askedAbout({ id, payload }: Interrupt): string {
  const named = (payload as { call?: unknown } | null)?.call;
  return typeof named === "string" ? named : id.slice(id.indexOf("/") + 1);
}

/** A value as text for people. */
export const shown = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
