import { defineConfig } from "vite";

// While developing, /api is the Python server's: `steprelay dev agent.py`.
export default defineConfig({
  esbuild: { jsx: "automatic" },
  resolve: { dedupe: ["react", "react-dom", "ai"] }, // the client is a link here, with a React of its own to be tested with
  server: { proxy: { "/api": process.env.STEPRELAY_URL ?? "http://127.0.0.1:8000" } },
});
