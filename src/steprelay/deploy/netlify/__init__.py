"""Netlify: Python behind its functions. `bundle` makes what they run, `proxy.mjs` is between them and `serve`."""
