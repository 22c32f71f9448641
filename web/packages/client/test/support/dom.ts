// As much of a document as React needs, around Node's own fetch, AbortSignal and BroadcastChannel. A setup file, since
// React looks for it when it is loaded.

import { Window } from "happy-dom";

const page = new Window({ url: "http://localhost/" });
const NAMES = [
  "document",
  "localStorage",
  "navigator",
  "Node",
  "Element",
  "HTMLElement",
  "HTMLIFrameElement",
  "MutationObserver",
] as const;
for (const name of NAMES) Object.defineProperty(globalThis, name, { value: page[name], configurable: true });
Object.defineProperty(globalThis, "window", { value: globalThis, configurable: true });
