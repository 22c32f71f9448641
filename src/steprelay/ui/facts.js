// What only this tab can know: answers it lost, replays it got, who held which step. Kept in the tab, so that a reload
// does not forget them. Everything else about a run is read from its step rows.

import { read, write } from "./api.js";

export class Facts {
  constructor(id) {
    this.key = `facts:${id}`;
    Object.assign(this, { replays: [], again: 0, changed: 0, killed: [], holders: {}, rows: {} }, read(this.key));
  }

  save() {
    const { key, ...facts } = this;
    write(key, facts);
  }

  /** The process that we had killed: a lease in its name only runs out. */
  kill(holder) {
    if (holder) this.killed.push(holder);
    this.save();
  }

  /** The answer to a repeated request: a replay, or new work for a step that was there already. */
  repeated(envelope) {
    if (envelope.replayed) this.replays.push(envelope.step);
    else if (this.rows[envelope.step]) this.again++;
    this.save();
  }

  /** Which process was seen at an attempt. */
  held(index, attempt, holder) {
    const key = `${index}.${attempt}`;
    if (!holder || this.holders[key] === holder) return;
    this.holders[key] = holder;
    this.save();
  }

  /** The process that took a step, if it was seen. */
  holder(step) {
    return this.holders[`${step.index}.${step.attempt}`] ?? null;
  }

  /** Rows never change once committed: one that does was written twice. */
  seen(step) {
    const mark = `${step.claimId ?? ""}@${step.committedAt}#${step.attempt}`;
    const before = this.rows[step.index];
    if (before === mark) return;
    if (before) this.changed++;
    this.rows[step.index] = mark;
    this.save();
  }
}
