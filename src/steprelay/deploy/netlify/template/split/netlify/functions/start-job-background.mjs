// Keeps a request to the backend open for as long as it carries a run there: a function lives while it is asked.
import { call } from "../backend.mjs";

export default async (request) => {
  const answer = await call(request, "/api/carry", { prefer: "wait", "x-steprelay-wall-ms": String(14 * 60_000 + 50_000) });
  if (!answer.ok) console.error(`start-job-background: ${answer.status} ${await answer.text()}; the sweep will find the run`);
};

export const config = { background: true };
