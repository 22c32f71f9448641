// Once a minute: runs that are due and that nobody carries, messages that were not delivered.
import { sweep } from "../../python/proxy.mjs";

export default (request, context) => sweep(request, context);

export const config = { schedule: "* * * * *" };
