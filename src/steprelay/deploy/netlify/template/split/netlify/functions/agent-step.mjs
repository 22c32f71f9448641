// The founding URL, /.netlify/functions/agent-step. Everything below /api reaches the backend by the rewrite in netlify.toml.
import { call } from "../backend.mjs";

export default (request, context) => call(request, "/api/agent-step", { "x-nf-client-connection-ip": context.ip });
