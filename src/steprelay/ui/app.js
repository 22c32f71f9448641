// The page: two places, all runs (#/) and one run (#/runs/<id>; with ?watch it never drives unless told to).

import { Api } from "./api.js";
import { say } from "./dom.js";
import { Home } from "./home.js";
import { RunView } from "./runview.js";

const api = new Api(new URL("api/", document.baseURI).href);
const main = document.getElementById("main");
let place = null;

async function go() {
  const [, id, watching] = /^#\/runs\/([^/?]+)(\?watch)?/.exec(location.hash) ?? [];
  if (!id && location.hash === "#main") return main.focus();
  place?.close();
  main.replaceChildren();
  document.getElementById("nav-runs").toggleAttribute("aria-current", !id);
  place = id ? new RunView(api, decodeURIComponent(id), main, Boolean(watching)) : new Home(api, main, asks);
  await place.open();
}

/** The badge that somebody waits for you leads to the oldest who does. */
function asks(runs) {
  const waiting = runs.filter((r) => r.status === "AWAITING_INPUT");
  const badge = document.getElementById("nav-ask");
  badge.hidden = !waiting.length;
  if (!waiting.length) return;
  say(badge, waiting.length === 1 ? "1 waits for you" : `${waiting.length} wait for you`);
  badge.href = `#/runs/${encodeURIComponent(waiting.at(-1).id)}`;
}

addEventListener("hashchange", go);
go();
