// Once a minute: has the backend look for runs that nobody carries.
import { call } from "../backend.mjs";

export default async (request) => {
  const ask = new Request(request.url, { method: "POST" });
  const answer = await call(ask, "/api/sweep", { authorization: `Bearer ${process.env.STEPRELAY_SECRET}` });
  if (!answer.ok) throw new Error(`sweep: ${answer.status} ${await answer.text()}`);
};

export const config = { schedule: "* * * * *" };
