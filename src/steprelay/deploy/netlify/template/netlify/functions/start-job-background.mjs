// Carries a run on with no tab open, for up to 15 minutes, then calls its successor. Python checks who asks.
import { carry } from "../../python/proxy.mjs";

export default (request, context) => carry(request, context);

export const config = { background: true };
