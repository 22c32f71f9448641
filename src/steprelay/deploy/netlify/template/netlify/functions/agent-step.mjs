// Every request of a client: /.netlify/functions/agent-step, and /api/* by the rewrite in netlify.toml.
import { forward } from "../../python/proxy.mjs";

export default (request, context) => forward(request, context);
